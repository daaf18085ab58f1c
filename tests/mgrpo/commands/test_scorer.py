"""`mgrpo scorer train`, from recorded completions to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from mgrpo.commands.scorer import add_scorer, read_completions
from mgrpo.errors import DataError, RunDirectoryError
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.metrics.log import to_line
from mgrpo.types import Completion, CompletionId, Reward
from tests.contracts.test_light_imports import heavy_imports_of
from tests.random_policy import save_random_policy


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("model"))


def attempt(problem: int, number: int, is_right: bool) -> Completion:
    """Right completions are of one token again and again, wrong ones of another."""
    return Completion(
        id=CompletionId.named(f"s{problem}p0#{number}"),
        problem_id=f"sum/{problem}",
        domain="sum",
        layer=1,
        parent_id=None,
        group_key=f"s{problem}p0",
        prompt=[1, 10 + problem],
        token_ids=[70 if is_right else 90] * (1 + number) + [2],
        rollout_logprobs=[-1.0] * (2 + number),
        finish_reason="stop",
        version_spans=((0, 0),),
        text="",
        prompt_text="",
        reward=Reward(value=float(is_right), correct=is_right),
    )


def write_rollouts(path: Path, problems: range, *, all_right: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    completions = [attempt(p, n, all_right or n % 2 == 0) for p in problems for n in range(4)]
    path.write_text("".join(to_line(one.to_json()) for one in completions))
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for step in range(2):
        problems = range(5 * step, 5 * step + 5)
        write_rollouts(tmp_path / "run" / "rollouts" / f"step-{step:06d}.jsonl", problems)
    return tmp_path / "run"


def scorer(*words: str | Path) -> int:
    """`mgrpo scorer WORDS`."""
    parser = argparse.ArgumentParser(prog="mgrpo scorer")
    add_scorer(parser)
    args = parser.parse_args([str(word) for word in words])
    return args.run_command(args)


def test_a_scorer_is_trained_measured_and_saved(run_dir, model_dir, tmp_path, capsys):
    output = tmp_path / "scorers" / "sums"
    words = [
        "--epochs",
        "30",
        "--learning-rate",
        "0.01",
        "--holdout",
        "0.2",
        "--hidden-units",
        "32",
    ]
    code = scorer("train", "--rollouts", run_dir, "--model", model_dir, "--output", output, *words)
    assert code == 0
    lines = capsys.readouterr().out.replace("\u00a0", " ").splitlines()
    assert lines[0].endswith(
        "32 pairs of 8 problems to train on, 8 pairs of 2 problems held out, from 40 completions"
    )
    epochs = [f"epoch {number}" for number in range(1, 31)]
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["untrained", *epochs]
    assert "held out: pairs ordered 100.0 %" in lines[-2]
    assert lines[-1] == f"scorer saved to {output}"
    loaded = PrefixScorer.load(output)
    right, wrong = loaded.values([[1, 40, 70, 70, 2], [1, 40, 90, 90, 2]])
    assert right > wrong
    assert loaded.hidden_units == 32


def test_the_same_command_gives_the_same_scorer(run_dir, model_dir, tmp_path, capsys):
    for name in ("one", "same"):
        scorer(
            *("train", "--rollouts", run_dir / "rollouts", "--model", model_dir),
            *("--output", tmp_path / name, "--epochs", "1", "--kind", "reward_head"),
        )
    one, same = (tmp_path / name / "scorer.safetensors" for name in ("one", "same"))
    assert one.read_bytes() == same.read_bytes()


def test_completions_without_pairs_are_refused_and_nothing_is_written(model_dir, tmp_path):
    file = write_rollouts(tmp_path / "all-right.jsonl", range(3), all_right=True)
    with pytest.raises(DataError, match="12 right and 0 wrong first attempts at 3 problems"):
        scorer("train", "--rollouts", file, "--model", model_dir, "--output", tmp_path / "scorer")
    assert not (tmp_path / "scorer").exists()


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer" / "config.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="Choose another folder"):
        scorer("train", "--rollouts", "nowhere", "--model", "x", "--output", tmp_path / "scorer")


def test_runs_folders_and_files_are_read_each_file_once(run_dir):
    folder = run_dir / "rollouts"
    file = folder / "step-000001.jsonl"
    assert len(read_completions([str(run_dir)])) == 40
    assert len(read_completions([str(file)])) == 20
    both = read_completions([str(file), str(folder), str(run_dir)])
    assert [one.problem_id for one in both[::4]] == [f"sum/{n}" for n in (5, 6, 7, 8, 9, *range(5))]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no .*nowhere"):
        read_completions([str(tmp_path / "nowhere")])


def test_a_folder_without_completions_says_what_writes_them(tmp_path):
    with pytest.raises(DataError, match=r"output\.rollouts_per_step"):
        read_completions([str(tmp_path)])


@pytest.mark.parametrize("line", ['{"question": "What is 3 + 4?"}', "[1, 2]"])
def test_a_file_of_something_else_is_refused(tmp_path, line):
    file = tmp_path / "problems.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match="does not hold recorded completions"):
        read_completions([str(file)])


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--epochs", "0", "'0' is not a whole number above 0"),
        ("--epochs", "1.5", "'1.5' is not a whole number above 0"),
        ("--learning-rate", "nan", "'nan' is not a number above 0"),
        ("--learning-rate", "inf", "'inf' is not a number above 0"),
        ("--holdout", "1", "'1' is not a number 0 or more and below 1"),
        ("--kind", "forest", "invalid choice: 'forest'"),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_the_parser(option, value, complaint, capsys):
    with pytest.raises(SystemExit):
        scorer("train", "--rollouts", "r", "--model", "m", "--output", "o", option, value)
    assert complaint in capsys.readouterr().err


def test_the_command_line_needs_nothing_heavy_to_know_the_command():
    code = (
        "import argparse; from mgrpo.commands.scorer import add_scorer; "
        "p = argparse.ArgumentParser(); add_scorer(p); p.parse_args(['train', '--help'])"
    )
    assert heavy_imports_of(code) == []
