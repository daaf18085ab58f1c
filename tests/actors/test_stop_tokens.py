"""Sampling ends where the chat template ends a turn, whatever generation_config lists.

That a real engine does is shown in test_real_engines.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from mgrpo.config.layers import SolveLayer, Stop
from mgrpo.config.run import ModelConfig
from mgrpo.errors import ModelError
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.models.policy_tokenizer import load_builder

PAD, IM_START, IM_END = 0, 1, 2


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
