from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mgrpo.cli import main
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.metrics.log import to_line
from mgrpo.types import Completion, CompletionId, Reward
from tests.learner.builders import two_turns


def completion(name: str, reward: float, *, num_tokens: int = 2, **changes: Any) -> Completion:
    """ "q/1" is an attempt, "q/1/2" a correction of it."""
    parts = name.split("/")
    parent = "/".join(parts[:-1])
    values: dict[str, Any] = {
        "id": CompletionId.named(name),
        "problem_id": parts[0],
        "domain": "sums",
        "layer": len(parts) - 1,
        "parent_id": parent if len(parts) > 2 else None,
        "group_key": parent,
        "prompt": [1, 2],
        "token_ids": list(range(3, 3 + num_tokens)),
        "rollout_logprobs": [-1.0] * num_tokens,
        "finish_reason": "stop",
        "version_spans": ((0, 0),),
        "text": "",
        "prompt_text": "",
        "reward": Reward(value=reward, correct=reward >= 1),
    }
    return Completion(**{**values, **changes})


ATTEMPTS = [completion("q/1", 1, num_tokens=4), completion("q/2", 0)]
CORRECTIONS = [
    completion("q/1/1", 1),
    completion("q/1/2", 0),
    completion("q/2/1", 0),
    completion("q/2/2", 0),
]


@pytest.fixture
def folder(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe of two layers (two.yaml) and of one (one.yaml)."""
    monkeypatch.chdir(tmp_path)
    for layer in tree["layers"]:
        layer["advantage"] = {"scale_by_std": False}
    tree["layers"][0]["group_size"] = 2
    Path("two.yaml").write_text(dump_yaml(tree))
    Path("one.yaml").write_text(dump_yaml({**tree, "layers": tree["layers"][:1]}))
    return tmp_path


def write(completions: list[Completion], name: str = "batch.jsonl") -> str:
    with Path(name).open("w") as file:
        file.writelines(to_line(one.to_json()) for one in completions)
    return name


def explained(capsys, *args: str) -> dict[str, Any]:
    assert main(["explain", *args, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    whole["by_id"] = {one["completion_id"]: one for one in whole["completions"]}
    return whole


def with_plugin(use: str, *, layers: str = "", **settings: Any) -> str:
    entry = {"use": use, "settings": settings} | ({"layers": [layers]} if layers else {})
    return f"plugins={json.dumps([entry])}"


# --- numbers ---


def test_rewards_groups_advantages_and_losses_are_those_of_training(folder, capsys):
    whole = explained(capsys, write(ATTEMPTS + CORRECTIONS), "--recipe", "two.yaml")
    first = whole["by_id"]["q/1"]
    assert first["group"] == "q"
    assert first["advantage"] == 0.5
    # seq_mean: 4 tokens, 2 attempts; -(0.5 * 1/8) on each of 4 tokens
    assert first["tokens"] == [
        {"start": 0, "end": 4, "advantage": 0.5, "weight": 0.125, "entropy_weight": 0.0}
    ]
    assert first["loss"] == -0.25
    fixed = whole["by_id"]["q/1/1"]
    assert (fixed["group"], fixed["advantage"], fixed["loss"]) == ("q/1", 0.5, -0.125)


def test_each_minibatch_has_its_own_denominators(folder, capsys):
    file = write([*ATTEMPTS, completion("r/1", 1), completion("r/2", 0)])
    whole = explained(capsys, file, "--recipe", "one.yaml")
    assert whole["by_id"]["q/1"]["loss"] == -0.125
    parts = explained(capsys, file, "--recipe", "one.yaml", "objective.minibatches=2")
    assert parts["by_id"]["q/1"]["loss"] == parts["by_id"]["r/1"]["loss"] == -0.25
    assert parts["by_id"]["q/1"]["advantage"] == whole["by_id"]["q/1"]["advantage"]


def test_what_does_not_train_says_why(folder, capsys):
    whole = explained(capsys, write(ATTEMPTS + CORRECTIONS), "--recipe", "two.yaml")
    hopeless = whole["by_id"]["q/2/1"]
    assert hopeless["selected"] is False
    assert hopeless["reason"] == "no correction of this parent succeeded"
    assert hopeless["loss"] == 0


def test_shaped_rewards_stand_beside_the_checks_own(folder, capsys):
    bonus = with_plugin("correction_bonus", alpha=10)
    whole = explained(capsys, write(ATTEMPTS + CORRECTIONS), "--recipe", "two.yaml", bonus)
    assert whole["plugins"] == ["correction_bonus"]
    broken = whole["by_id"]["q/1/2"]
    assert (broken["reward"], broken["shaped_reward"]) == (0, -10)
    assert broken["advantage"] == -5.5  # -10 and 1 around -4.5


def test_tokens_that_are_treated_differently_are_told_apart(folder, capsys):
    right = dataclasses.replace(CORRECTIONS[0], spans={"analysis": [(0, 1)]})
    file = write([*ATTEMPTS, right, *CORRECTIONS[1:]])
    span = with_plugin("span_credit", layers="correct", attribution="analysis_always")
    other = {"use": "reflection_span", "layers": ["correct"]}
    both = f"plugins={json.dumps([other, *json.loads(span.removeprefix('plugins='))])}"
    whole = explained(capsys, file, "--recipe", "two.yaml", both)
    tokens = whole["by_id"]["q/1/1"]["tokens"]
    assert [(one["start"], one["end"], one["advantage"]) for one in tokens] == [
        (0, 1, 0.5),
        (1, 2, 0.0),
    ]
    assert main(["explain", file, "--recipe", "two.yaml", both]) == 0
    shown = capsys.readouterr().out
    assert "q/1/1, by token:" in shown
    assert "q/1, by token:" not in shown  # all alike
    assert "advantage 0.5, weight 0.125, in analysis" in shown


def test_what_an_episode_read_between_its_turns_has_no_weight(folder, capsys):
    episode = two_turns("q/1", 1.0, call=[5, 6], result=[9, 10, 11], answer=[7])
    file = write([episode, completion("q/2", 0)])
    tokens = explained(capsys, file, "--recipe", "one.yaml")["by_id"]["q/1"]["tokens"]
    weighed = [(one["start"], one["end"], one["weight"] > 0) for one in tokens]
    assert weighed == [(0, 2, True), (2, 5, False), (5, 6, True)]


def test_a_file_with_one_version_per_completion_is_explained_alike(folder, capsys):
    whole = explained(capsys, write(ATTEMPTS), "--recipe", "one.yaml")
    rows = [one.to_json() for one in ATTEMPTS]
    for row in rows:
        row["prompt_token_ids"] = row.pop("prompt")[0]["token_ids"]
        row["policy_version"] = row.pop("version_spans")[0][1]
        del row["turn_spans"]
    Path("old.json").write_text(json.dumps(rows))
    assert explained(capsys, "old.json", "--recipe", "one.yaml")["by_id"] == whole["by_id"]


def test_a_prompt_with_an_image_is_refused(folder, capsys):
    row = ATTEMPTS[0].to_json()
    Path("images.json").write_text(json.dumps([row | {"prompt": [{"image": "a.png"}]}]))
    assert main(["explain", "images.json", "--recipe", "one.yaml"]) == 2
    said = capsys.readouterr().err
    assert "images.json, completion 1" in said and "not token ids (image)" in said


def test_layers_that_train_in_updates_of_their_own_get_the_same_numbers(folder, capsys):
    file = write(ATTEMPTS + CORRECTIONS)
    joint = explained(capsys, file, "--recipe", "two.yaml")
    order = "objective.update_order=sequential"
    assert explained(capsys, file, "--recipe", "two.yaml", order)["by_id"] == joint["by_id"]


def test_layers_leaves_completions_out_but_keeps_them_as_parents(folder, capsys):
    file = write(ATTEMPTS + CORRECTIONS)
    only = explained(capsys, file, "--recipe", "one.yaml", "--layers", "1")
    assert list(only["by_id"]) == ["q/1", "q/2"]
    improving = ["layers.correct.advantage=improvement", "--layers", "2"]
    later = explained(capsys, file, "--recipe", "two.yaml", *improving)
    assert list(later["by_id"]) == ["q/1/1", "q/1/2", "q/2/1", "q/2/2"]
    assert later["by_id"]["q/1/2"]["advantage"] == -1


def test_the_step_of_a_phase_is_that_of_the_file_or_as_asked_for(folder, capsys):
    phase = "phases=[{name: late, from_step: 1, changes: {layers: {solve: {loss_weight: 3}}}}]"
    early = write(ATTEMPTS, "step-000000.jsonl")
    late = write(ATTEMPTS, "step-000001.jsonl")
    args = ["--recipe", "two.yaml", phase]
    assert explained(capsys, early, *args)["by_id"]["q/1"]["loss"] == -0.25
    assert explained(capsys, late, *args)["by_id"]["q/1"]["loss"] == -0.75
    assert explained(capsys, early, *args, "--step", "1")["by_id"]["q/1"]["loss"] == -0.75


# --- forms ---


def test_a_json_array_is_read_like_lines(folder, capsys):
    Path("batch.json").write_text(json.dumps([one.to_json() for one in ATTEMPTS], indent=1))
    from_array = explained(capsys, "batch.json", "--recipe", "two.yaml")
    assert from_array == explained(capsys, write(ATTEMPTS), "--recipe", "two.yaml")


def test_the_table_groups_by_problem_and_sums_up(folder, capsys):
    others = [
        dataclasses.replace(one, id=CompletionId.named(f"r/{n}"), problem_id="r", group_key="r")
        for n, one in enumerate(ATTEMPTS, start=1)
    ]
    file = write(ATTEMPTS + CORRECTIONS + others)
    assert main(["explain", file, "--recipe", "two.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("q") < lines.index("r")
    (row,) = [line for line in lines if line.startswith("q/2/1 ")]
    assert row.split()[1:4] == ["q/2", "wrong", "0"]
    assert "no: no correction of this parent succeeded" in row
    assert lines[-1].startswith("6 of 8 completions train, 0 have a shaped reward")
    assert "\x1b[" not in "".join(lines)  # no colour in a pipe


def test_one_completion_is_shown_with_its_tokens(folder, capsys):
    file = write(ATTEMPTS + CORRECTIONS)
    assert main(["explain", file, "--recipe", "two.yaml", "--completion", "q/1"]) == 0
    shown = capsys.readouterr().out
    assert "0-3  advantage 0.5, weight 0.125" in shown
    assert "q/2" not in shown


# --- measurements ---


@pytest.fixture
def entropy_args(folder) -> list[str]:
    return ["--recipe", "one.yaml", with_plugin("entropy_advantage")]


def test_a_missing_signal_is_named_with_what_to_do(entropy_args, capsys):
    assert main(["explain", write(ATTEMPTS), *entropy_args]) == 2
    said = capsys.readouterr().err
    assert "EntropyAdvantage needs entropies" in said
    assert "--model" in said


def test_measurements_of_the_file_are_used(entropy_args, capsys):
    rows = [
        {**one.to_json(), "measurements": {"entropies": [value] * len(one.token_ids)}}
        for one, value in zip(ATTEMPTS, (3.0, 1.0), strict=True)
    ]
    Path("batch.json").write_text(json.dumps(rows))
    whole = explained(capsys, "batch.json", *entropy_args)
    # mean entropy 2: relative 1.5 and 0.5
    assert whole["by_id"]["q/1"]["advantage"] == pytest.approx(0.5 / 1.5)
    assert whole["by_id"]["q/2"]["advantage"] == pytest.approx(-0.5 / 0.5)
    rows[0]["measurements"]["entropies"] = [1.0]
    Path("batch.json").write_text(json.dumps(rows))
    assert main(["explain", "batch.json", *entropy_args]) == 2
    assert "has 4 tokens and 1 entropies" in capsys.readouterr().err


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy of 64 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    settings = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, initializer_range=1.0, **settings
        )
    )
    model.save_pretrained(folder)
    return folder


def test_a_model_measures_what_the_file_lacks(entropy_args, policy: Path, capsys):
    from transformers import AutoModelForCausalLM

    whole = explained(capsys, write(ATTEMPTS), *entropy_args, "--model", str(policy))
    model = AutoModelForCausalLM.from_pretrained(policy)
    means = []
    for one in ATTEMPTS:
        ids = torch.tensor([[*one.prompt_token_ids.tolist(), *one.token_ids.tolist()]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, 1:-1].log_softmax(-1)  # after the last prompt token
        means.append(float(-(logprobs.exp() * logprobs).sum(-1).mean()))
    relative = means[0] / (sum(means) / 2)
    assert abs(relative - 1) > 0.005  # else this could not fail
    assert whole["by_id"]["q/1"]["advantage"] == pytest.approx(0.5 / relative, rel=1e-5)


def test_a_part_that_reads_the_policy_is_given_the_model(folder, policy: Path, capsys):
    args = [write(ATTEMPTS), "--recipe", "one.yaml", with_plugin("nthr")]
    assert main(["explain", *args]) == 2
    assert "--model" in capsys.readouterr().err
    whole = explained(capsys, *args, "--model", str(policy))
    # Half of the group is right, so tokens that are spared weigh nothing.
    wrong = whole["by_id"]["q/2"]["tokens"]
    assert {part["advantage"] for part in wrong} <= {0.0, -0.5}
    assert "nthr/spared_fraction" in whole["metrics"]


def test_tokens_that_the_model_does_not_have_are_refused(entropy_args, policy: Path, capsys):
    strange = dataclasses.replace(ATTEMPTS[1], token_ids=[3, 64])
    args = [*entropy_args, "--model", str(policy)]
    assert main(["explain", write([ATTEMPTS[0], strange]), *args]) == 2
    assert "has 64 tokens, and completion q/2 holds token 64" in capsys.readouterr().err


# --- spans ---


def test_annotate_marks_spans_that_the_file_lacks(folder, tiny_model: Path, capsys):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["one.\ntwo", "three"]
    marked = [
        dataclasses.replace(one, token_ids=ids, rollout_logprobs=[-1.0] * len(ids))
        for one, ids in zip(ATTEMPTS, (tokenizer.encode(text) for text in texts), strict=True)
    ]
    parts = [
        {"use": "step_spans"},
        {"use": "span_credit", "settings": {"span": "steps", "attribution": "analysis_always"}},
    ]
    args = [write(marked), "--recipe", "one.yaml", f"plugins={json.dumps(parts)}"]
    assert explained(capsys, *args)["by_id"]["q/1"]["advantage"] == 0  # no span, no credit
    args += ["--annotate", "--model", str(tiny_model)]
    assert explained(capsys, *args)["by_id"]["q/1"]["advantage"] == 0.5
    assert main(["explain", *args, "--tokens"]) == 0
    assert "in steps" in capsys.readouterr().out


# --- errors ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            '{"completion_id": 1}\n',
            ["completion 1 is not a completion", "rollouts/step-NNNNNN.jsonl"],
        ),
        ("[1, 2]", ["completion 1 is '1', not an object"]),
        ("not json\n", ["line 1 is not JSON"]),
        ("\n", ["holds no completions"]),
        ("[]", ["holds no completions"]),
    ],
)
def test_a_file_of_another_form_is_refused(folder, capsys, content: str, expected: list[str]):
    Path("batch.jsonl").write_text(content)
    assert main(["explain", "batch.jsonl", "--recipe", "two.yaml"]) == 2
    said = capsys.readouterr().err
    assert all(text in said for text in expected)


def test_a_run_is_explained_by_its_own_recipe_at_its_last_recorded_step(folder, capsys):
    (folder / "run" / "rollouts").mkdir(parents=True)
    write(ATTEMPTS, "run/rollouts/step-000003.jsonl")
    last = write(ATTEMPTS + CORRECTIONS, "run/rollouts/step-000007.jsonl")
    assert main(["explain", last]) == 2
    assert "is not in a run's folder: name the recipe" in capsys.readouterr().err
    Path("two.yaml").rename("run/config.yaml")
    found = explained(capsys, "run")
    assert found["step"] == 7
    assert found == explained(capsys, last, "--recipe", "run/config.yaml")


def test_what_is_not_there_is_named(folder, capsys):
    (folder / "empty").mkdir()
    assert main(["explain", "empty", "--recipe", "two.yaml"]) == 2
    assert "empty has no rollouts/step-*.jsonl" in capsys.readouterr().err
    assert main(["explain", "nowhere.jsonl", "--recipe", "two.yaml"]) == 2
    assert "nowhere.jsonl cannot be read" in capsys.readouterr().err


def test_a_chain_that_is_too_short_is_refused_with_the_way_out(folder, capsys):
    assert main(["explain", write(ATTEMPTS + CORRECTIONS), "--recipe", "one.yaml"]) == 2
    said = capsys.readouterr().err
    assert "4 completions are of layer 2, and the chain of one.yaml has 1 (solve)" in said
    assert "--layers 1" in said
    assert main(["explain", write(ATTEMPTS), "--recipe", "two.yaml", "--layers", "2"]) == 2
    assert "There is no completion of layer 2" in capsys.readouterr().err


def test_an_unknown_completion_is_refused_with_what_comes_near(folder, capsys):
    args = ["explain", write(ATTEMPTS), "--recipe", "two.yaml", "--completion", "q/3"]
    assert main(args) == 2
    assert "There is no completion 'q/3'. There is q/" in capsys.readouterr().err


def test_a_parent_that_is_not_in_the_file_is_named(folder, capsys):
    args = ["--recipe", "two.yaml", "layers.correct.advantage=improvement"]
    assert main(["explain", write(CORRECTIONS), *args]) == 6
    assert "the scored parent q/1" in capsys.readouterr().err
