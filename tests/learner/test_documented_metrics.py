"""A plug-in's docstring names the metrics that it adds, all of them and no others."""

from __future__ import annotations

import inspect
import re

import pytest

from mgrpo.methods import docstrings
from mgrpo.methods.docstrings import parts_of
from mgrpo.plugin import entries_of, find_plugin
from tests.learner.method_cases import (
    RECIPES,
    batch_of,
    made_up_step,
    method_configs,
    save_scorer,
)

ELSEWHERE = {"gcpo", "dpo", "dynamic", "error_pool", "correction_buffer"}
"""They read the policy, or pairs, or make a step's work; their own tests run them."""


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return save_scorer(tmp_path_factory.mktemp("scorer"))


def documented(use: str) -> set[str]:
    doc = inspect.cleandoc(find_plugin(use).__doc__ or "")
    return set(docstrings.entries(parts_of(doc).get("Metrics", [])))


def is_named(metric: str, names: set[str]) -> bool:
    """Capitals in a documented name stand for something of the run's own."""
    patterns = [re.sub("[A-Z]+", "[^/]+", re.escape(name)) for name in names]
    return any(re.fullmatch(pattern, metric) for pattern in patterns)


@pytest.mark.parametrize("use", sorted(ELSEWHERE))
def test_what_a_docstring_names_stands_in_the_code(use: str) -> None:
    source = inspect.getsource(inspect.getmodule(find_plugin(use)))
    assert documented(use)
    assert all(f'"{name}"' in source for name in documented(use))


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("gcpo", "veripo")])
def test_metrics_of_a_recipes_plug_ins_are_those_of_their_docstrings(name: str, scorer) -> None:
    named: set[str] = set()
    found: set[str] = set()
    for config in method_configs(name, scorer):
        completions = made_up_step(config)
        entries, _ = entries_of(config.method_view)
        learns = [one for one in entries if one.kind not in ("SOURCES", "SAMPLERS")]
        named |= {metric for entry in learns for metric in documented(entry.name)}
        plain = batch_of(config, completions, plugins=[]).metrics
        found |= set(batch_of(config, completions).metrics) - set(plain)
    assert [metric for metric in sorted(found) if not is_named(metric, named)] == []
    assert [
        one for one in sorted(named) if not any(is_named(metric, {one}) for metric in found)
    ] == []
