"""`mgrpo completion`, in a real shell."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from mgrpo.cli import main


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    file = tmp_path / "completion.sh"
    file.write_text(capsys.readouterr().out)
    (tmp_path / "runs" / "wide").mkdir(parents=True)
    return file


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mgrpo tra", {"train"}),
        ("mgrpo train quick", {"quickstart"}),
        ("mgrpo train quickstart --over", {"--overwrite"}),
        ("mgrpo report w", {"wide"}),
        ("mgrpo eval wide --suite gs", {"gsm8k"}),
        ("mgrpo eval wide --decoding s", {"sampled"}),
        ("mgrpo eval default --against w", {"wide"}),
        ("mgrpo models pre", {"prepare"}),
        ("mgrpo nothing x", set()),
    ],
)
def test_the_shell_completes(script: Path, line: str, expected: set[str]) -> None:
    words = shlex.split(line)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _mgrpo"
    program = f'source completion.sh; {asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-uc", program], cwd=script.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == expected


def test_zsh_reads_it_as_bash_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit")
