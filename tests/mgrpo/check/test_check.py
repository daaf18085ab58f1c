from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from actors.templates import PromptBuilder
from cluster.allocations import placement_recipe
from mgrpo.check import CheckReport, check_recipe
from mgrpo.check.prompts import SAMPLE_ATTEMPT, token_lines
from mgrpo.config import RunConfig
from mgrpo.data.lengths import PromptLengths, measure_prompts
from mgrpo.errors import RewardError
from mgrpo.plan.arithmetic import batch_lines, gpus_wanted, memory_lines
from mgrpo.plan.recipe import plan_recipe
from mgrpo.types import Problem
from tests.mgrpo.models.hub_cache import NEW, OLD, contents, publish


def checked(tree: dict[str, Any]) -> CheckReport:
    return check_recipe(RunConfig.model_validate(tree))


def details(report: CheckReport, name: str) -> str:
    return "\n".join(line.detail for line in report.lines if line.name == name)


def failed_names(report: CheckReport) -> list[str]:
    return [line.name for line in report.failures]


@pytest.fixture
def sound(tree: dict[str, Any], tiny_model: Path) -> dict[str, Any]:
    """A recipe in which nothing is wrong."""
    tree["model"]["path"] = str(tiny_model)
    tree["cluster"] = {"device": "cpu"}
    return tree


def test_a_sound_recipe_passes_and_every_part_is_reported(sound):
    report = checked(sound)
    assert report.failures == []
    assert report.exit_code == 0
    names = {line.name for line in report.lines}
    assert names >= {
        "recipe",
        "layer solve",
        "layer correct",
        "data.train",
        "steps",
        "rewards",
        "model",
        "context",
        "tokens",
        "CPUs",
        "memory",
    }
    assert "'What is 1 + 4?' -> '5'" in details(report, "data.train")


def test_the_arithmetic_of_a_step_is_written_out(sound):
    sound["layers"][0]["num_engines"] = 3
    first, second = batch_lines(plan_recipe(RunConfig.model_validate(sound)))
    assert first.detail == (
        "2 prompts x 4 = 8 completions a step, 3 per engine on 3 engines, at most 400 tokens"
    )
    assert second.detail == (
        "up to 8 prompts x 2 = 16 completions a step, 16 per engine on 1 engine, at most 960 tokens"
    )


def test_the_arithmetic_follows_the_number_of_parents(sound):
    sound["layers"][1].update(parents="best", group_size=5)
    _, second = batch_lines(plan_recipe(RunConfig.model_validate(sound)))
    assert second.detail.startswith("up to 2 prompts x 5 = 10 completions")


def test_gpus_are_engines_times_their_gpus_plus_ranks(sound):
    sound["layers"][0]["num_engines"] = 2
    sound["engines"] = {"tensor_parallel_size": 2}
    sound["learner"] = {"num_ranks": 3}
    assert gpus_wanted(placement_recipe(RunConfig.model_validate(sound))) == 9  # (2 + 1) x 2 + 3
    sound["engines"]["shared"] = True
    assert gpus_wanted(placement_recipe(RunConfig.model_validate(sound))) == 5


def test_memory_counts_weights_optimizer_caches_and_reference(sound):
    gib = 2**30
    sound["engines"] = {"shared": True}
    sound["model"]["dtype"] = "float32"
    config = RunConfig.model_validate(sound)
    (line,) = memory_lines(plan_recipe(config), gib)  # engine 1 + 2 x 4 + 1, rank 1 + 16
    assert line.detail.startswith("about 27.0 GiB: 1 x 10.0 for engines, 1 x 17.0")
    sound["objective"] = {"kl": {"weight": 0.1}}
    (line,) = memory_lines(plan_recipe(RunConfig.model_validate(sound)), gib)
    assert line.detail.startswith("about 31.0 GiB")


def test_more_prompts_than_problems_fail_with_the_nearest_value(sound):
    sound["prompts_per_step"] = 4
    report = checked(sound)
    assert failed_names(report) == ["steps"]
    assert "Nearest valid value: 3" in details(report, "steps")


def test_held_out_questions_must_not_be_trained_on(sound):
    sound["data"]["heldout"] = sound["data"]["train"]
    report = checked(sound)
    assert failed_names(report) == ["held-out"]
    assert "3 of 3 questions" in details(report, "held-out")


def test_unusable_data_does_not_hide_what_else_is_wrong(sound, tmp_path: Path):
    sound["data"]["train"]["path"] = str(tmp_path / "none.jsonl")
    sound["model"]["path"] = str(tmp_path / "nomodel")
    assert failed_names(checked(sound)) == ["data.train", "model"]


def test_dropped_rows_are_a_warning_until_they_are_too_many(sound):
    with Path(sound["data"]["train"]["path"]).open("a") as file:
        file.write("{broken\n")
    sound["data"]["max_dropped_fraction"] = 0.5
    report = checked(sound)
    assert report.failures == []
    assert "1 not JSON (line 4)" in details(report, "data.train")
    sound["data"]["max_dropped_fraction"] = 0.0
    assert failed_names(checked(sound)) == ["data.train"]


def add_rows(sound, *questions: object) -> None:
    with Path(sound["data"]["train"]["path"]).open("a") as file:
        for question in questions:
            file.write(json.dumps({"question": question, "answer": "1"}) + "\n")


def test_an_overlong_row_is_left_out_as_the_run_does_it(sound):
    add_rows(sound, "How much? " * 500)
    sound["data"]["max_dropped_fraction"] = 0.3
    report = checked(sound)
    assert report.failures == []
    assert "left out: 1 longer than data.max_prompt_tokens (sums/4: " in details(
        report, "data.train"
    )
    assert "the model's context holds 1,200" in details(report, "context")


def test_too_many_overlong_rows_fail_as_the_run_would(sound):
    add_rows(sound, "How much? " * 40)
    report = checked(sound)
    assert failed_names(report) == ["data.train"]
    assert "1 of 4 rows cannot be used" in details(report, "data.train")
    assert details(report, "context")  # of what is left


def test_when_every_row_is_too_long_the_other_parts_are_still_looked_at(sound):
    sound["data"]["max_prompt_tokens"] = 5
    report = checked(sound)
    assert failed_names(report) == ["data.train"]
    assert details(report, "model") and details(report, "memory")


def test_a_row_of_millions_of_tokens_is_not_tokenised(sound, monkeypatch):
    add_rows(sound, "a b " * 4_000_000)
    sound["data"]["max_dropped_fraction"] = 0.3
    longest = []
    encode = PromptBuilder.encode

    def measured(builder, text):
        longest.append(len(text))
        return encode(builder, text)

    monkeypatch.setattr(PromptBuilder, "encode", measured)
    report = checked(sound)
    assert report.failures == []
    assert "sums/4: 15,999,999 characters" in details(report, "data.train")
    assert max(longest) < 10_000


def test_what_the_steps_want_is_counted_without_overlong_rows(sound):
    add_rows(sound, *["How much? " * 500] * 2)
    sound["prompts_per_step"] = 4
    sound["data"]["max_dropped_fraction"] = 0.5
    report = checked(sound)
    assert failed_names(report) == ["steps"]
    assert "only 3 problems" in details(report, "steps")


def test_a_row_s_turns_that_the_template_refuses_cost_the_row(sound, tiny_model: Path, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    template = (folder / "chat_template.jinja").read_text()
    no_answers = "{% if messages[:-1] | selectattr('role', 'eq', 'assistant') | list %}"
    (folder / "chat_template.jinja").write_text(
        f"{no_answers}{{{{ raise_exception('no examples') }}}}{{% endif %}}{template}"
    )
    sound["model"]["path"] = str(folder)
    sound["layers"] = sound["layers"][:1]
    sound["data"]["max_dropped_fraction"] = 0.5
    turns = [("user", "1?"), ("assistant", "1"), ("user", "2?")]
    add_rows(sound, [{"role": role, "content": content} for role, content in turns])
    report = checked(sound)
    assert "1 with turns that the chat template cannot render" in details(report, "data.train")


def test_a_check_that_compares_needs_answers(sound, tmp_path: Path):
    file = tmp_path / "open.jsonl"
    rows = [{"question": f"Write {n} words.", "kind": "poem"} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sound["data"]["train"] = {"path": str(file), "needs_answer": False, "metadata_fields": "all"}
    report = checked(sound)
    assert failed_names(report) == ["rewards"]
    assert "math_answer compares" in details(report, "rewards")
    assert "3 of 3 problems have none (open/1)" in details(report, "rewards")
    (tmp_path / "own.py").write_text("def words(completion, problem):\n    return 0.5\n")
    sound["rewards"] = {"terms": [{"check": f"{tmp_path}/own.py:words"}]}
    report = checked(sound)
    assert report.failures == []
    assert "no reference answer to try it with" in details(report, "rewards")
    assert "-> no answer" in details(report, "data.train")


def test_several_sources_are_counted_by_their_shares(sound, tmp_path: Path):
    own = sound["data"]["train"]
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "How much is 7?", "answer": "7"}\n')
    sound["data"]["train"] = [{**own, "weight": 3}, {"path": str(other), "weight": 1}]
    sound["steps"], sound["prompts_per_step"] = 6, 4
    report = checked(sound)
    assert report.failures == []
    assert details(report, "sources") == "sums 75%: 6 epochs, other 25%: 6 epochs"
    sound["data"]["train"][1]["weight"] = 3
    report = checked(sound)
    assert failed_names(report) == ["sources"]
    assert "other has only 1 problem, and a step draws 2 of it" in details(report, "sources")


def test_turns_before_a_question_are_shown(sound):
    turns = [("system", "Add."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "2 + 2?")]
    Path(sound["data"]["train"]["path"]).write_text("")
    chat = [{"role": role, "content": content} for role, content in turns]
    add_rows(sound, chat, "3 + 3?")
    report = checked(sound)
    assert report.failures == []
    assert "turns before it: system, user, assistant" in details(report, "data.train")


def test_text_that_the_tokenizer_refuses_costs_its_row(sound, monkeypatch):
    add_rows(sound, "odd", "half an emoji \ud83d")
    sound["data"]["max_dropped_fraction"] = 0.5
    encode = PromptBuilder.encode

    def refusing(builder, text):
        if "odd" in text:
            raise TypeError("TextEncodeInput must be Union[...]")
        return encode(builder, text)

    monkeypatch.setattr(PromptBuilder, "encode", refusing)
    report = checked(sound)
    assert report.failures == []
    assert "1 refused by the tokenizer (sums/4: TypeError" in details(report, "data.train")
    assert "lone surrogate) (line 5)" in details(report, "data.train")


@pytest.mark.parametrize(
    "broken",
    [
        "mgrpo.check.batch_lines",
        "mgrpo.check.plugin_lines",
        "mgrpo.check.source_lines",
        "mgrpo.check.rewards.reward_lines",
        "mgrpo.check.model.look_at_model",
        "mgrpo.check.size_lines",
        "mgrpo.check.resource_lines",
    ],
)
def test_a_part_that_breaks_does_not_take_the_other_lines_with_it(sound, monkeypatch, broken: str):
    def breaks(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a library's own trouble")

    monkeypatch.setattr(broken, breaks)
    report = checked(sound)
    (failure,) = report.failures
    assert "RuntimeError: a library's own trouble" in failure.detail
    assert report.exit_code == 2
    names = {"recipe", "layer solve", "data.train", "rewards", "model", "steps", "memory"}
    assert len(names - {line.name for line in report.lines}) <= 1


def test_a_context_that_is_too_short_fails_with_the_numbers(sound):
    sound["engines"] = {"max_model_len": 200}
    report = checked(sound)
    assert failed_names(report) == ["context"]
    assert "engines.max_model_len is 200" in details(report, "context")
    assert "layers.1.max_completion_tokens" in details(report, "context")


def test_engines_with_more_context_than_the_model_has_are_refused(sound):
    sound["engines"] = {"max_model_len": 2000}
    report = checked(sound)
    assert failed_names(report) == ["context"]
    assert "Nearest valid value: 1200" in details(report, "context")


def test_the_models_own_context_bounds_it_too(sound):
    sound["layers"][0]["max_completion_tokens"] = 1000
    report = checked(sound)
    assert failed_names(report) == ["context"]
    assert "the model's context is 1,200" in details(report, "context")


def test_measured_lengths_bound_every_prompt_that_is_built(sound, tiny_model: Path):
    builder = PromptBuilder(AutoTokenizer.from_pretrained(tiny_model))
    sound["layers"][1]["layout"] = {"max_quote_tokens": 20}
    config = RunConfig.model_validate(sound)
    problems = [
        Problem(problem_id=str(n), question="How much is it? " * n, answer="1") for n in (1, 3, 9)
    ]
    lengths = measure_prompts(builder, config.layers, problems)
    longest = max(
        len(
            builder.correction_prompt(
                config.layers[1],
                problem.question,
                parent_prompt_ids=[],
                parent_ids=[1] * config.layers[0].max_completion_tokens,
                guidance=phrase,
            )
        )
        for problem in problems
        for phrase in config.layers[1].guidance.phrases
    )
    assert lengths.layer_lengths(config.layers)[1] == longest + 60
    assert lengths.context_needed(config.layers) == longest + 60


def test_lengths_bound_prompts_of_problems_with_and_without_turns_of_their_own(
    sound, tiny_model: Path
):
    builder = PromptBuilder(AutoTokenizer.from_pretrained(tiny_model))
    layers = RunConfig.model_validate(sound).layers
    system = {"role": "system", "content": "Be brief. " * 30}
    problems = [
        Problem(
            problem_id=str(n),
            question="How much is it? " * n,
            answer="1",
            earlier_turns=[system] if n % 2 else [],
        )
        for n in range(1, 24)
    ]
    longest = max(
        len(
            builder.correction_prompt(
                layers[1],
                problem,
                parent_prompt_ids=[],
                parent_ids=[1] * layers[0].max_completion_tokens,
                guidance=phrase,
            )
        )
        for problem in problems
        for phrase in layers[1].guidance.phrases
    )
    lengths = measure_prompts(builder, layers, problems)
    assert lengths.context_needed(layers) >= longest + 60


def test_a_chain_of_one_needs_no_room_for_corrections(sound, tiny_model: Path):
    builder = PromptBuilder(AutoTokenizer.from_pretrained(tiny_model))
    del sound["layers"][1]
    sound["layers"][0]["system_prompt"] = ""
    problem = Problem(problem_id="1", question="2 + 2?", answer="4")
    lengths = measure_prompts(builder, RunConfig.model_validate(sound).layers, [problem])
    expected = len("[user]2 + 2?") + 1 + len("[assistant]")  # <end> is one token
    assert lengths == PromptLengths(
        max_prompt_tokens=expected, guidance_tokens=0, overhead_tokens=0
    )


@pytest.mark.parametrize("layout", ["review_chat", "user_quote", "self_continue"])
def test_corrections_are_built_from_the_attempts_token_ids(sound, tiny_model: Path, layout: str):
    sound["layers"][1]["layout"] = layout
    builder = PromptBuilder(AutoTokenizer.from_pretrained(tiny_model))
    problem = Problem(problem_id="1", question="2 + 2?", answer="4")
    (line,) = token_lines(builder, RunConfig.model_validate(sound).layers, problem)
    assert line.status == "ok"


def test_a_template_that_changes_the_attempt_fails(sound, tiny_model: Path):
    class Forgetful(PromptBuilder):
        def quoted(self, layer, parent_ids, parent_answer):
            return super().quoted(layer, parent_ids[:-1], parent_answer)

    builder = Forgetful(AutoTokenizer.from_pretrained(tiny_model))
    assert len(builder.encode(SAMPLE_ATTEMPT)) > 1
    problem = Problem(problem_id="1", question="2 + 2?", answer="4")
    (line,) = token_lines(builder, RunConfig.model_validate(sound).layers, problem)
    assert line.status == "fail"


def test_a_folder_without_safetensors_is_no_model(sound, tiny_model: Path, tmp_path: Path):
    for file in tiny_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").touch()
    sound["model"]["path"] = str(tmp_path)
    report = checked(sound)
    assert failed_names(report) == ["model"]
    assert "no .safetensors file" in details(report, "model")


def test_tensor_parallelism_must_divide_the_heads(sound):
    sound["engines"] = {"tensor_parallel_size": 3}
    report = checked(sound)
    assert failed_names(report) == ["tensor parallel"]
    assert "Nearest valid value: 2" in details(report, "tensor parallel")


def test_a_tokenizer_without_a_chat_template_is_refused(sound, tiny_model: Path, tmp_path: Path):
    for file in tiny_model.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    sound["model"]["path"] = str(tmp_path)
    assert "no chat template" in details(checked(sound), "model")


def test_a_model_on_an_unreachable_hub_is_not_checked_rather_than_wrong(sound, monkeypatch):
    monkeypatch.setattr("mgrpo.models.node_model.is_hub_reachable", lambda: False)
    sound["model"]["path"] = "nobody/nothing"
    report = checked(sound)
    assert report.failures == []
    assert "not checked" in details(report, "model")
    assert "not checked" in details(report, "context, tokens")


def test_a_model_of_the_hub_is_shown_with_its_commit(
    sound, tiny_model: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = contents(tiny_model)
    small = {name: content for name, content in files.items() if name != "model.safetensors"}
    publish(tmp_path, "someone/small", small, NEW)
    publish(tmp_path, "someone/small", files, OLD, "v1")
    sound["model"]["path"] = "someone/small"
    newest = details(checked(sound), "model")
    assert f"someone/small at {NEW}: Llama" in newest and "parameters" not in newest
    sound["model"]["revision"] = "v1"
    tagged = details(checked(sound), "model")
    assert f"someone/small at {OLD}: Llama" in tagged and "parameters" in tagged
    sound["model"]["path"] = str(tiny_model)
    assert "has no revisions" in details(checked(sound), "model")


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of checks beside the user."""
    (tmp_path / "odd_checks.py").write_text(
        "import time\n"
        "def raises(completion, problem):\n    raise KeyError('no such sum')\n"
        "def hangs(completion, problem):\n    time.sleep(60)\n"
        "def constant(completion, problem):\n    return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checks")
@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("odd_checks:raises", "no such sum"),
        ("odd_checks:missing", "missing"),
        ("no_such_module:check", "no_such_module"),
        ("math_anser", "math_answer"),
        ("odd_checks:hangs", "timeout"),
    ],
)
def test_a_reward_that_does_not_work_fails_with_its_reason(sound, check: str, expected: str):
    sound["rewards"] = {"terms": [{"check": check}], "deadline_s": 0.5}
    report = checked(sound)
    assert failed_names(report) == ["rewards"]
    assert expected in details(report, "rewards")


def test_functions_from_elsewhere_are_tried_on_two_rows(sound, tmp_path: Path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "def accuracy(completions, answer, **columns):\n"
        "    return [float(a in c) for c, a in zip(completions, answer)]\n"
        "def odd(prompts, completions, **columns):\n"
        "    return [None if 'box' in c else 0.5 for c in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    trl = [{"trl": "./theirs.py:accuracy", "correct_at": 1.0}, {"trl": "./theirs.py:odd"}]
    sound["rewards"] = {"terms": trl}
    report = checked(sound)
    lines = details(report, "rewards").splitlines()
    assert failed_names(report) == [] and len(lines) == 2
    for line in lines:
        assert "1 x ./theirs.py:accuracy (trl) + 1 x ./theirs.py:odd (trl): 1 for" in line
        assert "(./theirs.py:accuracy 1, ./theirs.py:odd left out)" in line
        assert "(./theirs.py:accuracy 0, ./theirs.py:odd 0.5)" in line
    sound["rewards"] = {"terms": [{"check": "./theirs.py:accuracy"}]}
    assert "write `trl: ./theirs.py:accuracy`" in details(checked(sound), "rewards")


def test_a_task_with_many_right_answers_is_graded_by_its_verifier_and_the_check_says_so(sound):
    tasks = [{"name": "countdown"}, {"name": "chain_sum"}]
    sound["data"]["train"] = {"source": "reasoning_gym", "size": 8, "seed": 3, "tasks": tasks}
    sound["data"]["max_prompt_tokens"] = 900
    lines = details(checked(sound), "rewards").splitlines()
    assert {line.split(": 1 for")[0] for line in lines} == {
        "1 x math_answer (countdown: its own verifier)",
        "1 x math_answer",
    }


@pytest.mark.parametrize(
    ("expression", "status"),
    [("np.isclose(1.0, len(text))", "warn"), ("np.float32('nan')", "fail")],
)
def test_a_check_may_return_numpy_values(sound, tmp_path, monkeypatch, expression, status):
    """The first is a bool that tells nothing apart, the second no number."""
    (tmp_path / "numpy_checks.py").write_text(
        f"import numpy as np\ndef close(text, problem):\n    return {expression}\n"
    )
    monkeypatch.chdir(tmp_path)
    sound["rewards"] = {"terms": [{"check": "numpy_checks:close"}]}
    lines = [line for line in checked(sound).lines if line.name == "rewards"]
    assert {line.status for line in lines} == {status}
    assert "of type bool" not in lines[0].detail


def test_the_check_gives_rewards_the_recipes_deadlines(sound, tmp_path: Path, monkeypatch):
    """Whose module takes longer to import than a completion may be graded."""
    (tmp_path / "slow_checks.py").write_text(
        "import time\ntime.sleep(1.5)\n"
        "def slow(completion, problem):\n    time.sleep(0.3)\n    return '5' in completion\n"
    )
    monkeypatch.chdir(tmp_path)
    sound["rewards"] = {"terms": [{"check": "slow_checks:slow"}], "deadline_s": 1.0}
    assert failed_names(checked(sound)) == []
    sound["rewards"]["deadline_s"] = 0.1
    report = checked(sound)
    assert failed_names(report) == ["rewards"]
    assert "rewards.deadline_s = 0.1 s" in details(report, "rewards")


def test_the_recipes_deadlines_are_not_cut_short(sound, monkeypatch):
    """However long they are: a check by a model of its own takes longer than a few seconds."""
    seen = []

    class Pool:
        def __init__(self, config, **others):
            seen.append((config.deadline_s, config.start_deadline_s, config.num_processes))
            raise RewardError("enough")

    monkeypatch.setattr("mgrpo.check.rewards.RewardPool", Pool)
    sound["rewards"] = {"deadline_s": 40, "start_deadline_s": 600, "num_processes": 8}
    checked(sound)
    assert seen == [(40.0, 600.0, 1)]


@pytest.mark.usefixtures("checks")
def test_a_reward_that_tells_nothing_apart_is_a_warning(sound):
    sound["rewards"] = {"terms": [{"check": "odd_checks:constant"}]}
    report = checked(sound)
    assert report.failures == []
    assert "scores no higher than no answer" in details(report, "rewards")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_table_shows_data_that_looks_like_markup(sound, is_terminal: bool):
    rows = Path(sound["data"]["train"]["path"])
    rows.write_text('{"question": "[red]2[/] + 2?", "answer": "4"}\n' + rows.read_text())
    report = checked(sound)
    stream = io.StringIO()
    report.show(Console(file=stream, force_terminal=is_terminal, color_system=None, width=200))
    assert "[red]2[/] + 2?" in stream.getvalue()
    assert "✓" in stream.getvalue()
    assert "No fault found" in stream.getvalue()


def test_a_prompt_with_feedback_is_shown_and_a_check_without_is_named(sound):
    sound["layers"][1]["guidance"] = {"from": "check", "max_tokens": 12}
    report = checked(sound)
    shown = details(report, "feedback")
    assert "at most 12 tokens" in shown
    assert "Thechecksays:Thisiswhat\\nWhich" in shown.replace(" ", "")  # its tokens are characters
    assert "feedback 'There is no answer in a closed" in details(report, "rewards")
    sound["rewards"] = {"terms": [{"check": "tests.rewards.example_checks:says_yes"}]}
    silent = [line for line in checked(sound).lines if line.name == "rewards"]
    assert silent[-1].status == "warn" and "no check gave feedback" in silent[-1].detail
