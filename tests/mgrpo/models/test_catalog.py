import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo.errors import ModelError
from mgrpo.models import catalog
from mgrpo.models.catalog import SHIPPED, SHIPPED_DEFAULT_DIR, prepare, prepared_dir, resolve_model


def test_default_is_the_shipped_folder():
    assert resolve_model("default") == str(SHIPPED_DEFAULT_DIR)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_loads_and_is_smaller_than_five_megabytes(name):
    folder = Path(resolve_model(name))
    assert folder == SHIPPED[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000
    assert json.loads((folder / "origin.json").read_text())["made_by"] == catalog.MADE_BY[name]
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template


def test_a_model_that_is_not_prepared_yet_says_how_to_prepare_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="mgrpo models prepare smollm2"):
        resolve_model("smollm2")


def test_an_existing_model_folder_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == str(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="which is a file"):
        resolve_model(str(file))


@pytest.mark.parametrize(
    "path", ["/nowhere/model", "./model", "../no-such-model", "~/model", "defualt", "a/b/c"]
)
def test_a_path_that_does_not_exist_is_refused_at_once(path):
    with pytest.raises(ModelError, match="There is no folder"):
        resolve_model(path)


def test_a_hub_name_is_returned_as_it_is():
    assert resolve_model("HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M"


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path))
    assert prepared_dir("smollm2") == tmp_path / "smollm2"


def test_preparing_a_ready_model_does_nothing():
    lines: list[str] = []
    assert prepare("default", report=lines.append) == SHIPPED_DEFAULT_DIR
    assert lines == [f"default is ready in {SHIPPED_DEFAULT_DIR}"]


def test_preparing_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'gpt9'.*default.*smollm2"):
        prepare("gpt9")


def test_an_incomplete_folder_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.SHIPPED, "default", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"python -m scripts\.default_policy"):
        resolve_model("default")
