"""The tutorial's files and commands in a folder: `python -m scripts.tutorial FOLDER`.

`commands.sh` there has the commands of docs/guides/own_task.md in their order. Standard library
alone, so that it also runs without the repository's packages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "own_task.md"
SECTION = re.compile(r"^## Your rows and your reward.*?(?=^## )", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^```\w+\n(# (\S+)\n.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
SCRIPT = "commands.sh"


def tutorial_files() -> dict[str, str]:
    """The files that the tutorial has its reader write, and its commands."""
    section = SECTION.search(PAGE.read_text(encoding="utf-8"))
    assert section is not None, f"{PAGE} has no such section"
    files = {name: text for text, name in FILE.findall(section.group())}
    return {**files, SCRIPT: "".join(COMMANDS.findall(section.group()))}


def main(folder: str) -> None:
    for name, text in tutorial_files().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
