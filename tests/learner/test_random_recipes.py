"""Random valid recipes load, and each makes a real update of a tiny policy.

The default suite trains a handful, `make test-methods` many.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.plugin import Plugin, find_plugin, load_plugins
from mgrpo.registry import declared
from tests.learner.method_cases import save_scorer
from tests.learner.random_recipes import NOT_DRAWN, random_tree
from tests.repository import REPOSITORY

NUM_LOADED, NUM_TRAINED, NUM_TRAINED_OF_ALL = 80, 6, 150


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_scorer(tmp_path_factory.mktemp("scorer"))


def trees(scorer: Path, count: int) -> list[dict[str, Any]]:
    return [random_tree(random.Random(number), scorer) for number in range(count)]


def test_every_random_recipe_is_valid_and_its_parts_load(scorer: Path) -> None:
    for tree in trees(scorer, NUM_LOADED):
        config = RunConfig.model_validate(tree)
        assert len(load_plugins(config.method_view, Plugin)) >= len(config.plugins)


def test_random_recipes_reach_every_kind_of_every_slot(scorer: Path) -> None:
    """Otherwise what is never drawn would never be tried."""
    found = trees(scorer, 600)
    names = {
        *(tree["objective"]["loss"]["type"] for tree in found),
        *(tree["objective"]["importance"]["type"] for tree in found),
        *(entry["use"] for tree in found for entry in tree["plugins"]),
        *(
            layer["advantage"]["type"]
            for tree in found
            for layer in tree["layers"]
            if isinstance(layer["advantage"], dict)
        ),
    }
    wanted = {
        name
        for kind in ("ADVANTAGES", "LOSSES", "IMPORTANCE", "PLUGINS")
        for name in declared(kind)
    }
    assert names >= wanted - set(NOT_DRAWN) | {"ppo_clip", "truncate", "group_z", "improvement"}
    parents = {
        layer.get("parents", {}).get("type") for tree in found for layer in tree["layers"][1:]
    }
    assert parents >= {
        *("all", "wrong_only", "wrong_first", "uniform_k", "best", "one_of_each", "rejected")
    }


def test_the_same_seed_gives_the_same_recipe(scorer: Path) -> None:
    assert trees(scorer, 5) == trees(scorer, 5)


def test_a_rule_that_types_do_not_express_is_noticed_when_it_is_broken(scorer: Path) -> None:
    """The check that the generator's recipes pass can fail."""
    broken = 0
    for tree in trees(scorer, NUM_LOADED):
        name = tree["objective"]["loss"]["type"]
        if name not in declared("LOSSES") or not find_plugin(name, "LOSSES").whole_completion:
            continue
        tree["layers"][0]["aggregation"] = "token_mean"
        with pytest.raises(Exception, match="aggregation: seq_mean"):
            load_plugins(RunConfig.model_validate(tree).method_view, Plugin)
        broken += 1
    assert broken > 0


def train(count: int, seed: int, deadline_s: float) -> list[dict[str, Any]]:
    """In a process of its own, since DeepSpeed stays in the one that imports it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.learner.random_recipes"),
            *("--count", str(count), "--seed", str(seed)),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_handful_of_random_recipes_trains() -> None:
    found = train(NUM_TRAINED, seed=0, deadline_s=120)
    assert len(found) == NUM_TRAINED
    assert any(one["grad_norm"] > 0 for one in found)


@pytest.mark.methods
@pytest.mark.timeout(1500)
def test_many_random_recipes_train() -> None:
    found = train(NUM_TRAINED_OF_ALL, seed=1, deadline_s=1400)
    assert len(found) == NUM_TRAINED_OF_ALL
    assert sum(one["grad_norm"] > 0 for one in found) > NUM_TRAINED_OF_ALL / 2
