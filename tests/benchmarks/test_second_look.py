"""The study of second looks: its trials, its tuning and its tests, without training."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from transformers import AutoTokenizer

from actors.templates import PromptBuilder
from benchmarks.commands import CommandFailed
from benchmarks.second_look import design
from benchmarks.second_look.__main__ import known_trials, left, main
from benchmarks.second_look.analysis import Test as Question
from benchmarks.second_look.analysis import equal_token_tests, first_turn_tests, second_turn_tests
from benchmarks.second_look.design import ARMS, REFERENCE, TOKEN_REFERENCE, Trial, trials_at
from benchmarks.second_look.figure import differences_figure
from benchmarks.second_look.page import describe
from benchmarks.second_look.planned import planned
from benchmarks.second_look.rows import Results, Row
from benchmarks.second_look.scales import ONE_GPU, SMALL
from benchmarks.second_look.tuning import chosen_rate, tried_rates
from benchmarks.second_look.work import Work
from mgrpo.cli import main as mgrpo
from mgrpo.config.guidance import PhraseGuidance
from mgrpo.config.layers import CorrectLayer
from mgrpo.config.rewards import CheckTerm
from mgrpo.data.problems import load_problems
from mgrpo.evaluation.seeds import Difference
from mgrpo.models.catalog import SHIPPED
from mgrpo.plan.hardware import named_hardware
from mgrpo.plan.shape import find_shape
from mgrpo.sources import most_completions
from scripts.default_policy.right_work.problems import (
    NUM_CHECKED,
    for_stopping,
    held_out,
    pools_of,
)
from scripts.default_policy.right_work.work import right_work

PROGRAM = (sys.executable, str(Path(__file__).with_name("fake_mgrpo.py")))
FAMILIES, RATES = tuple(SMALL.families), SMALL.rates
SAYS_ARGUMENTS = "import os, sys; sys.exit(os.environ['MKL_CBWR'] + ' ' + str(sys.argv))"
TRIAL = trials_at("confirming", "simple_equations", "mgrpo", 2e-4)[3]


def row(trial: Trial, t1: float = 0.5, t2: float = 0.5, **changed: object) -> Row:
    given = {
        "phase": trial.phase,
        "family": trial.family,
        "arm": trial.arm,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "t1": t1,
        "t2": t2,
        "t2_independent": t1,
        "wrong_to_right": 0.1,
        "right_to_wrong": 0.2,
        "area": 0.4,
        "completions": 1.0,
        "generated_tokens": 2000.0,
        "prompt_tokens": 3000.0,
        "training_s": 4.0,
        "digest": trial.digest,
        "revision": "abc",
    }
    return Row(**{**given, **changed})  # type: ignore[arg-type]


def results_with(tmp_path: Path, rows: list[Row]) -> Results:
    found = Results(tmp_path / "rows.json")
    found.rows = rows
    return found


def tuned(family: str, arm: str, best: float) -> list[Row]:
    """Tuning rows, the nearer to the best rate the better."""
    rates = sorted({*RATES, best / 2, best, best * 2})
    return [
        row(trial, t1=0.5 - abs(rate - best))
        for rate in rates
        for trial in trials_at("tuning", family, arm, rate)
    ]


# --- trials ---


def budget(arm: str) -> int:
    """Completions a problem."""
    return 26 if arm == TOKEN_REFERENCE else 16


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_samples_its_completions_at_problems_of_its_family(arm, family):
    trial = trials_at("tuning", family, arm, 1e-4)[0]
    training, scoring = trial.configs()
    assert most_completions(training.method_view) == budget(arm) * training.prompts_per_step
    assert training.data.heldout is None and len(scoring.layers) == 2
    assert [one.name for one in training.data.train.tasks] == [family]
    assert (scoring.evaluation.decoding, scoring.evaluation.samples_per_problem) == ("sampled", 8)
    assert training.rewards.terms == scoring.rewards.terms
    (term,) = training.rewards.terms
    assert isinstance(term, CheckTerm) and term.check == "reasoning_gym"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arm_at_equal_tokens_has_those_of_four_attempts_with_three_corrections(family):
    """Each completion counts with its whole prompt; right work stands in for what is sampled."""
    config = trials_at("tuning", family, "mgrpo", 1e-4)[0].configs()[0]
    solve, correct = config.layers
    assert isinstance(correct, CorrectLayer) and isinstance(correct.guidance, PhraseGuidance)
    builder = PromptBuilder(AutoTokenizer.from_pretrained(SHIPPED["half_right"]))
    attempts, corrections = [], []
    for problem in pools_of(held_out())[family][:100]:
        prompt = builder.solve_prompt(solve, problem)
        attempt = [*builder.encode(right_work(problem)), *builder.end_of_turn_ids()]
        attempts.append(len(prompt) + len(attempt))
        for phrase in correct.guidance.phrases:
            asked = builder.correction_prompt(
                correct, problem, parent_prompt_ids=prompt, parent_ids=attempt, guidance=phrase
            )
            corrections.append(len(asked) + len(attempt))
    tokens = 4 * fmean(attempts) + 12 * fmean(corrections)
    assert tokens == pytest.approx(budget(TOKEN_REFERENCE) * fmean(attempts), rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_finds_no_fault_in_a_trial(family, capsys):
    trial = trials_at("tuning", family, "mgrpo", 1e-4)[0]
    commands = [(trial.recipe, trial.settings), (trial.scoring_recipe, trial.scoring_settings)]
    for recipe, settings in commands:
        assert mgrpo(["check", recipe, *settings, "data.train.size=64"]) == 0, (
            capsys.readouterr().out
        )


def test_no_problem_of_one_set_is_in_another():
    training, tuning = trials_at("tuning", "simple_equations", "mgrpo", 1e-4)[0].configs()
    confirming = TRIAL.configs()[1]
    seeds = {one.data.heldout.seed for one in (tuning, confirming)}
    assert seeds == {one.seed for one in training.data.train.exclude_questions_of}
    assert len(seeds) == 2 and (tuning.data.heldout.size, confirming.data.heldout.size) == (
        NUM_CHECKED,
        500,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_policy_has_trained_on_none_of_the_problems_that_score(family):
    """They are among those that its warm start leaves out."""
    for phase, left_out in (("confirming", held_out()), ("tuning", for_stopping(NUM_CHECKED))):
        (trial, *_) = trials_at(phase, family, "mgrpo", 1e-4)
        scored = load_problems(trial.configs()[1].data.heldout).problems
        known = {one.question for one in pools_of(left_out)[family]}
        assert {one.question for one in scored} <= known


def test_arms_of_a_seed_train_on_the_same_problems_in_the_same_order():
    orders = set()
    for arm in ARMS:
        config = trials_at("confirming", "simple_equations", arm, 1e-4)[0].configs()[0]
        orders.add((config.seed, config.steps, config.prompts_per_step, config.data.train.size))
    assert len(orders) == 1


# --- one GPU ---


OLMO_2_1B = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_hidden_layers": 16,
    "vocab_size": 100352,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("family", ONE_GPU.families)
def test_an_arm_on_one_gpu_is_the_small_one_with_that_machine_s_settings(arm, family):
    (trial, *_) = trials_at("confirming", family, arm, 1e-6)
    training, scoring = trial.configs()
    assert most_completions(training.method_view) == budget(arm) * training.prompts_per_step
    for config in (training, scoring):
        assert config.cluster.colocate is True and config.engines.num_shared_engines.max == 1
        assert [layer.max_completion_tokens for layer in config.layers] == [512] * len(
            config.layers
        )
        assert config.layers[0].system_prompt is None  # which asks for the box that checks read
    small = trials_at("confirming", "chain_sum", arm, 1e-4)[0].configs()[0]
    for one, other in zip(training.layers, small.layers, strict=True):
        changed = {"max_completion_tokens": 0, "system_prompt": None}
        assert one.model_copy(update=changed) == other.model_copy(update=changed)
    assert training.plugins == small.plugins and training.method == small.method


@pytest.fixture
def stand_in(tmp_path):
    """In place of the hub's model and rows: a small policy of that context, and those columns."""
    folder = shutil.copytree(SHIPPED["half_right"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    longer = {**config, "max_position_embeddings": OLMO_2_1B["max_position_embeddings"]}
    (folder / "config.json").write_text(json.dumps(longer), encoding="utf-8")
    rows = [
        {
            "problem": f"What is {number} + {number}?",
            "solution": f"It is \\boxed{{{2 * number}}}.",
            "answer": str(2 * number),
            "subject": "Algebra",
            "level": number % 5 + 1,
        }
        for number in range(100)
    ]
    (tmp_path / "math.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    here = ("cluster.device=cpu", "cluster.colocate=false", "model.dtype=float32")
    return [f"model.path={folder}", *here], f"{tmp_path}/math.jsonl"


@pytest.mark.parametrize(("family", "arm"), [("math", "mgrpo"), ("countdown", "igrpo")])
def test_the_check_finds_no_fault_in_a_trial_of_one_gpu(family, arm, stand_in, capsys):
    (trial, *_) = trials_at("confirming", family, arm, 1e-6)
    model, rows = stand_in
    size = "data.{}.size=64"
    of_rows = ("data.{}.path=" + rows, "data.{}.split=null")
    for recipe, settings, part in (
        (trial.recipe, trial.settings, "train"),
        (trial.scoring_recipe, [*trial.scoring_settings, "data.train.size=64"], "heldout"),
    ):
        data = [text.format(part) for text in (of_rows if family == "math" else (size,))]
        assert mgrpo(["check", recipe, *settings, *model, *data]) == 0, capsys.readouterr().out
    assert family != "math" or "60 problems from" in capsys.readouterr().out  # of levels 2 to 4


def test_a_seed_of_every_arm_fits_on_one_gpu_and_takes_at_most_eight_hours(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OLMO_2_1B), encoding="utf-8")
    found = planned(ONE_GPU, named_hardware("1xH100-80GB", 1), find_shape(str(tmp_path), None))
    assert len(found) == len(ARMS) * len(ONE_GPU.families)
    assert not [one.fault for one in found if one.fault]
    assert sum(one.hours for one in found) < 8


def test_one_gpu_tunes_nothing_and_goes_seed_by_seed(tmp_path, capsys):
    listed = known_trials(Results(tmp_path / "rows.json", ONE_GPU))
    first = listed[: len(ARMS) * len(ONE_GPU.families)]
    assert {one.phase for one in listed} == {"confirming"} and {one.seed for one in first} == {0}
    files = ["--results", str(tmp_path / "rows.json"), "--scale", "one_gpu"]
    plan = ["--plan", "1xH100-80GB", "--parameters", "1.5B"]
    assert main([*files, *plan], PROGRAM) == 0
    assert "hours for a seed of each arm and family" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*files, "--family", "chain_sum"], PROGRAM)


# --- rows ---


def test_a_row_of_recipes_that_changed_does_not_count(tmp_path):
    results = Results(tmp_path / "rows.json")
    results.add(row(TRIAL))
    results.add(row(TRIAL, t1=0.75))
    assert [one.t1 for one in Results(results.path).of([TRIAL])] == [0.75]
    results.add(row(TRIAL, digest="other"))
    assert not Results(results.path).rows


def test_two_commands_add_to_one_file(tmp_path):
    one, other = Results(tmp_path / "rows.json"), Results(tmp_path / "rows.json")
    first, second = trials_at("confirming", "chain_sum", "mgrpo", 2e-4)[:2]
    one.add(row(first))
    other.add(row(second))
    assert {found.trial for found in Results(one.path).rows} == {first, second}
    assert {found.trial for found in other.rows} == {first, second}
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]


def test_a_row_of_another_start_policy_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    known = TRIAL.digest
    monkeypatch.setitem(SHIPPED, "half_right", tmp_path)
    design.start_policy.cache_clear()
    assert TRIAL.digest != known
    design.start_policy.cache_clear()


def test_a_trial_is_trained_scored_and_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    found = Work(tmp_path / "runs", PROGRAM).do(TRIAL)
    assert found.trial == TRIAL and found.digest == TRIAL.digest
    assert (found.t1, found.t2, found.t2_independent) == (0.8, 0.9, 0.8)
    assert (found.completions, found.prompt_tokens) == (64 * 40, 64 * 40 * 20)
    assert (found.generated_tokens, found.training_s) == (80_000, 120)
    assert (found.wrong_to_right, found.right_to_wrong, found.revision) == (0.2, 0.1, "0123456789")
    assert found.area == pytest.approx(0.9)
    assert sorted(one.suffix for one in (tmp_path / "runs").iterdir()) == [".log", ".log"]
    assert (tmp_path / "calls").read_text().split() == ["train", TRIAL.name, "eval", TRIAL.name]


def test_a_family_can_be_given(tmp_path):
    trial = next(left(Results(tmp_path / "rows.json"), ["simple_equations"], set()))
    assert trial.family == "simple_equations"


def test_a_run_has_one_engine_and_sums_that_do_not_depend_on_memory(tmp_path):
    for config in TRIAL.configs():
        assert config.engines.num_shared_engines.max == config.learner.num_threads == 1
    with pytest.raises(CommandFailed, match=r"COMPATIBLE .*'engines.num_shared_engines=1'"):
        Work(tmp_path, (sys.executable, "-c", SAYS_ARGUMENTS)).do(TRIAL)


def test_a_trial_that_fails_is_named_and_leaves_no_row(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_FAILS", TRIAL.name)
    with pytest.raises(CommandFailed, match="out of luck"):
        Work(tmp_path / "runs", PROGRAM).do(TRIAL)


def test_the_command_lists_what_is_left_and_prints_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    files = ["--results", str(tmp_path / "rows.json"), "--runs", str(tmp_path / "runs")]
    assert main(["--list", *files], PROGRAM) == 0
    num_tuning = len(FAMILIES) * len(ARMS) * len(RATES) * 2
    assert (
        f"0 of {num_tuning} done; {len(FAMILIES) * len(ARMS) * 10} more" in capsys.readouterr().out
    )
    name = trials_at("tuning", "simple_equations", "idle", RATES[0])[0].name
    assert main(["--row", name, *files], PROGRAM) == 0
    assert json.loads(capsys.readouterr().out)["arm"] == "idle"
    assert main(["--row", "nothing", *files], PROGRAM) == 1
    assert main(["--minutes", "0", *files], PROGRAM) == 0 and not (tmp_path / "rows.json").exists()


# --- tuning ---


def test_tuning_goes_on_until_the_best_rate_is_inside(tmp_path):
    assert tried_rates(results_with(tmp_path, []), "simple_equations", "mgrpo") == sorted(RATES)
    inside = results_with(tmp_path, tuned("simple_equations", "mgrpo", RATES[1]))
    assert chosen_rate(inside, "simple_equations", "mgrpo") == RATES[1]
    outside = results_with(tmp_path, tuned("simple_equations", "mgrpo", 2 * RATES[-1]))
    assert tried_rates(outside, "simple_equations", "mgrpo")[-2:] == [2 * RATES[-1], 4 * RATES[-1]]
    assert chosen_rate(outside, "simple_equations", "mgrpo") == 2 * RATES[-1]
    left = [one for one in outside.rows if one.learning_rate <= 2 * RATES[-1]]
    assert chosen_rate(results_with(tmp_path, left), "simple_equations", "mgrpo") is None


def test_an_arm_confirms_once_its_rate_is_chosen(tmp_path):
    results = results_with(tmp_path, tuned("simple_equations", "mgrpo", RATES[1]))
    found = [one for one in known_trials(results) if one.phase == "confirming"]
    assert found == trials_at("confirming", "simple_equations", "mgrpo", RATES[1])


# --- tests ---


def confirmed_results(tmp_path: Path, gain: float) -> Results:
    """On equations alone: MGRPO's first turns lie above GRPO's by a gain that hardly varies."""
    rows = [
        *tuned("simple_equations", REFERENCE, RATES[1]),
        *tuned("simple_equations", "mgrpo", RATES[1]),
    ]
    for arm, more in ((REFERENCE, 0.0), ("mgrpo", gain)):
        for number, trial in enumerate(trials_at("confirming", "simple_equations", arm, RATES[1])):
            noise = 0.001 * (number % 3) if arm == "mgrpo" else 0.02 * number
            rows.append(
                row(trial, t1=0.4 + 0.02 * number + more + (arm == "mgrpo") * noise, t2=0.9)
            )
    return results_with(tmp_path, rows)


@pytest.mark.parametrize(
    ("gain", "decision"), [(0.05, "above"), (-0.05, "below"), (-0.001, "equivalent")]
)
def test_first_turns_are_paired_by_seed(tmp_path, gain, decision):
    (found,) = first_turn_tests(confirmed_results(tmp_path, gain))
    assert (found.family, found.arm, found.decision) == ("simple_equations", "mgrpo", decision)
    noise = sum(0.001 * (number % 3) for number in range(10)) / 10
    assert found.difference.mean == pytest.approx(gain + noise)


def test_arms_of_as_many_tokens_are_compared_with_the_larger_group(tmp_path):
    results = confirmed_results(tmp_path, 0.05)
    assert not equal_token_tests(results)  # it has no rows
    changed = [replace(one, arm=TOKEN_REFERENCE) for one in results.rows if one.arm == REFERENCE]
    more = results_with(tmp_path, [*results.rows, *changed])
    (found,) = equal_token_tests(more)
    assert (found.arm, found.decision) == ("mgrpo", "above")
    assert len(first_turn_tests(more)) == 1  # not against that reference


def test_second_turns_are_compared_with_another_attempt(tmp_path):
    found = second_turn_tests(confirmed_results(tmp_path, 0.05))
    assert {one.arm for one in found} == {REFERENCE, "mgrpo"}
    assert all(one.decision == "above" for one in found)


def test_the_figure_has_a_line_for_each_test_and_says_what_it_shows(tmp_path):
    svg = differences_figure(confirmed_results(tmp_path, 0.05))
    assert "MGRPO(4,3), all attempts are parents: +5.1 (above)" in svg
    assert svg.count("LineCollection") == 1  # one family has rows, of one arm beside the reference
    assert all(name in svg for name in (*FAMILIES, "ThinkTwice(8,8), alternating steps"))


def test_what_no_test_decides_is_said_to_be_open():
    difference = Difference(mean=0.03, half_width=0.04, p=0.1)
    one = Question(family="f", arm="a", difference=difference, p_holm=0.5, p_equivalent=0.6)
    assert one.decision == "not decided"


@pytest.mark.parametrize(("gain", "reached"), [(0.05, True), (-0.05, False)])
def test_the_page_says_first_whether_the_goal_is_reached(tmp_path, gain, reached):
    """Every arm at its rate; corrections of one variant gain on both families, or lose."""
    few = [one for one in confirmed_results(tmp_path, gain).rows if one.phase == "confirming"]
    own, other = ([one for one in few if one.arm == arm] for arm in ("mgrpo", REFERENCE))
    rows = [
        replace(one, arm=arm, family=family)
        for family in FAMILIES
        for arm in ARMS
        for one in (own if arm == "mgrpo" else other)
    ]
    rows += [one for family in FAMILIES for arm in ARMS for one in tuned(family, arm, RATES[1])]
    page = describe(results_with(tmp_path, rows))
    said, name = page.split("\n\n")[0], "MGRPO(4,3), all attempts are parents"
    assert said.startswith(f"**The goal is {'' if reached else 'not '}reached: variants of MGRPO ")
    assert (f"First attempts above: {name}." in said) == reached
    assert "Second turns above: GRPO(16); " in said  # of all: their second turns are 5 points up


def test_the_page_says_first_that_runs_are_missing(tmp_path):
    page = describe(confirmed_results(tmp_path, 0.05))
    assert page.startswith("**Not decided yet: 20 of 220 confirming runs are done.**")
    assert "| MGRPO(4,3), all attempts are parents | +5.1 |" in page
    assert f"**{RATES[1]:g}: " in page
