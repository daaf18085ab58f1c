"""Sampling ends where the chat template ends a turn, whatever generation_config lists."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config.layers import SolveLayer, Stop
from mgrpo.config.run import ModelConfig
from mgrpo.errors import ModelError
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.models.policy_tokenizer import load_builder

REPOSITORY = Path(__file__).resolve().parents[2]
PAD, IM_START, IM_END = 0, 1, 2
ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "PYTHONPATH": str(REPOSITORY),
}


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    return make_base_model(tmp_path / "base")


def make_base_model(folder: Path) -> Path:
    """The shipped policy with the ends of a base model: nothing but its template names <|im_end|>,
    which is a token like any other to the tokenizer."""
    shutil.copytree(SHIPPED_DEFAULT_DIR, folder)
    for name in ("config.json", "generation_config.json"):
        change(folder / name, eos_token_id=PAD)
    change(folder / "tokenizer_config.json", eos_token="<|pad|>")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    for token in tokens["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<|im_end|>"
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    return folder


def change(file: Path, **keys: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a real engine sampled of the base model."""
    folder = tmp_path_factory.mktemp("sampled")
    model, samples = make_base_model(folder / "base"), folder / "samples.json"
    script = REPOSITORY / "tests" / "actors" / "sample_once.py"
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(samples)],
        env={**os.environ, **ENGINE_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(samples.read_text())


@pytest.mark.timeout(300)
def test_a_real_engine_stops_at_the_templates_end_and_says_which_version_wrote_what(
    found: dict[str, Any],
) -> None:
    assert len(found["group"]) == 4
    for sample in found["group"]:
        assert sample["version_spans"] == [[0, 0]]
        assert sample["finish_reason"] == "stop"
        assert sample["token_ids"].index(IM_END) == len(sample["token_ids"]) - 1
        assert len(sample["logprobs"]) == len(sample["token_ids"])
        assert sample["text"].strip().endswith("}")  # the box, and no <|im_end|> behind it
    spans = [one["version_spans"] for one in found["later"]]
    assert spans == [[[0, 0], [count, 1]] for count in found["counts"]]
    assert min(found["counts"]) > 0


@pytest.mark.timeout(300)
def test_a_real_engine_begins_what_was_drawn_first(found: dict[str, Any]) -> None:
    assert found["order"] == [5, 6, 7]


@pytest.mark.timeout(300)
def test_a_real_engine_keeps_the_shortest_and_aborts_the_others(found: dict[str, Any]) -> None:
    whole, kept, aborted = found["six"], found["spared"][:2], found["spared"][2:]
    by_length = sorted(whole, key=lambda one: len(one["token_ids"]))  # equal ones in their order
    assert [one["token_ids"] for one in kept] == [
        one["token_ids"] for one in whole if one in by_length[:2]
    ]
    assert {one["finish_reason"] for one in kept} == {"stop"}
    assert len(aborted) == 4
    longest = max(len(one["token_ids"]) for one in kept)
    for one in aborted:
        same = [
            full for full in whole if full["token_ids"][: len(one["token_ids"])] == one["token_ids"]
        ]
        # decided one token early at the least: equal lengths go by their order
        assert same and len(one["token_ids"]) + 1 >= longest
        assert len(one["logprobs"]) == len(one["token_ids"])
    sampled = sum(len(one["token_ids"]) for one in found["spared"])
    assert sampled < sum(len(one["token_ids"]) for one in whole)
    assert found["num_left"] == 0


@pytest.mark.timeout(300)
def test_a_real_engine_ends_completions_at_a_stop_text(found: dict[str, Any]) -> None:
    pairs = list(zip(found["group"], found["stopped"], strict=True))
    assert any(found["stopped_by"] in whole["text"] for whole, _ in pairs)
    for whole, cut in pairs:
        assert whole["token_ids"][: len(cut["token_ids"])] == cut["token_ids"]
        assert len(cut["logprobs"]) == len(cut["token_ids"])
        assert cut["finish_reason"] == "stop"
        assert cut["text"] == whole["text"].partition(found["stopped_by"])[0]


def test_a_layer_s_stop_tokens_are_ids_or_refused(base_model: Path) -> None:
    builder = load_builder(str(base_model), ModelConfig(path="base"))
    assert builder.stop_of(SolveLayer(name="solve", group_size=2)) is None
    layer = SolveLayer(name="solve", group_size=2, stop={"tokens": ["<|im_start|>"]})
    assert builder.stop_of(layer) == Stop(tokens=[IM_START])
    layer = SolveLayer(name="solve", group_size=2, stop={"tokens": ["</answer>"]})
    with pytest.raises(ModelError, match=r"stop\.tokens of layer solve names '</answer>'"):
        builder.stop_of(layer)


def test_stop_texts_may_be_written_without_their_section() -> None:
    for written in ("Q:", ["Q:"], {"texts": ["Q:"]}):
        layer = SolveLayer(name="solve", group_size=2, stop=written)
        assert layer.stop == Stop(texts=["Q:"])
    with pytest.raises(ValidationError, match="at least 1 character"):
        SolveLayer(name="solve", group_size=2, stop=[""])


def test_the_templates_end_comes_first_and_the_listed_ones_stay(base_model: Path) -> None:
    builder = load_builder(str(base_model), ModelConfig(path="base"))
    assert builder.stop_ids == (IM_END, PAD)
    assert builder.end_of_turn_ids() == [IM_END]
    attempt = builder.encode("\\boxed{7}")
    assert builder.without_end_of_turn([*attempt, IM_END]) == attempt
    assert builder.decode([*attempt, IM_END]) == "\\boxed{7}"


def test_several_listed_ends_all_count(base_model: Path) -> None:
    change(base_model / "generation_config.json", eos_token_id=[PAD, 7])
    assert load_builder(str(base_model), ModelConfig(path="base")).stop_ids == (IM_END, PAD, 7)


@pytest.mark.parametrize("token", ["<|im_start|>", IM_START])
def test_a_recipe_may_name_the_end(base_model: Path, token: str | int) -> None:
    builder = load_builder(str(base_model), ModelConfig(path="base", stop_tokens=[token]))
    assert builder.stop_ids == (IM_START, PAD)


@pytest.mark.parametrize("token", ["<|im_and|>", 4096])
def test_an_end_that_is_no_token_is_refused(base_model: Path, token: str | int) -> None:
    with pytest.raises(ModelError, match=r"model\.stop_tokens"):
        load_builder(str(base_model), ModelConfig(path="base", stop_tokens=[token]))
