"""Docstrings in parts: prose, then sections that open with a title and are indented.

Idea of the plug-in.

Formula:
    A_i ← ...

Metrics:
    name/of_it: what it says.

Reconstructed:
    Our own choices where the source does not specify them.
"""

from __future__ import annotations

import re

SECTIONS = ("Formula", "Metrics", "Reconstructed")
TITLE = re.compile(rf"^({'|'.join(SECTIONS)}):$")


def parts_of(doc: str) -> dict[str, list[str]]:
    """Lines of each section of a cleaned docstring, without their indentation; "" is the prose."""
    parts: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.splitlines():
        found = TITLE.match(line)
        if found is not None:
            current = found[1]
            parts[current] = []
        elif line.strip() and not line.startswith("    ") and current:
            current = ""  # prose again
            parts[current] += ["", line]
        else:
            parts[current].append(line.removeprefix("    ") if current else line)
    return {title: trimmed(lines) for title, lines in parts.items()}


def trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at both ends."""
    return "\n".join(lines).strip("\n").splitlines()


def paragraphs(lines: list[str]) -> list[str]:
    """Each paragraph on one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(lines)) if part]


def entries(lines: list[str]) -> dict[str, str]:
    """ "name: meaning" entries; a further indented line goes on with the one before."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith(" ") and name:
            found[name] += " " + line.strip()
            continue
        name, _, meaning = (text.strip() for text in line.partition(": "))
        found[name] = meaning
    return found
