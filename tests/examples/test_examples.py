"""The examples, run as their READMEs say, each in a copy of its folder elsewhere."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from learner.columns import StepBatch
from mgrpo.cli import main, parse
from mgrpo.config.load import load_recipe
from mgrpo.errors import ModelError
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.models.catalog import resolve_model
from mgrpo.types import Completion, CompletionId, Problem, Reward
from tests.contracts.sources import ROOT

EXAMPLES = ROOT / "examples"
RECIPES = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for path in EXAMPLES.rglob("*.yaml")
    if "runs" not in path.parts
)
PAGES = sorted(page for page in EXAMPLES.rglob("README.md") if "runs" not in page.parts)
SMALL = [
    "prompts_per_step=4",
    "layers.solve.group_size=4",
    "evaluation.max_problems=8",
    "engines.shared=true",
    "output.report=false",
    "output.trackers=[]",
]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder; modules that were imported from it are forgotten afterwards."""
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield copy
    for name, module in list(sys.modules.items()):
        if str(copy) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()


def import_from(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_page_and_a_recipe_and_is_in_the_list() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "runs"}
    trains_a_shipped_recipe = {"notebook"}
    assert folders == {recipe.split("/")[0] for recipe in RECIPES} | trains_a_shipped_recipe
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert set(listed) == folders
    assert all((EXAMPLES / folder / "README.md").is_file() for folder in folders)


@pytest.mark.parametrize("recipe", RECIPES)
def test_check_finds_no_fault(
    recipe: str, examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = examples / recipe
    monkeypatch.chdir(file.parent)
    try:
        resolve_model(load_recipe(file.name).model.path)
    except ModelError as error:
        pytest.skip(str(error))
    assert main(["check", file.name]) == 0, capsys.readouterr().out
    assert "No fault found." in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_commands_of_a_page_are_commands_that_we_have(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    commands = [line.split(" # ")[0] for line in lines]
    if page.parent != EXAMPLES:
        assert commands
    monkeypatch.chdir(page.parent)
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "mgrpo"
        parse(arguments)  # exits where there is no such command or option
        named = [word for word in arguments if word.endswith((".yaml", ".jsonl"))]
        made_by_it = "before.jsonl"
        assert all(Path(word).is_file() for word in named if word != made_by_it), command


@pytest.mark.parametrize(
    ("text", "value", "status", "correct"),
    [
        ("\\boxed{50}", 1.0, "scored", True),
        ("\\boxed{45}", 0.25, "scored", False),  # off by 10 %, half of the tolerance
        ("\\boxed{-50}", 0.0, "scored", False),
        ("\\boxed{45} \\boxed{50}", 1.0, "scored", True),
        ("fifty", 0.0, "unparsable", False),
    ],
)
def test_near_answers_earn_a_part(text: str, value: float, status: str, correct: bool) -> None:
    rewards = import_from(EXAMPLES / "own_reward", "rewards")
    problem = Problem(problem_id="p", question="20 + 30", answer="50")
    reward = rewards.close(text, problem, tolerance=0.2)
    assert (reward.value, reward.status, reward.correct) == (pytest.approx(value), status, correct)


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        ("\\boxed{50}", 1.0, "This is right."),
        ("\\boxed{45}", 0.0, "45 is too low."),
        ("\\boxed{50} \\boxed{51}", 0.0, "51 is too high."),
        ("fifty", 0.0, "There is no number in a box."),
    ],
)
def test_feedback_says_the_direction_and_never_the_number(
    text: str, value: float, said: str
) -> None:
    rewards = import_from(EXAMPLES / "feedback", "rewards")
    reward = rewards.too_low_or_high(text, Problem(problem_id="p", question="", answer="50"))
    assert (reward.value, reward.feedback) == (value, said)


def test_written_steps_earn_up_to_one() -> None:
    shows_steps = import_from(EXAMPLES / "own_reward", "rewards").shows_steps
    problem = Problem(problem_id="p", question="20 + 30", answer="50")
    assert shows_steps("\\boxed{50} 1=1 2=2", problem) == 0
    assert shows_steps("20+30=50\n\\boxed{50}", problem) == pytest.approx(1 / 3)
    assert shows_steps("1=1 2=2 3=3 4=4 \\boxed{50}", problem) == 1


def completion(place: int, length: int, is_right: bool, status: Any = "scored") -> Completion:
    return Completion(
        id=CompletionId.named(f"q#{place}"),
        problem_id="q",
        domain="sums",
        layer=1,
        parent_id=None,
        group_key="q",
        prompt=[1],
        token_ids=[5] * length,
        rollout_logprobs=[-1.0] * length,
        finish_reason="stop",
        version_spans=((0, 0),),
        text="",
        prompt_text="",
        reward=Reward(value=float(is_right), correct=is_right, status=status),
    )


def shaped(rows: list[tuple[int, bool]], *, failed_length: int | None = None) -> list[float]:
    module = import_from(EXAMPLES / "own_method", "length_reward")
    completions = [completion(place, *row) for place, row in enumerate(rows)]
    if failed_length is not None:
        completions.append(completion(len(rows), failed_length, False, "timeout"))
    batch = StepBatch(completions=completions, parents={}, groups=["q"] * len(completions), step=0)
    part = module.LengthReward.__new__(module.LengthReward)
    part.settings = module.LengthRewardSettings(weight=0.2)
    values: list[float] = part.shape_rewards(batch, batch.rewards).tolist()
    return values


def test_the_programming_problems_are_those_that_their_script_makes(tmp_path: Path) -> None:
    folder = EXAMPLES / "programs"
    script = shutil.copy(folder / "make_problems.py", tmp_path)
    subprocess.run([sys.executable, script], check=True, timeout=60)
    for name in ("problems.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_each_programming_problem_s_answer_passes_its_tests_and_no_other_does() -> None:
    rows = [
        json.loads(line)
        for name in ("problems.jsonl", "heldout.jsonl")
        for line in (EXAMPLES / "programs" / name).read_text(encoding="utf-8").splitlines()
    ]
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        source = row["answer"].replace("```python\n", "").replace("```", "")
        names: dict[str, Any] = {}
        exec(source, names)
        for test in row["tests"]:
            assert names[test["function"]](*test["arguments"]) == test["output"]
        assert row["tests"][0]["function"] not in other["answer"]


def test_the_length_reward_is_that_of_the_pages_table() -> None:
    page = (
        (EXAMPLES / "own_method" / "README.md")
        .read_text(encoding="utf-8")
        .replace("\N{MINUS SIGN}", "-")
    )
    rows = re.findall(r"^\| (\d+) \| (right|wrong) \| .* \| [01] \| (\S+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    expected = [float(row[2]) for row in rows]
    assert shaped([(int(row[0]), row[1] == "right") for row in rows]) == pytest.approx(expected)


def test_groups_of_one_length_and_failed_checks_do_not_count_in_the_length_reward() -> None:
    assert shaped([(10, True), (10, False)]) == [1.0, 0.0]
    assert shaped([(20, True), (40, True)], failed_length=500) == pytest.approx([1.1, 0.9, 0.0])


@pytest.mark.parametrize(
    ("recipe", "num_trained"),
    [("grpo", 0), ("quickstart", 8), ("strict_fix", 6), ("../own_method/length_reward.yaml", 8)],
)
def test_recipes_train_as_many_of_the_recorded_completions_as_the_page_says(
    recipe: str,
    num_trained: int,
    examples: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(examples / "recorded_rollouts")
    is_chain_of_one = recipe not in ("quickstart", "strict_fix")
    if recipe.endswith("length_reward.yaml"):
        monkeypatch.syspath_prepend(str(examples / "own_method"))
    options = ["--layers", "1"] if is_chain_of_one else []
    assert main(["explain", "step-000001.jsonl", "--recipe", recipe, *options, "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)["completions"]
    assert len(explained) == (8 if is_chain_of_one else 24)
    trained = [one["completion_id"] for one in explained if one["has_gradient"] and one["selected"]]
    assert len(trained) == num_trained, trained


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mgrpo", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # `mgrpo check` runs them above; tests/end_to_end trains by a check like these
@pytest.mark.timeout(450)
def test_the_own_rewards_train(examples: Path) -> None:
    folder = examples / "own_reward"
    run(folder, "train", "own_reward.yaml", "steps=1", "data.heldout=null", *SMALL)
    run_dir = folder / "runs" / "own_reward"
    (row,) = read_metrics(run_dir)
    assert row["rewards/scored"] + row["rewards/unparsable"] == 1.0
    (rollouts,) = (run_dir / "rollouts").iterdir()
    recorded = [json.loads(line)["reward"] for line in rollouts.open()]
    assert {len(reward["parts"]) for reward in recorded} == {2}
    assert any(
        reward["value"] not in (0.0, 0.1, 1.0, 1.1) for reward in recorded
    )  # steps, near ones


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_own_data_trains(examples: Path) -> None:
    folder = examples / "own_data"
    run(folder, "train", "own_data.yaml", "steps=2", *SMALL)
    rows = read_metrics(folder / "runs" / "own_data")
    kinds = {key.split("/")[2] for row in rows for key in row if key.startswith("layer1/domain/")}
    assert kinds == {"two numbers", "three numbers", "plus and minus"}
    assert len(read_evaluations(folder / "runs" / "own_data")) == 2


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_own_method_trains(examples: Path) -> None:
    folder = examples / "own_method"
    run(folder, "train", "length_reward.yaml", "steps=1", "data.heldout=null", *SMALL)
    (rollouts,) = (folder / "runs" / "length_reward" / "rollouts").iterdir()
    assert rollouts.read_text()
    shown = run(folder, "explain", "runs/length_reward", "--json")
    assert any(one["shaped_reward"] != one["reward"] for one in json.loads(shown)["completions"])


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_model_is_evaluated(examples: Path) -> None:
    folder = examples / "recorded_rollouts"
    run(
        folder,
        "eval",
        "default",
        "--recipe",
        "evaluate.yaml",
        "--problems",
        "4",
        "--output",
        "a.json",
    )
    scored = json.loads((folder / "a.json").read_text())
    assert set(scored["pass_at"]) >= {"1", "8"}, scored
