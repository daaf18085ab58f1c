from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from cluster.monitoring.catalogue import FAMILIES, names
from cluster.monitoring.names import Family, Names
from tests.contracts.sources import ROOMS, ROOT, python_files, shown, tree_of

RECORDED = ROOT / "tests" / "mgrpo" / "metrics" / "recorded_quickstart.json"
VALID_NAME = re.compile(r"[a-z][a-z0-9_]*")
METRIC = re.compile(r"[a-z]\w*(/\w+)+")


@pytest.mark.parametrize(
    ("metric", "name", "tags"),
    [
        ("layer2/accuracy", "mgrpo_layer_accuracy", {"layer": "2"}),
        (
            "layer1/domain/leg_counting/accuracy",
            "mgrpo_layer_domain_accuracy",
            {"layer": "1", "domain": "leg_counting"},
        ),
        ("transition/layer3/delta", "mgrpo_transition_delta", {"layer": "3"}),
        ("transition/all/delta", "mgrpo_transition_delta", {"layer": "all"}),
        (
            "transition/all/domain/a/b/pairs",
            "mgrpo_transition_domain_pairs",
            {"layer": "all", "domain": "a/b"},
        ),
        ("heldout/layer2/accuracy", "mgrpo_heldout_layer_accuracy", {"layer": "2"}),
        ("seconds/layer2", "mgrpo_seconds_layer", {"layer": "2"}),
        ("seconds/update", "mgrpo_seconds", {"phase": "update"}),
        ("rewards/timeout", "mgrpo_rewards", {"status": "timeout"}),
        ("policy_version", "mgrpo_policy_version", {}),
    ],
)
def test_what_differs_is_a_tag_and_the_rest_is_the_name(metric, name, tags):
    family, found = names().resolve(metric)
    assert (family.name, found) == (name, tags)
    assert set(family.tags) == set(tags)


def test_a_metric_that_nobody_described_is_named_by_the_same_rule():
    family, tags = names().resolve("brief/layer2/bonus-mean")
    assert (family.name, family.tags, tags) == (
        "mgrpo_brief_layer_bonus_mean",
        ("layer",),
        {"layer": "2"},
    )
    family, tags = names().resolve("brief/bonus")
    assert (family.name, family.tags, tags) == ("mgrpo_brief_bonus", ("layer",), {"layer": ""})


def test_a_strange_metric_does_not_take_a_known_name_with_other_tags():
    family, tags = names().resolve("learner/loss!")
    assert (family.name, tags) == ("mgrpo_other_learner_loss", {"layer": ""})


def test_the_first_family_that_fits_wins():
    rule = Names([Family("a/b", "", ""), Family("a/{word}", "", "")])
    assert rule.resolve("a/b")[0].pattern == "a/b"
    assert rule.resolve("a/c") == (rule.families[1], {"word": "c"})
    assert rule.known("a/b/c") is None


def test_names_are_what_prometheus_takes_and_each_has_one_set_of_tags():
    assert [f.name for f in FAMILIES if not VALID_NAME.fullmatch(f.name)] == []
    assert [name for name, count in Counter(f.name for f in FAMILIES).items() if count > 1] == []


def test_every_row_says_what_it_means_and_in_which_unit():
    for family in FAMILIES:
        assert family.unit and family.meaning.endswith("."), family.pattern


def test_every_metric_of_a_recorded_run_is_in_the_table():
    rule = names()
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert [metric for metric in recorded if rule.known(metric) is None] == []


def test_every_metric_that_the_code_names_is_in_the_table():
    rule = names()
    files = [path for path in python_files(*ROOMS) if path.parent.name != "monitoring"]
    found = {(shown(path), name) for path in files for name in emitted(path)}
    assert len(found) > 40  # the search finds what it is there to find
    unknown = sorted(f"{path}: {name}" for path, name in found if rule.known(name) is None)
    assert not unknown, "no row in cluster/monitoring/catalogue.py:\n" + "\n".join(unknown)


def emitted(path: Path) -> set[str]:
    """Metrics that a file writes: `x.metrics["a/b"] = …`, `sums.add("a/b", …)`, `{"a/b": …}`.

    What an f-string puts in is replaced by 1, which fits a layer, a domain and a name.
    """
    written = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Attribute) and node.value.attr == "metrics":
                written.add(text_of(node.slice))
        elif isinstance(node, ast.Dict):
            written |= {text_of(key) for key in node.keys if key is not None}
        elif isinstance(node, ast.DictComp):
            written.add(text_of(node.key))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            holder = ast.unparse(node.func.value)
            if node.func.attr in ("add", "add_total") and holder.endswith("sums") and node.args:
                written.add(text_of(node.args[0]))
    return {name for name in written if METRIC.fullmatch(name)}


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values
    )
