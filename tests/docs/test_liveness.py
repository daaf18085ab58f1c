"""The table of deadlines has every key of a recipe in seconds, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from mgrpo.config import RunConfig
from tests.repository import REPOSITORY

PAGE = REPOSITORY / "docs" / "guides" / "liveness.md"
ROW = re.compile(r"^\| `(?P<key>[\w.*]+)` \| (?P<seconds>[\d.]+) \|", re.MULTILINE)
TEN_MINUTES = 600
NO_WAITS = {"cluster.health.restart_window_s", "output.storage.backoff_s"}


def keys_in_seconds() -> dict[str, float]:
    """Default by key, "*" for a place in a list."""
    schema = RunConfig.model_json_schema()
    return {
        path: default
        for path, default in defaults(schema, schema["$defs"], "")
        if path.endswith("_s") and not path.endswith("_per_s")
    }


def defaults(
    section: dict[str, Any], sections: dict[str, Any], path: str, within: tuple[str, ...] = ()
) -> Iterator[Any]:
    """(path, default) of the plain keys below a section; `within`: sections that hold it."""
    if "$ref" in section:
        name = section["$ref"].rpartition("/")[2]
        if name in within:
            return
        section, within = sections[name], (*within, name)
    for way in [*section.get("anyOf", ()), *section.get("oneOf", ()), *section.get("allOf", ())]:
        yield from defaults(way, sections, path, within)
    if "items" in section:
        yield from defaults(section["items"], sections, f"{path}.*", within)
    for name, key in section.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        yield where, key.get("default")
        yield from defaults(key, sections, where, within)


def table() -> dict[str, float]:
    return {row["key"]: float(row["seconds"]) for row in ROW.finditer(PAGE.read_text())}


def test_every_deadline_is_in_the_table_with_its_default() -> None:
    expected = {key: seconds for key, seconds in keys_in_seconds().items() if key not in NO_WAITS}
    assert table() == expected


@pytest.mark.parametrize("key", sorted(NO_WAITS))
def test_what_is_no_wait_is_named(key: str) -> None:
    assert key in keys_in_seconds() and f"`{key}`" in PAGE.read_text()


def test_no_default_is_longer_than_ten_minutes_without_progress() -> None:
    assert {key for key, seconds in table().items() if seconds > TEN_MINUTES} == set()
