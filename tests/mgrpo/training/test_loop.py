"""The real loop on light twins: what is asked of engines and learner, in which order, and kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.layers import REVIEW_SYSTEM_PROMPT
from mgrpo.errors import AlarmError, MgrpoError, RunInterrupted
from mgrpo.metrics.log import read_evaluations
from mgrpo.storage.checkpoints import (
    checkpoints,
    finish_checkpoint,
    newest_whole,
    read_state,
    sha256_of,
)
from mgrpo.types import Completion, Generation, Replayed, UpdateResult
from tests.mgrpo.training.light_run import PROBLEMS, LightRun, Script, says_its_number


def light(
    tree: dict[str, Any], folder: Path, *, says: Script = says_its_number, **changes: Any
) -> LightRun:
    """A light run of the small recipe, without copies of its last step."""
    given = {"steps": 3, **changes}
    given["checkpoints"] = {
        "every_steps": 0,
        "memory_copy_share": 0,
        **changes.get("checkpoints", {}),
    }
    return LightRun(RunConfig.model_validate({**tree, **given}), folder / "run", script=says)


def one_layer(tree: dict[str, Any]) -> dict[str, Any]:
    return {**tree, "layers": [{**tree["layers"][0], "group_size": 4}]}


class Recorder:
    """Notes the calls of engines and learner, in order."""

    def __init__(self, run: LightRun) -> None:
        self.calls: list[str] = []
        self.wrap(run.engines, "run", "sample")
        self.wrap(run.engines, "offload_engines", "offload")
        self.wrap(run.engines, "broadcast", "broadcast")
        self.wrap(run.learner, "update", "update")
        self.wrap(run.learner, "save_states", "save")

    def wrap(self, owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return original(*args, **kwargs)

        setattr(owner, method, noted)


# --- what is asked for ---


def test_a_step_samples_updates_and_broadcasts_in_this_order(tree, tmp_path):
    run = light(tree, tmp_path, steps=2)
    recorder = Recorder(run)
    run.train()
    assert recorder.calls == ["broadcast", *["sample", "offload", "update", "broadcast"] * 2]
    assert run.engines.versions == [0, 1, 2]


def test_engines_are_asked_with_the_recipes_numbers(tree, tmp_path):
    run = light(tree, tmp_path, steps=1, sampling={"temperature": 0.7})
    run.train()
    sizes = {(one["num_samples"], one["max_tokens"]) for one in run.engine.asked}
    assert sizes == {(4, 50), (2, 60)}
    assert {one["temperature"] for one in run.engine.asked} == {0.7}
    assert len(run.engine.asked) == 2 + 2 * 4  # two problems, and their four attempts each
    assert len(set(run.engine.seeds)) == len(run.engine.seeds)


def test_corrections_of_a_problem_go_before_attempts_at_later_ones(tree, tmp_path):
    run = light(tree, tmp_path, steps=2)
    run.train()
    by_problem = Counter(one["priority"] for one in run.engine.asked)
    assert sorted(by_problem.values()) == [5] * 4  # attempts at it and their corrections
    first, second = sorted(by_problem)[:2], sorted(by_problem)[2:]
    assert {one["priority"] for one in run.engine.asked[:10]} == set(first)
    assert {one["priority"] for one in run.engine.asked[10:]} == set(second)


def test_the_next_step_samples_from_the_new_policy_with_other_seeds(tree, tmp_path):
    run = light(tree, tmp_path, steps=2)
    run.train()
    versions = [{c.oldest_version for c in one.completions} for one in run.learner.updates]
    assert versions == [{0}, {1}]
    half = len(run.engine.seeds) // 2
    assert not set(run.engine.seeds[:half]) & set(run.engine.seeds[half:])


def test_problems_come_in_the_samplers_order_and_none_twice_before_all(tree, tmp_path):
    run = light(tree, tmp_path, steps=2)
    run.train()
    asked = [{c.problem_id for c in one.completions} for one in run.learner.updates]
    assert [len(one) for one in asked] == [2, 2]
    assert asked[0] | asked[1] == {one.problem_id for one in PROBLEMS}


def test_a_phase_changes_what_a_step_samples_with(tree, tmp_path):
    phase = {"name": "cold", "from_step": 1, "changes": {"sampling": {"temperature": 0.2}}}
    run = light(one_layer(tree), tmp_path, steps=2, phases=[phase])
    run.train()
    assert [one["temperature"] for one in run.engine.asked] == [1.0, 1.0, 0.2, 0.2]


# --- what is written ---


def test_each_step_leaves_its_metrics_and_rollouts(tree, tmp_path):
    run = light(tree, tmp_path, output={"rollouts_per_step": 1, "trackers": []})
    rows = run.train()
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["policy_version"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert 0 < row["seconds/rollout"] < row["seconds/step"]
        assert row["layer1/accuracy"] == 0.25 and "learner/loss" in row
        assert row["engines/in_process"] == 1
    lines = (run.run_dir / "rollouts" / "step-000002.jsonl").read_text().splitlines()
    kept = [Completion.from_json(json.loads(line)) for line in lines]
    assert {one.problem_id for one in kept} == {kept[0].problem_id}  # one problem,
    assert len(kept) == 4 + 4 * 2  # with its whole tree
    assert all(one.selected is not None for one in kept)
    assert "step 2 " in run.console.getvalue()
    assert (run.run_dir / "policy").is_dir()


def test_the_drafts_of_layers_with_speculation_are_measured(tree, tmp_path):
    solve, correct = tree["layers"]
    layers = [solve, {**correct, "speculation": {"max_draft_tokens": 2}}]
    run = light({**tree, "layers": layers}, tmp_path, steps=1)
    sampled = run.engine.generation

    def drafted(*args: Any) -> Generation:
        return replace(sampled(*args), num_drafted=4, num_accepted=1)

    run.engine.generation = drafted
    (row,) = run.train()
    num_completions = 2 * 4 * 2
    num_tokens = num_completions * row["layer2/completion_tokens_mean"]
    assert row["layer2/drafted_tokens"] == 4 * num_completions
    assert row["layer2/draft_acceptance"] == 0.25
    steps = num_tokens - num_completions
    assert row["layer2/tokens_per_decode_step"] == pytest.approx(num_tokens / steps)
    assert not {"layer1/drafted_tokens", "layer1/tokens_per_decode_step"} & set(row)


def test_heldout_problems_are_scored_before_during_and_after(tree, tmp_path):
    run = light(one_layer(tree), tmp_path, steps=4, evaluation={"every_steps": 2})
    run.heldout = PROBLEMS[:2]
    run.train()
    evaluations = read_evaluations(run.run_dir)
    # Step 4 is the last: the evaluation that is due there is the one after the run.
    assert [(one["step"], one["label"]) for one in evaluations] == [
        (0, "before"),
        (2, "during"),
        (4, "after"),
    ]


def test_evaluations_sample_at_their_own_temperature(tree, tmp_path):
    run = light(
        one_layer(tree),
        tmp_path,
        steps=1,
        sampling={"temperature": 0.9},
        evaluation={"decoding": "greedy"},
    )
    run.heldout = PROBLEMS[:1]
    run.train()
    assert [one["temperature"] for one in run.engine.asked] == [0.0, 0.9, 0.9, 0.0]


def test_an_alarm_that_stops_ends_the_run_once_its_step_is_written(tree, tmp_path):
    alarms = {"truncation": {"threshold": 0.5, "patience_steps": 1, "action": "stop"}}
    long = [{**layer, "max_completion_tokens": 1} for layer in tree["layers"]]
    run = light({**tree, "layers": long}, tmp_path, alarms=alarms)
    with pytest.raises(AlarmError, match="truncation"):
        run.train()
    assert len((run.run_dir / "metrics.jsonl").read_text().splitlines()) == 1
    assert len((run.run_dir / "alarms.jsonl").read_text().splitlines()) >= 1


# --- checkpoints ---


@pytest.mark.parametrize(
    ("every", "expected"),
    [(2, [2, 4, 5]), (3, [3, 5]), (5, [5]), (0, [])],
)
def test_a_checkpoint_is_written_after_every_so_many_steps_and_the_last(
    tree, tmp_path, every, expected
):
    run = light(one_layer(tree), tmp_path, steps=5, checkpoints={"every_steps": every, "keep": 9})
    run.train()
    assert run.checkpoint_names == [f"step-{number:06d}" for number in expected]
    states = [read_state(folder) for folder in checkpoints(run.run_dir)]
    assert [(one["num_steps"], one["policy_version"]) for one in states] == [
        (number, number) for number in expected
    ]


def test_only_the_newest_checkpoints_are_kept(tree, tmp_path):
    run = light(one_layer(tree), tmp_path, steps=4, checkpoints={"every_steps": 1, "keep": 2})
    run.train()
    assert run.checkpoint_names == ["step-000003", "step-000004"]


def test_a_resumed_run_asks_for_what_the_whole_one_asked_for(tree, tmp_path):
    settings = {"steps": 5, "checkpoints": {"every_steps": 2, "keep": 9}}
    whole = light(tree, tmp_path / "whole", **settings)
    whole.train()
    cut = light(tree, tmp_path / "cut", **settings)
    cut.run_dir = whole.run_dir
    cut.train(resume_from=whole.run_dir / "checkpoints" / "step-000002")
    per_step = len(whole.engine.seeds) // 5
    assert cut.engine.seeds == whole.engine.seeds[2 * per_step :]
    assert [one.step for one in cut.learner.updates] == [2, 3, 4]
    assert cut.learner.policy_version == 5


def sparing(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe that samples no more than it needs."""
    solve, correct = tree["layers"]
    stop = {"type": "agreement", "first": 2, "go_on_chance": 0.5}
    return {
        **tree,
        "layers": [{**solve, "over_sample": 2}, {**correct, "group_size": 3, "early_stop": stop}],
        "source": "dynamic",
    }


def test_what_is_not_sampled_is_the_same_after_a_resume(tree, tmp_path):
    """Groups whose rest is dropped or kept by chance, aborted completions, replaced problems: q2
    and q3 have no right attempt, and all corrections of q0 are right."""

    def says(prompt: str, index: int) -> str:
        is_correction = REVIEW_SYSTEM_PROMPT in prompt
        return "0" if is_correction and "q0" in prompt else str(index % 2)

    def run(folder: Path) -> LightRun:
        keys = {"checkpoints": {"every_steps": 2, "keep": 9}, "steps": 6}
        return light(sparing(tree), folder, says=says, **keys)

    whole = run(tmp_path / "whole")
    rows = whole.train()
    folder = whole.run_dir / "checkpoints" / "step-000004"
    again = run(tmp_path / "again")
    again.train(resume_from=folder)
    expected, found = [
        [(one.step, list(one.completions), list(one.parents)) for one in own]
        for own in (whole.learner.updates[4:], again.learner.updates)
    ]
    assert found == expected
    made = [one for update in whole.learner.updates for one in update.completions]
    assert {one.weight for one in made} == {1.0, 2.0, 0.0}
    assert {one.counts_as for one in made} == {1.0, 1.5}
    assert sum(row["layer2/saved_fraction"] or 0 for row in rows if "layer2/saved_fraction" in row)
    assert all(row["layer1/aborted_tokens_fraction"] > 0 for row in rows)
    assert max(row["dynamic_sampling/drawn"] for row in rows) > 2


def test_a_resumed_run_has_been_evaluated_before_it_began(tree, tmp_path):
    settings = {"steps": 2, "checkpoints": {"every_steps": 1}}
    whole = light(one_layer(tree), tmp_path, **settings)
    whole.heldout = PROBLEMS[:1]
    whole.train()
    cut = light(one_layer(tree), tmp_path, **settings)
    cut.heldout = PROBLEMS[:1]
    cut.train(resume_from=whole.run_dir / "checkpoints" / "step-000001")
    # An evaluation before, two steps of two problems, one after; then one step and one after.
    assert (len(whole.engine.asked), len(cut.engine.asked)) == (1 + 2 * 2 + 1, 2 + 1)


def test_evaluations_during_training_have_phrases_of_their_own(tree, tmp_path):
    settings = {"steps": 2, "evaluation": {"every_steps": 1}}
    run = light(tree, tmp_path, **settings)
    run.heldout = PROBLEMS[:1]
    run.train()
    rows = read_evaluations(run.run_dir)
    assert [(row["label"], row["guidance"], len(row["phrases"])) for row in rows] == [
        ("before", "all", 7),
        ("during", "first", 1),
        ("after", "all", 7),
    ]


def test_a_checkpoint_whose_learner_is_of_another_step_is_refused(tree, tmp_path):
    run = light(tree, tmp_path, steps=2, checkpoints={"every_steps": 1})
    run.train()
    folder = checkpoints(run.run_dir)[0]
    (folder / "learner" / "scripted.json").write_text("7")
    again = light(tree, tmp_path, steps=2)
    with pytest.raises(MgrpoError, match="policy version 7, its state at 1"):
        again.train(resume_from=folder)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checkpoints are hashed only once this is set."""
    may_hash = threading.Event()

    def waits(unfinished: Path, state: dict[str, Any]) -> Path:
        assert may_hash.wait(30)
        return finish_checkpoint(unfinished, state)

    monkeypatch.setattr("mgrpo.training.checkpoints.finish_checkpoint", waits)
    return may_hash


def test_steps_go_on_while_a_checkpoint_is_hashed(tree, tmp_path, hashing):
    run = light(one_layer(tree), tmp_path, steps=5, checkpoints={"every_steps": 2, "keep": 9})
    update = run.learner.update
    seen: list[tuple[int, list[str]]] = []

    def noted(completions: Any, parents: Any, step: int, *rest: Any, **keys: Any) -> Any:
        seen.append((step, run.checkpoint_names))
        if step == 3:
            hashing.set()
        return update(completions, parents, step, *rest, **keys)

    run.learner.update = noted  # type: ignore[method-assign]
    run.train()
    assert seen[:4] == [(0, []), (1, []), (2, []), (3, [])]
    assert seen[4] == (4, ["step-000002"]) or "step-000004" in seen[4][1]
    assert run.checkpoint_names == ["step-000002", "step-000004", "step-000005"]


def killed_while_hashing(tree: dict[str, Any], folder: Path) -> None:
    """A run whose process the kernel ends in the middle of its second checkpoint."""

    def dies(file: Path) -> str:
        if "step-000004" in str(file):
            os.kill(os.getpid(), signal.SIGKILL)
        return sha256_of(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgrpo.storage.checkpoints.sha256_of", dies)
        light(tree, folder, steps=5, checkpoints={"every_steps": 2, "keep": 1}).train()


def test_a_run_that_is_killed_while_a_checkpoint_is_hashed_has_the_one_before(tree, tmp_path):
    process = multiprocessing.get_context("spawn").Process(
        target=killed_while_hashing, args=(one_layer(tree), tmp_path)
    )
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    run = light(one_layer(tree), tmp_path, steps=5, checkpoints={"every_steps": 2, "keep": 1})
    assert run.checkpoint_names == ["step-000002"]
    assert newest_whole(run.run_dir) == (run.run_dir / "checkpoints" / "step-000002", [])
    run.train(resume_from=run.run_dir / "checkpoints" / "step-000002")
    assert run.checkpoint_names == ["step-000005"]


def test_a_signal_waits_for_the_checkpoint_that_is_being_hashed(tree, tmp_path, hashing):
    settings = {"every_steps": 2, "on_signal_s": 20, "keep": 9}
    run = light(one_layer(tree), tmp_path, steps=5, checkpoints=settings)
    sample = run.engines.run

    def interrupted(work: Any, **keys: Any) -> Any:
        if len(run.learner.updates) == 2:
            work.close()
            threading.Timer(0.2, hashing.set).start()
            run.signals.receive(15, None)
        return sample(work, **keys)

    run.engines.run = interrupted  # type: ignore[method-assign]
    recorder = Recorder(run)
    with pytest.raises(RunInterrupted):
        run.train()
    assert run.checkpoint_names == ["step-000002"]
    assert recorder.calls.count("save") == 1  # what was begun is the last whole step's


def test_a_signal_waits_no_longer_than_it_may(tree, tmp_path, hashing):
    settings = {"every_steps": 2, "on_signal_s": 0.2}
    run = light(one_layer(tree), tmp_path, steps=5, checkpoints=settings)
    sample = run.engines.run

    def interrupted(work: Any, **keys: Any) -> Any:
        if len(run.learner.updates) == 2:
            work.close()
            run.signals.receive(15, None)
        return sample(work, **keys)

    run.engines.run = interrupted  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        run.train()
    assert run.checkpoint_names == []
    assert "raise checkpoints.on_signal_s" in " ".join(run.console.getvalue().split())
    hashing.set()


def test_a_signal_during_a_step_waits_for_its_end_and_leaves_a_checkpoint(tree, tmp_path):
    run = light(tree, tmp_path, steps=5)
    update = run.learner.update

    def interrupted(completions: Any, parents: Any, step: int, *rest: Any, **keys: Any) -> Any:
        if step == 2:
            run.signals.receive(15, None)
        return update(completions, parents, step, *rest, **keys)

    run.learner.update = interrupted  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        run.train()
    assert run.checkpoint_names == ["step-000003"]
    assert len((run.run_dir / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_signal_while_sampling_leaves_the_last_whole_step(tree, tmp_path):
    run = light(tree, tmp_path, steps=5)
    sample = run.engines.run

    def interrupted(work: Any, **keys: Any) -> Any:
        if len(run.learner.updates) == 2:
            work.close()
            run.signals.receive(15, None)
        return sample(work, **keys)

    run.engines.run = interrupted  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        run.train()
    assert run.checkpoint_names == ["step-000002"]


def test_a_learner_that_is_ahead_of_the_last_whole_step_is_not_saved(tree, tmp_path):
    run = light(tree, tmp_path, steps=5)

    def fails(policy_version: int) -> Any:
        if policy_version == 2:
            raise RunInterrupted("SIGTERM", 143)  # as when holding it back took too long
        return broadcast(policy_version)

    broadcast = run.engines.broadcast
    run.engines.broadcast = fails  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        run.train()
    assert run.checkpoint_names == []
    assert not list((run.run_dir / "checkpoints").glob("*"))


# --- sources of methods, in the loop ---


def pairs_recipe(tree: dict[str, Any]) -> dict[str, Any]:
    phase = {
        "name": "pairs",
        "from_step": 2,
        "num_steps": 2,
        "every_steps": 4,
        "changes": {"source": {"train_on": "pairs"}},
    }
    return {
        **one_layer(tree),
        "plugins": [{"use": "dpo"}],
        "phases": [phase],
        "source": {
            "type": "preferences",
            "kinds": ["penalty"],
            "pairs_per_step": 3,
            "verifier": {"consistency": "off"},
        },
    }


def test_stored_pairs_are_no_rollouts_of_the_step_that_trains_on_them(tree, tmp_path):
    """They tell the sampler nothing, and no metric of the step counts them as sampled."""
    run = light(pairs_recipe(tree), tmp_path, steps=4, data={**tree["data"], "sampler": "robust"})
    seen: list[int] = []
    observe = "mgrpo.methods.robust_sampler.domain_sampler.DomainSampler.observe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observe, lambda self, completions: seen.append(len(completions)) or {})
        rows = run.train()
    assert seen == [8, 8]
    assert [row.get("pairs/trained") for row in rows] == [None, None, 3, 1]
    assert ["layer1/accuracy" in row for row in rows] == [True, True, False, False]
    assert len(run.engine.asked) == 2 * 2  # the steps on pairs sample nothing
    assert run.learner.num_measured == [8]


def test_pooled_errors_are_corrected_by_later_steps(tree, tmp_path):
    run = light(
        tree,
        tmp_path,
        steps=4,
        source={"type": "error_pool", "switch": "every_n_steps", "every_steps": 2},
    )
    rows = run.train()
    assert [row["error_pool/is_correction_step"] for row in rows] == [0, 1, 0, 1]
    assert [row["error_pool/size"] for row in rows] == [6, 4, 10, 8]
    corrected = run.learner.updates[1]
    assert {one.layer for one in corrected.completions} == {2}
    assert [one.completion_id for one in corrected.parents] == ["s1p0#0", "s1p1#0"]
    assert all(one.advantage is None and one.selected is None for one in corrected.parents)


def test_good_corrections_train_again_once_in_each_later_step(tree, tmp_path):
    layers = [{**layer, "group_size": 4} for layer in tree["layers"]]
    run = light(
        {**tree, "layers": layers},
        tmp_path,
        source={"type": "correction_buffer", "per_step": 3},
        objective={"update_order": "sequential"},
    )
    rows = run.train()
    assert [len(one.replayed) for one in run.learner.updates] == [0, 0, 3, 0, 3, 0]
    again: list[Replayed] = list(run.learner.updates[2].replayed)
    assert all(one.completion.layer == 2 and one.advantage > 0 for one in again)
    assert [row["correction_buffer/replayed"] for row in rows] == [0, 3, 3]
    assert rows[0]["correction_buffer/size"] == 2 * 4  # one of four is right, for each attempt


def test_a_learner_without_a_report_ends_the_run(tree, tmp_path):
    """`LearnerRanks` takes the first rank's report; others have none."""
    from mgrpo.training import learner_ranks

    reports: list[UpdateResult | None] = [None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_ranks, "wait_for", lambda calls, **_: reports)
        patch.setattr(learner_ranks, "share", lambda value: value)
        rank: Any = type("Rank", (), {"submit": lambda self, *args: args})()
        ranks = learner_ranks.LearnerRanks([rank, rank], update_s=1.0, shared_folder=None)
        with pytest.raises(MgrpoError, match="rank 0 did not report"):
            ranks.update([], [], 0, [], meanwhile=lambda: None)
