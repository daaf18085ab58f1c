"""Runs are grouped by recipe and compared over seeds or over problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from mgrpo.cli import main
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.evaluation.answers import answers_file
from mgrpo.evaluation.comparison import MCNEMAR
from mgrpo.evaluation.run_results import (
    PAIRED_SEEDS,
    UNPAIRED_SEEDS,
    contrast_of,
    grouped_by_recipe,
    read_run,
    settings_that_differ,
)
from mgrpo.evaluation.seeds import paired_t
from mgrpo.evaluation.statistics import exact_mcnemar

T1, T2 = "heldout/layer1/accuracy", "heldout/layer2/accuracy"


def make(folder: Path, *overrides: str, solved: Sequence[int] = (1, 0), num_steps: int = 2) -> Path:
    """A finished run that solves these problems at both turns, and what it wrote."""
    folder.mkdir(parents=True)
    name = f"name={folder.name}"
    save_recipe(load_recipe("quickstart", [name, *overrides]), folder / "config.yaml")
    rows: list[dict[str, Any]] = [
        {"step": step, "layer1/accuracy": 0.5} for step in range(num_steps)
    ]
    share = float(np.mean(solved))
    plain = {"decoding": "greedy", "num_problems": len(solved), "phrases": []}
    evaluations = [
        {"step": 0, "label": "before", "acc": [0.1, 0.1], **plain},
        {"step": 1, "label": "during", "acc": [min(1.0, share + 0.1), share], **plain},
        {"step": num_steps, "label": "after", "acc": [share, share], **plain},
    ]
    answers = [
        {"problem_id": f"p{place}", "occurrence": 0, "acc": [float(one)] * 2}
        for place, one in enumerate(solved)
    ]
    (folder / "policy").mkdir()
    answers_file(folder, num_steps).parent.mkdir()
    for file, lines in {
        folder / "metrics.jsonl": rows,
        folder / "evaluation.jsonl": evaluations,
        answers_file(folder, num_steps): answers,
    }.items():
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def groups_of(*folders: Path):
    return grouped_by_recipe([read_run(folder) for folder in folders])


def first_turn(*folders: Path):
    """The second recipe's first attempts against the first one's."""
    first, second = groups_of(*folders)
    return contrast_of(first, second, T1)


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path):
    runs = [
        make(tmp_path / "wide-seed-0", "seed=0"),
        make(tmp_path / "slow", "learner.learning_rate=1e-5"),
        make(tmp_path / "wide-seed-1", "seed=1", "checkpoints.every_steps=1"),
    ]
    wide, slow = groups_of(*runs)
    assert (wide.name, slow.name) == ("wide", "slow")
    assert [run.config.seed for run in wide.runs] == [0, 1]
    assert settings_that_differ([wide, slow]) == {"learner.learning_rate": [0.00025, 1e-5]}


def test_a_runs_values_are_those_of_its_newest_and_best_evaluation(tmp_path):
    run = read_run(make(tmp_path / "wide", solved=[1, 1, 0, 0]))
    assert (run.before(1), run.value(T1), run.value("layer1/accuracy")) == (0.1, 0.5, 0.5)
    assert (run.best(1).value, run.best(1).num_steps) == (0.6, 1)
    assert run.value("no/such") is None and run.state == "finished"


def test_common_seeds_are_paired(tmp_path):
    first = {0: [1, 0, 0, 0], 1: [1, 1, 0, 0], 2: [1, 1, 1, 0]}
    second = {0: [1, 1, 0, 0], 1: [1, 1, 1, 0], 2: [1, 1, 1, 0]}
    folders = [
        make(tmp_path / f"{name}-{seed}", f"seed={seed}", *changes, solved=solved)
        for name, changes, runs in (
            ("a", [], first),
            ("b", ["learner.learning_rate=1e-5"], second),
        )
        for seed, solved in runs.items()
    ]
    found = first_turn(*folders)
    expected = ttest_rel([0.5, 0.75, 0.75], [0.25, 0.5, 0.75])
    assert (found.test, found.pairs, found.level) == (PAIRED_SEEDS, 3, "seeds")
    assert found.difference == pytest.approx(0.5 / 3)
    assert found.p_value == pytest.approx(float(expected.pvalue))
    assert found.interval[0] < found.difference < found.interval[1]


def test_other_seeds_are_compared_by_welch(tmp_path):
    folders = [
        make(tmp_path / "a-0", "seed=0", solved=[1, 0]),
        make(tmp_path / "a-1", "seed=1", solved=[1, 1]),
        make(tmp_path / "b-2", "seed=2", "learner.learning_rate=1e-5", solved=[0, 0]),
        make(tmp_path / "b-3", "seed=3", "learner.learning_rate=1e-5", solved=[1, 0]),
    ]
    found = first_turn(*folders)
    assert found.test == UNPAIRED_SEEDS and found.difference == pytest.approx(-0.5)


def test_two_runs_are_compared_over_their_problems(tmp_path):
    one = make(tmp_path / "a", solved=[1, 1, 0, 0, 0, 0, 0, 0])
    other = make(tmp_path / "b", "learner.learning_rate=1e-5", solved=[0, 1, 1, 1, 1, 1, 1, 0])
    found = first_turn(one, other)
    assert (found.test, found.pairs, found.level) == (MCNEMAR, 8, "problems")
    assert found.difference == pytest.approx(0.5)
    assert found.p_value == pytest.approx(exact_mcnemar(5, 1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["data.heldout.seed=5"], "other held-out problems"),
        (["evaluation.guidance=first"], "evaluated with other settings"),
    ],
)
def test_runs_that_were_asked_otherwise_are_not_tested(tmp_path, changes, why):
    found = first_turn(make(tmp_path / "a"), make(tmp_path / "b", *changes))
    assert (found.test, found.p_value) == (why, None)


def test_runs_without_recorded_answers_are_sent_to_eval(tmp_path):
    one, other = make(tmp_path / "a"), make(tmp_path / "b", "learner.learning_rate=1e-5")
    answers_file(other, 2).unlink()
    assert "mgrpo eval A --against B" in first_turn(one, other).test


def test_equal_differences_leave_no_test():
    assert paired_t([0.1, 0.2], [0.2, 0.3]) is None
    assert paired_t([0.1], [0.2]) is None


def test_the_command_prints_tables_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs" / "a", solved=[1, 0, 0, 0])
    make(tmp_path / "runs" / "b", "learner.learning_rate=1e-5", solved=[1, 1, 1, 0])
    assert main(["compare", "a", "runs/b"]) == 0
    shown = capsys.readouterr().out
    for text in ("Against A: a", "exact McNemar", "learner.learning_rate", "0.00025"):
        assert text in shown
    assert (
        main(["compare", str(tmp_path / "runs" / "*"), "--json", "--metric", "layer1/accuracy"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    assert found["against_first"][1]["metric"] == T2
    assert found["runs"][0]["values"]["layer1/accuracy"] == 0.5
