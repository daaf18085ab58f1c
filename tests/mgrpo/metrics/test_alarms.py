from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.alarms import AlarmsConfig
from mgrpo.config.explain import all_keys
from mgrpo.errors import AlarmError, MgrpoError
from mgrpo.metrics.alarms import Alarm, AlarmWatch, stop_if_asked
from mgrpo.metrics.log import MetricsLog, read_alarms

RECORDED = Path(__file__).with_name("recorded_quickstart.json")
"""A run of the recipe quickstart that learned: one list of 40 steps per metric, three digits.
The copy rate is that of the four problems whose completions were recorded at each step."""

OFF = {
    "copying": {"threshold": None},
    "first_turn_falls": {"threshold": None},
    "no_signal": {"threshold": None},
    "entropy_collapse": {"threshold": None, "fraction_of_start": None},
    "mismatch": {"threshold": None},
    "truncation": {"threshold": None},
    "gradient_spike": {"threshold": None},
}


def watch(name: str, **settings) -> AlarmWatch:
    """A watch with one alarm alone."""
    sections = {**OFF, name: settings}
    repeat = settings.pop("repeat_every_steps", 20)
    return AlarmWatch(AlarmsConfig.model_validate({**sections, "repeat_every_steps": repeat}))


def run(watched: AlarmWatch, steps) -> list[Alarm]:
    return [alarm for step, values in enumerate(steps) for alarm in watched.check(step, values)]


def copying_step(share: float, wrong_pairs: int = 100) -> dict[str, float]:
    return {
        "transition/layer2/copy_fraction_of_wrong": share,
        "transition/layer2/wrong_to_right_count": 0.0,
        "transition/layer2/wrong_to_wrong_count": float(wrong_pairs),
    }


def recorded_steps() -> list[dict[str, float | None]]:
    columns = json.loads(RECORDED.read_text())
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


# --- each alarm, sounding and quiet ---


def norms(*values: float) -> list[dict[str, float]]:
    return [{"learner/grad_norm": value} for value in values]


def test_a_gradient_far_above_the_median_of_those_before_sounds_at_once():
    watched = watch("gradient_spike", threshold=10.0, window_steps=4)
    (alarm,) = run(watched, norms(1.0, 3.0, 0.0, 2.0, math.nan, 2.0, 21.0, 2.0))
    assert (alarm.step, alarm.num_steps, alarm.action) == (6, 1, "warn")
    assert "is 21, 10.5 times the median of the 4 steps before (threshold 10)" in alarm.message
    assert "learner.skip_above_grad_norm" in alarm.message


def test_gradients_are_not_compared_before_there_are_enough_of_them():
    assert run(watch("gradient_spike", threshold=2.0, window_steps=4), norms(1, 1, 1, 90)) == []


def test_copying_sounds_where_corrections_of_wrong_attempts_repeat_them():
    (alarm,) = run(watch("copying", threshold=0.9, patience_steps=3), [copying_step(0.97)] * 3)
    assert (alarm.name, alarm.layer, alarm.step, alarm.first_step) == ("copying", 2, 2, 0)
    assert alarm.message.startswith("copying: Steps 0 to 2, at the last: 97.0% of layer 2's 100 ")
    assert "layers.1.success: strict_fix" in alarm.message


def test_copying_is_quiet_at_the_threshold_and_when_the_row_of_steps_is_broken():
    steps = [copying_step(share) for share in (0.9, 0.9, 0.9, 0.97, 0.97, 0.5, 0.97, 0.97)]
    assert run(watch("copying", threshold=0.9, patience_steps=3), steps) == []


def test_copying_passes_over_steps_with_few_wrong_attempts():
    settings = {"threshold": 0.9, "patience_steps": 3, "min_pairs": 16}
    few, many = copying_step(1.0, wrong_pairs=15), copying_step(1.0, wrong_pairs=16)
    assert run(watch("copying", **settings), [few] * 9) == []
    (alarm,) = run(watch("copying", **settings), [many, few, many, few, many])
    assert (alarm.first_step, alarm.step, alarm.num_steps) == (0, 4, 3)


def falling(first: float, second: float, num_steps: int) -> list[dict[str, float]]:
    return [{"layer1/accuracy": first, "layer2/accuracy": second}] * num_steps


FALLS = {"threshold": 0.1, "window_steps": 4, "patience_steps": 2}


def test_first_turn_falls_sounds_where_corrections_gain_what_attempts_lose():
    steps = falling(0.6, 0.6, 4) + falling(0.4, 0.8, 4)
    # Layer 1's average: 0.6, then 0.55, 0.5, 0.45, 0.4. Two are more than 0.1 below 0.6.
    (alarm,) = run(watch("first_turn_falls", **FALLS), steps)
    assert (alarm.layer, alarm.first_step, alarm.step) == (1, 6, 7)
    assert "layer 1's accuracy fell from 60.0% at its best to 40.0%" in alarm.seen
    assert "layer 2's went from 60.0% to 80.0%" in alarm.seen
    assert "layers.0.loss_weight" in alarm.advice and "layers.1.loss_weight" in alarm.advice


def test_first_turn_falls_is_quiet_where_both_layers_fall_or_the_first_falls_little():
    both = falling(0.6, 0.6, 4) + falling(0.4, 0.5, 9)
    little = falling(0.6, 0.6, 4) + falling(0.51, 0.9, 9)
    assert run(watch("first_turn_falls", **FALLS), both) == []
    assert run(watch("first_turn_falls", **FALLS), little) == []


def test_first_turn_falls_needs_whole_windows_and_a_later_layer():
    settings = {**FALLS, "patience_steps": 1}
    assert run(watch("first_turn_falls", **settings), falling(0.9, 0.1, 3)) == []
    alone = [{"layer1/accuracy": value} for value in [0.9] * 4 + [0.1] * 8]
    assert run(watch("first_turn_falls", **settings), alone) == []


def signal(equal: float, selected: float = 1.0, advantage: float = 0.01) -> dict[str, float]:
    return {
        "layer2/zero_variance_fraction": equal,
        "layer2/selected_fraction": selected,
        "layer2/advantage_abs_mean": advantage,
        "layer2/accuracy": 0.02,
    }


def test_no_signal_sounds_where_nearly_all_groups_are_equal():
    (alarm,) = run(watch("no_signal", threshold=0.98, patience_steps=2), [signal(0.99)] * 2)
    assert alarm.layer == 2
    assert "all equal in 99.0% of layer 2's groups" in alarm.seen
    assert "easier problems (data.train)" in alarm.advice  # 2 % are right


def test_no_signal_asks_for_harder_problems_where_nearly_all_are_right():
    step = {**signal(1.0), "layer2/accuracy": 0.99}
    (alarm,) = run(watch("no_signal", patience_steps=1), [step])
    assert "harder problems" in alarm.advice


def test_no_signal_sounds_where_nothing_is_selected():
    steps = [signal(0.3, selected=0.0, advantage=0.0)]
    (alarm,) = run(watch("no_signal", patience_steps=1), steps)
    assert "100.0% of layer 2's completions are not selected" in alarm.seen


def test_no_signal_is_quiet_below_the_threshold_and_where_equal_rewards_still_teach():
    assert run(watch("no_signal", patience_steps=1), [signal(0.97)] * 20) == []
    # advantage: improvement, where every correction gains on its parent
    assert run(watch("no_signal", patience_steps=1), [signal(1.0, advantage=1.0)] * 20) == []


def test_no_signal_leaves_layers_without_a_loss_alone():
    config = AlarmsConfig.model_validate({"no_signal": {"patience_steps": 1}})
    assert AlarmWatch(config, trained_layers=[1]).check(0, signal(1.0)) == []
    assert len(AlarmWatch(config, trained_layers=[1, 2]).check(0, signal(1.0))) == 1


def entropies(*values: float) -> list[dict[str, float]]:
    return [{"learner/entropy": value} for value in values]


def test_entropy_collapse_sounds_below_the_absolute_threshold():
    settings = {"threshold": 0.01, "fraction_of_start": None, "patience_steps": 2}
    (alarm,) = run(watch("entropy_collapse", **settings), entropies(0.2, 0.009, 0.008))
    assert (alarm.layer, alarm.first_step) == (None, 1)
    assert "0.008 nats a token, below 0.01 (threshold)" in alarm.seen


def test_entropy_collapse_sounds_below_a_share_of_the_first_steps():
    settings = {"threshold": None, "fraction_of_start": 0.1, "start_steps": 2, "patience_steps": 2}
    # The first two steps' mean is 1.5, a tenth of it 0.15.
    steps = entropies(1.0, 2.0, 0.16, 0.14, 0.13)
    (alarm,) = run(watch("entropy_collapse", **settings), steps)
    assert (alarm.first_step, alarm.step) == (3, 4)
    assert "below 0.15 (10.0% of the initial 1.5)" in alarm.seen


def test_entropy_collapse_is_quiet_at_the_bounds():
    settings = {"threshold": 0.1, "fraction_of_start": 0.25, "start_steps": 1, "patience_steps": 1}
    assert run(watch("entropy_collapse", **settings), entropies(0.5, 0.125, 0.2, 0.125)) == []
    off = watch("entropy_collapse", threshold=None, fraction_of_start=None)
    assert run(off, entropies(1.0, *[0.0] * 50)) == []


def test_mismatch_sounds_where_engine_and_learner_disagree():
    steps = [{"mismatch/logprob_gap_mean": 0.3}] * 3
    (alarm,) = run(watch("mismatch", threshold=0.05, patience_steps=3), steps)
    assert "differ by 0.3 nats" in alarm.seen and "engines.dtype" in alarm.advice


def test_mismatch_is_quiet_at_a_16_bit_type_s_gap_and_without_a_measurement():
    small = [{"mismatch/logprob_gap_mean": 0.02}] * 30
    unknown = [{"mismatch/logprob_gap_mean": math.nan}, {"mismatch/logprob_gap_mean": None}, {}]
    assert run(watch("mismatch"), small) == []
    assert run(watch("mismatch", patience_steps=1), unknown) == []


def test_truncation_sounds_for_the_layer_that_runs_out_of_tokens():
    steps = [{"layer1/truncated_fraction": 0.1, "layer2/truncated_fraction": 0.75}] * 5
    (alarm,) = run(watch("truncation", threshold=0.5, patience_steps=5), steps)
    assert alarm.layer == 2 and "75.0% of layer 2's completions" in alarm.seen
    assert "layers.1.max_completion_tokens" in alarm.advice


def test_truncation_is_quiet_where_half_of_the_completions_end():
    assert run(watch("truncation"), [{"layer1/truncated_fraction": 0.5}] * 30) == []


# --- what all alarms share ---


def test_an_alarm_that_stays_on_is_repeated_only_so_often():
    watched = watch("mismatch", patience_steps=2, repeat_every_steps=4)
    alarms = run(watched, [{"mismatch/logprob_gap_mean": 1.0}] * 12)
    assert [alarm.step for alarm in alarms] == [1, 5, 9]
    assert [alarm.num_steps for alarm in alarms] == [2, 6, 10]


def test_an_alarm_that_comes_and_goes_is_not_given_more_often_than_one_that_stays():
    watched = watch("mismatch", patience_steps=1, repeat_every_steps=4)
    gaps = [1.0, 0.0] * 6
    alarms = run(watched, [{"mismatch/logprob_gap_mean": gap} for gap in gaps])
    assert [alarm.step for alarm in alarms] == [0, 4, 8]


def test_two_layers_sound_apart():
    steps = [{"layer1/truncated_fraction": 1.0, "layer2/truncated_fraction": 1.0}]
    alarms = run(watch("truncation", patience_steps=1), steps)
    assert [alarm.layer for alarm in alarms] == [1, 2]


def test_a_watch_that_replays_the_past_goes_on_as_if_it_had_been_there():
    steps = [{"mismatch/logprob_gap_mean": 1.0}] * 9
    settings = {"patience_steps": 4, "repeat_every_steps": 5}
    whole = [alarm for alarm in run(watch("mismatch", **settings), steps) if alarm.step >= 5]
    resumed = watch("mismatch", **settings)
    resumed.replay({"step": step, "wall_s": 1.0, **row} for step, row in enumerate(steps[:5]))
    later = [alarm for step in range(5, 9) for alarm in resumed.check(step, steps[step])]
    assert later == whole and [alarm.step for alarm in later] == [8]


def test_only_an_alarm_with_action_stop_stops_the_run():
    steps = [{"mismatch/logprob_gap_mean": 1.0}]
    warnings = run(watch("mismatch", patience_steps=1), steps)
    stop_if_asked(warnings)
    stops = run(watch("mismatch", patience_steps=1, action="stop"), steps)
    with pytest.raises(AlarmError) as raised:
        stop_if_asked([*warnings, *stops])
    assert stops[0].message in str(raised.value)
    assert "set it to warn" in str(raised.value) and "alarms.mismatch.action" in str(raised.value)
    assert isinstance(raised.value, MgrpoError) and raised.value.exit_code == 7
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def every_alarm() -> list[Alarm]:
    """One of each kind."""
    config = {name: {"patience_steps": 1} for name in OFF}
    config["first_turn_falls"] |= {"window_steps": 1}
    config["entropy_collapse"] |= {"start_steps": 1}
    config["gradient_spike"] |= {"window_steps": 1}
    bad = {
        **copying_step(1.0),
        **signal(1.0),
        "layer1/truncated_fraction": 1.0,
        "mismatch/logprob_gap_mean": 1.0,
        "learner/entropy": 0.0,
        "layer1/accuracy": 0.1,
        "layer2/accuracy": 0.9,
        "learner/grad_norm": 100.0,
    }
    good = {
        "layer1/accuracy": 0.9,
        "layer2/accuracy": 0.1,
        "learner/entropy": 1.0,
        "learner/grad_norm": 1.0,
    }
    return run(AlarmWatch(AlarmsConfig.model_validate(config)), [good, bad])


def test_every_config_key_that_an_alarm_names_exists():
    alarms = every_alarm()
    assert {alarm.name for alarm in alarms} == set(OFF)
    keys = set(all_keys(RunConfig))
    for alarm in alarms:
        named = re.findall(r"\b[a-z_]+(?:\.[a-z_0-9]+)+\b", alarm.advice)
        assert named, alarm.name
        for key in named:
            assert re.sub(r"\.\d+\.", ".N.", key) in keys, f"{alarm.name}: {key}"


def test_alarms_are_written_and_read_back(tmp_path):
    alarms = every_alarm()
    with MetricsLog(tmp_path) as log:
        assert read_alarms(tmp_path) == []
        for alarm in alarms:
            log.write_alarm(alarm.to_json())
    rows = read_alarms(tmp_path)
    assert rows == [alarm.to_json() for alarm in alarms]
    assert rows[0]["message"] == alarms[0].message and rows[0]["step"] == 1


def test_alarms_of_steps_that_a_resume_took_again_count_once(tmp_path):
    (alarm, *_) = every_alarm()
    row = alarm.to_json()
    with MetricsLog(tmp_path) as log:
        for step in (3, 8, 3, 5):
            log.write_alarm({**row, "step": step})
        log.write_alarm({**row, "step": 5, "layer": 7})
    assert [(r["step"], r["layer"]) for r in read_alarms(tmp_path)] == [(3, 2), (5, 2), (5, 7)]


def test_a_torn_last_alarm_is_removed_before_the_next(tmp_path):
    (alarm, *_) = every_alarm()
    with MetricsLog(tmp_path) as log:
        log.write_alarm(alarm.to_json())
    with (tmp_path / "alarms.jsonl").open("a") as file:
        file.write('{"step": 2, "na')
    with MetricsLog(tmp_path) as log:
        log.write_alarm({**alarm.to_json(), "step": 4})
    assert [row["step"] for row in read_alarms(tmp_path)] == [1, 4]


# --- a run that learned ---


def test_the_defaults_are_quiet_over_a_run_that_learned():
    assert run(AlarmWatch(AlarmsConfig()), recorded_steps()) == []


def test_the_defaults_stay_quiet_where_a_recorded_run_shows_each_step_four_times():
    """Longer rows of the worst steps there were: patience alone does not keep the peace."""
    steps = [step for step in recorded_steps() for _ in range(4)]
    assert run(AlarmWatch(AlarmsConfig()), steps) == []


def test_the_recorded_run_is_not_trivially_quiet():
    config = {
        "copying": {"threshold": 0.3, "patience_steps": 5},
        "first_turn_falls": {"threshold": 0.01, "patience_steps": 1},
        "no_signal": {"threshold": 0.5},
        "entropy_collapse": {"threshold": 0.07},
    }
    steps = [{**step} for step in recorded_steps()]
    for step in steps:
        step["layer2/advantage_abs_mean"] = None
    alarms = run(AlarmWatch(AlarmsConfig.model_validate(config)), steps)
    assert {alarm.name for alarm in alarms} == set(config)
