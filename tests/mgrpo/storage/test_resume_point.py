"""Which recipes a run goes on with, and what is said of their changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgrpo.config import RunConfig
from mgrpo.config.explain import all_keys
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.config.resume import ON_RESUME, changes_between, on_resume
from mgrpo.data.problems import load_problems
from mgrpo.errors import RunDirectoryError
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    begin_checkpoint,
    fingerprint,
    finish_checkpoint,
)
from mgrpo.storage.policies import BestRecord, EarlyEnd, early_end_of, write_best, write_early_end
from mgrpo.storage.run_directory import reopen_run, resume_point

STEPS = load_recipe("quickstart").steps
CONSTANT = ("learner.schedule=constant",)


def started(run_dir: Path, *overrides: str, num_done: int = 2) -> Path:
    """A run of the quickstart that has come so far; its checkpoint."""
    run_dir.mkdir(exist_ok=True)
    save_recipe(load_recipe("quickstart", overrides), run_dir / "config.yaml")
    folder = begin_checkpoint(run_dir, num_done)
    (folder / LEARNER_DIR).mkdir()
    (folder / LEARNER_DIR / "shard.pt").write_bytes(b"state")
    return finish_checkpoint(folder, {"num_steps": num_done})


def ended(run_dir: Path, *overrides: str, num_done: int = STEPS) -> Path:
    checkpoint = started(run_dir, *overrides, num_done=num_done)
    (run_dir / "policy").mkdir()
    (run_dir / "policy" / "config.json").write_text("{}")
    return checkpoint


def resumed(run_dir: Path, *overrides: str) -> tuple[Path | None, list[str]]:
    notes: list[str] = []
    return resume_point(run_dir, load_recipe("quickstart", overrides), note=notes.append), notes


def refusal(run_dir: Path, *overrides: str) -> str:
    with pytest.raises(RunDirectoryError) as refused:
        resumed(run_dir, *overrides)
    return str(refused.value)


def test_every_key_of_a_recipe_is_classified() -> None:
    keys = {key.replace(".N.", ".*.") for key in all_keys(RunConfig)}
    sections = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    forgotten = {key for key in keys - sections if on_resume(key) is None}
    assert not forgotten, "say in mgrpo/config/resume.py whether a resumed run may change them"
    assert set(ON_RESUME) <= keys, "mgrpo/config/resume.py names keys that are gone"


def test_without_a_run_or_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert resumed(tmp_path) == (None, [])
    save_recipe(load_recipe("quickstart"), tmp_path / "config.yaml")
    assert resumed(tmp_path) == (None, [])


HARMLESS = [
    ("rewards.deadline_s=20", "rewards.deadline_s was 10.0 and is now 20.0"),
    ("rewards.num_processes=3", "rewards.num_processes was 2 and is now 3"),
    ("rewards.max_failed_fraction=0.5", "rewards.max_failed_fraction was 0.2 and is now 0.5"),
    ("cluster.deadlines.generate_s=900", "cluster.deadlines.generate_s was 600.0 and is now 900.0"),
    ("output.trackers=[]", "output.trackers was "),
    ("checkpoints.keep=5", "checkpoints.keep was 2 and is now 5"),
    ("alarms.copying.threshold=null", "alarms.copying.threshold was 0.9 and is now null"),
    ("learner.microbatch_tokens=1000", "learner.microbatch_tokens was "),
    ("learner.num_ranks=4", "learner.num_ranks was 1 and is now 4"),
    ("learner.zero_stage=3", "learner.zero_stage was 0 and is now 3"),
    ("engines.gpu_memory_utilization=0.6", "engines.gpu_memory_utilization was 0.5 and is now 0.6"),
    ("engines.cpu_kv_cache_gib=2", "engines.cpu_kv_cache_gib was 1 and is now 2"),
    ("weights.probe_tolerance=0.01", "weights.probe_tolerance was null and is now 0.01"),
    ("evaluation.max_problems=7", "evaluation.max_problems was "),
    ("data.max_dropped_fraction=0.5", "data.max_dropped_fraction was 0.05 and is now 0.5"),
    (f"steps={STEPS + 2}", f"steps was {STEPS} and is now {STEPS + 2}"),
]
HARMFUL = [
    ("seed=11", "seed was 0 and is now 11"),
    ("model.path=smollm2", "model.path was default and is now smollm2"),
    ("model.revision=v2", "model.revision was null and is now v2"),
    ("learner.learning_rate=1e-5", "learner.learning_rate was "),
    ("layers.solve.group_size=3", "layers.0.group_size was "),
    ("sampling.temperature=0.7", "sampling.temperature was 1.0 and is now 0.7"),
    ("objective.loss.clip_high=0.3", "objective.loss.clip_high was "),
    ("rewards.terms=[{check: format}]", "rewards.terms"),
    ("plugins=[{use: grpo_lead}]", "plugins was [] and is now "),
    ("data.max_prompt_tokens=77", "data.max_prompt_tokens was "),
    ("data.train.seed=9", "data.train.seed was "),
    ("prompts_per_step=3", "prompts_per_step was "),
]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harmless=st.lists(st.sampled_from(HARMLESS), unique=True, max_size=5),
    harmful=st.lists(st.sampled_from(HARMFUL), unique=True, max_size=3),
)
def test_harmless_changes_are_said_and_harmful_ones_refused_by_name(
    tmp_path: Path, harmless: list[tuple[str, str]], harmful: list[tuple[str, str]]
) -> None:
    checkpoint = started(tmp_path, *CONSTANT)
    overrides = [*CONSTANT, *(override for override, _ in (*harmless, *harmful))]
    if harmful:
        text = refusal(tmp_path, *overrides)
        assert all(said in text for _, said in harmful)
        assert not any(said in text for _, said in harmless)
        assert "--run NAME" in text and "--overwrite" in text
        return
    found, notes = resumed(tmp_path, *overrides)
    assert found == checkpoint
    assert all(any(said in note for note in notes) for _, said in harmless)
    is_compared = any("not comparable" in note for note in notes)
    assert is_compared == any("evaluation." in override for override in overrides)
    assert len(notes) == len(harmless) + is_compared


values = st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2)
trees: st.SearchStrategy[Any] = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=6,
)


@settings(max_examples=40)
@given(before=trees, now=trees)
def test_settings_differ_where_and_only_where_their_values_do(before: Any, now: Any) -> None:
    one, other = (
        load_recipe("quickstart").model_copy(
            update={
                "learner": load_recipe("quickstart").learner.model_copy(
                    update={"deepspeed": {"k": tree}}
                )
            }
        )
        for tree in (before, now)
    )
    changes = changes_between(one, other)
    assert (changes == []) == (
        json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True)
    )
    assert all(change.path.startswith("learner.deepspeed.k") for change in changes)
    assert all(change.kind == "fixed" for change in changes)


def test_layers_that_are_more_or_fewer_are_refused(tmp_path: Path) -> None:
    started(tmp_path)
    tree = load_recipe("quickstart").model_dump(mode="json")
    shorter = RunConfig.model_validate({**tree, "layers": tree["layers"][:1]})
    with pytest.raises(RunDirectoryError, match="layers was "):
        resume_point(tmp_path, shorter)


def test_engines_of_a_layer_may_become_more(tmp_path: Path) -> None:
    checkpoint = started(tmp_path)
    found, notes = resumed(tmp_path, "layers.solve.num_engines={min: 1, max: 2}")
    assert found == checkpoint
    assert len(notes) == 1 and "layers.0.num_engines was 1 and is now {" in notes[0]


LOWER = "[{name: calmer, from_step: %d, changes: {objective: {learning_rate_factor: 0.1}}}]"


def test_a_phase_may_begin_where_the_run_goes_on(tmp_path: Path) -> None:
    checkpoint = started(tmp_path, num_done=5)
    for from_step in (5, 9):
        found, notes = resumed(tmp_path, f"phases={LOWER % from_step}")
        assert found == checkpoint
        assert len(notes) == 1 and "phases was [] and is now [{" in notes[0]
    text = refusal(tmp_path, f"phases={LOWER % 4}")
    assert "phases was [] and is now" in text and "from_step: 5" in text


def test_another_learning_rate_is_refused_with_the_phase_that_has_it(tmp_path: Path) -> None:
    checkpoint = started(tmp_path, "learner.learning_rate=1e-4", num_done=5)
    text = refusal(tmp_path, "learner.learning_rate=2e-5")
    (phases,) = re.findall(r"the learning rate as in '(.*)'\.", text)
    offered = ("learner.learning_rate=1e-4", f"phases={phases}")
    assert resumed(tmp_path, *offered)[0] == checkpoint
    objectives = [
        load_recipe("quickstart", offered).method_view.at_step(n).objective for n in (4, 5)
    ]
    assert [one.learning_rate_factor for one in objectives] == pytest.approx([1, 0.2])
    assert "as in '" not in refusal(tmp_path, "learner.learning_rate=1e-4", "seed=3")


def test_a_phase_that_is_over_stays_and_a_later_one_may_move(tmp_path: Path) -> None:
    checkpoint = started(tmp_path, f"phases={LOWER % 3}", num_done=5)
    assert "phases.0.from_step was 3 and is now 2" in refusal(tmp_path, f"phases={LOWER % 2}")
    assert "phases was " in refusal(tmp_path)
    save_recipe(load_recipe("quickstart", [f"phases={LOWER % 8}"]), tmp_path / "config.yaml")
    assert resumed(tmp_path, f"phases={LOWER % 6}")[0] == checkpoint
    assert resumed(tmp_path)[0] == checkpoint


def test_more_rounds_of_dynamic_sampling_are_no_other_recipe(tmp_path: Path) -> None:
    checkpoint = started(tmp_path, "source={type: dynamic, max_rounds: 3, when_exhausted: stop}")
    found, notes = resumed(tmp_path, "source={type: dynamic, max_rounds: 6, when_exhausted: train}")
    assert found == checkpoint
    assert len(notes) == 2
    assert "source.type was " in refusal(tmp_path)


# --- longer ---


def test_a_run_that_has_ended_is_resumed_only_to_be_longer(tmp_path: Path) -> None:
    checkpoint = ended(tmp_path, *CONSTANT)
    for overrides in ((), (f"steps={STEPS - 1}",), ("checkpoints.keep=3",)):
        text = refusal(tmp_path, *CONSTANT, *overrides)
        assert "already finished" in text
        assert f"steps={STEPS + 1}" in text
    found, notes = resumed(tmp_path, *CONSTANT, f"steps={STEPS + 2}")
    assert found == checkpoint
    assert notes == [f"changed since the checkpoint: steps was {STEPS} and is now {STEPS + 2}"]


def test_a_run_that_is_made_longer_keeps_its_first_policy(tmp_path: Path) -> None:
    ended(tmp_path)
    labels = {0: "before", STEPS: "after"}
    rows = [{"step": step, "label": label, "acc": [0.5]} for step, label in labels.items()]
    (tmp_path / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reopen_run(tmp_path)
    assert not (tmp_path / "policy").exists()
    assert (tmp_path / f"policy-step-{STEPS:06d}" / "config.json").exists()
    written = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").open()]
    assert [row["label"] for row in written] == ["before", "during"]
    reopen_run(tmp_path)  # one that had not ended stays as it is
    assert resumed(tmp_path)[0] is not None


def test_an_ended_run_without_a_checkpoint_says_how_to_train_its_policy_further(
    tmp_path: Path,
) -> None:
    save_recipe(load_recipe("quickstart"), tmp_path / "config.yaml")
    (tmp_path / "policy").mkdir()
    text = refusal(tmp_path, f"steps={STEPS + 2}")
    assert f"--run NAME --from {tmp_path}" in text


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_learning_rate_that_falls_over_the_run_is_said(tmp_path: Path, schedule: str) -> None:
    checkpoint = started(tmp_path, f"learner.schedule={schedule}")
    found, notes = resumed(tmp_path, f"learner.schedule={schedule}", f"steps={STEPS + 2}")
    assert found == checkpoint
    assert f"learner.schedule is {schedule}" in notes[1]
    assert f"of {STEPS} steps" in notes[1] and f"of {STEPS + 2};" in notes[1]
    assert resumed(tmp_path, f"learner.schedule={schedule}") == (checkpoint, [])


def test_a_run_may_become_shorter_but_not_than_what_is_done(tmp_path: Path) -> None:
    checkpoint = started(tmp_path, *CONSTANT, num_done=5)
    assert resumed(tmp_path, *CONSTANT, "steps=5")[0] == checkpoint
    assert "steps is 4, and 5 are done" in refusal(tmp_path, *CONSTANT, "steps=4")


def test_without_a_whole_checkpoint_it_says_so(tmp_path: Path) -> None:
    folder = started(tmp_path)
    (folder / "state.json").unlink()
    assert "can be resumed from" in refusal(tmp_path)


def test_a_data_file_with_other_content_is_refused_before_anything_starts(
    tree: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    from mgrpo.training.system import start_system  # takes seconds

    tree["model"]["path"] = str(tiny_model)
    file = Path(tree["data"]["train"]["path"])
    config = RunConfig.model_validate(tree)
    before = fingerprint(load_problems(config.data.train).problems)
    file.write_text(file.read_text().replace('"5"', '"6"'))
    start = start_system(
        config, logs_to=tmp_path, with_learner=True, note=print, same_problems=before
    )
    with pytest.raises(RunDirectoryError, match=r"sums\.jsonl\) has changed since"):
        start.__enter__()


def test_a_damaged_checkpoint_is_said_when_an_older_one_is_taken(tmp_path):
    older, newer = (started(tmp_path, num_done=number) for number in (10, 20))
    (newer / LEARNER_DIR / "shard.pt").write_bytes(b"stat3")
    found, (note,) = resumed(tmp_path)
    assert found == older
    assert "shard.pt was changed; resuming from step-000010 instead" in note


def test_the_best_checkpoint_is_said(tmp_path):
    write_best(started(tmp_path, num_done=10), BestRecord(10, "layer1/accuracy", "max", 0.5))
    newer = started(tmp_path, num_done=20)
    found, (note,) = resumed(tmp_path)
    assert found == newer and "step-000010 is kept as the best so far" in note


def test_a_run_that_ended_early_goes_on_with_another_patience_alone(tmp_path: Path) -> None:
    stopping = "early_stopping={metric: layer1/accuracy, patience: 2}"
    checkpoint = ended(tmp_path, stopping, num_done=20)
    write_early_end(tmp_path, EarlyEnd(20, "it has not improved"))
    said = refusal(tmp_path, stopping)
    assert f"ended early, after 20 of {STEPS} steps: it has not improved" in said
    assert resumed(tmp_path)[0] == checkpoint
    reopen_run(tmp_path)
    assert (tmp_path / "policy-step-000020").is_dir()
    assert early_end_of(tmp_path) is None
