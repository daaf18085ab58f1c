"""What guides say of recipes, keys and messages is what the code knows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.explain import all_keys
from mgrpo.config.load import load_recipe
from mgrpo.config.yaml_core import parse_yaml
from tests.repository import REPOSITORY

GUIDES = REPOSITORY / "docs" / "guides"
FROM = sorted(GUIDES.glob("from_*.md"))
ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
JOINT = re.compile(r'"\s*\n\s*(?:\+ )?f?"')
"""Between the halves of a message that the code writes on two lines."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", FROM, ids=lambda page: page.stem)
def test_the_recipe_of_a_page_about_another_system_loads(page: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", text_of(page), re.DOTALL)
    tree = parse_yaml(block)
    assert isinstance(tree, dict)
    config = load_recipe(tree)
    assert (config.name, len(config.layers)) == ("mine", 1)
    assert page.stem.removeprefix("from_") == config.rewards.terms[0].KEY


@cache
def known_keys() -> frozenset[str]:
    return frozenset(re.sub(r"\.\d+(?=\.|$)", ".N", key) for key in all_keys(RunConfig))


@pytest.mark.parametrize(
    "page", [*FROM, GUIDES / "sizing.md", GUIDES / "troubleshooting.md"], ids=lambda page: page.stem
)
def test_keys_that_a_page_names_exist(page: Path) -> None:
    """But for those of the first column, which are the other system's, or what one sees."""
    told = re.sub(r"^\| [^|]* \|", "|", text_of(page), flags=re.MULTILINE)
    named = re.findall(r"`(\w+(?:\.\w+)+)(?:: [^`]*)?`", told)
    ours = [key for key in named if key.split(".")[0] in RunConfig.model_fields]
    assert ours
    for key in ours:
        general = re.sub(r"\.(?:\d+|solve|correct)(?=\.|$)", ".N", key)
        assert general in known_keys(), f"{page.name}: {key}"


def test_messages_that_troubleshooting_quotes_are_in_the_code() -> None:
    code = "\n".join(
        JOINT.sub("", text_of(file)) for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")
    )
    quoted = re.findall(
        r'^\| [^|]*?"([^"|]+)"', text_of(GUIDES / "troubleshooting.md"), re.MULTILINE
    )
    assert len(quoted) >= 12
    for message in quoted:
        for part in re.split(r"…| [MN] ", message):
            assert part.strip(" .:,") in code, message
