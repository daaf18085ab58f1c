"""vLLM's processes keep their temporary files in a folder of their engine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from actors.engine import CODE_CACHE, temporary_files_in


@pytest.mark.parametrize("cache", [None, "/cache"])
def test_only_what_is_started_meanwhile_has_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    monkeypatch.delenv(CODE_CACHE, raising=False)
    if cache is not None:
        monkeypatch.setenv(CODE_CACHE, cache)
    before, usual = dict(os.environ), tempfile.gettempdir()
    with pytest.raises(RuntimeError), temporary_files_in(tmp_path):
        assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path)
        assert Path(os.environ[CODE_CACHE]).parent != tmp_path  # it outlives the engine
        raise RuntimeError
    assert dict(os.environ) == before and tempfile.gettempdir() == usual
