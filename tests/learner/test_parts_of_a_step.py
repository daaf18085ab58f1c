"""A step in parts has the rows of the whole step, where a recipe's plug-ins say so."""

import random

import numpy as np
import pytest

from learner.batch import build_batch, with_added
from learner.denominators import divisor
from learner.plugins import unbiased_kl
from learner.streaming import streaming_obstacles
from mgrpo.methods.catalog import method_files
from tests.learner.method_cases import (
    made_up_measurements,
    made_up_step,
    method_configs,
    save_scorer,
    started_plugins,
)

WAITING = {
    *(
        "agro",
        "cal_grpo",
        "clip_cov",
        "disco",
        "entropy_bonus",
        "gcpo",
        "gpg",
        "group_dro",
        "kl_cov",
    ),
    *("reinforce_plus_plus", "reinforce_plus_plus_baseline", "s2r", "veripo"),
}
TAKE_SEVERAL_STEPS = {
    *("cispo", "dapo", "gmpo", "gspo", "nthr", "raft_plus_plus", "reinforce_rej", "unlikeliness")
}
ONE_LAYER_AT_A_TIME = {"self_verify", "success_only", "think_twice"}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return save_scorer(tmp_path_factory.mktemp("scorer"))


def rows_of(config, completions, *, is_part):
    plugins = started_plugins(config)
    completions = with_added(completions, (), plugins)
    batch = build_batch(
        completions,
        config.layers,
        config.objective,
        plugins=plugins,
        measurements=made_up_measurements(completions),
        is_part=is_part,
    )
    return {row.completion_id: row for row in batch.rows}, batch.totals


def problems_of(completions):
    trees = {}
    for one in completions:
        trees.setdefault(one.completion_id.split("/")[0], []).append(one)
    return list(trees.values())


@pytest.mark.parametrize("name", sorted(method_files()))
def test_parts_have_the_rows_of_the_whole(name, scorer):
    for config in method_configs(name, scorer):
        if any(streaming_obstacles(config.objective, config.layers, started_plugins(config))):
            continue
        for seed in range(3):
            completions = made_up_step(config, seed=seed)
            whole, _ = rows_of(config, completions, is_part=False)
            trees = problems_of(completions)
            random.Random(seed).shuffle(trees)
            found, totals = {}, {}
            for tree in trees:
                rows, own = rows_of(config, tree, is_part=True)
                found |= rows
                for layer, total in own.items():
                    totals[layer] = totals.get(layer, 0.0) + total
            assert found.keys() == whole.keys()
            for key, row in whole.items():
                assert_same(found[key], row, 1 / divisor(totals[row.layer]))


def assert_same(part, row, factor):
    # ws_grpo's scorer reads in float32, other rows beside it.
    np.testing.assert_allclose(part.advantages, row.advantages, rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(part.token_weights * factor, row.token_weights, rtol=1e-7)
    assert (part.entropy_weights is None) == (row.entropy_weights is None)
    if part.entropy_weights is not None:
        np.testing.assert_allclose(part.entropy_weights * factor, row.entropy_weights, rtol=1e-7)
    assert part.columns.keys() == row.columns.keys()
    for name, column in part.columns.items():  # some hold token weights
        scale = factor if name == unbiased_kl.FACTORS else 1.0
        np.testing.assert_allclose(column * scale, row.columns[name], rtol=1e-7)


def test_who_waits_for_the_whole_step(scorer):
    waiting = {
        name
        for name in method_files()
        for config in method_configs(name, scorer)
        if any(streaming_obstacles(config.objective, config.layers, started_plugins(config)))
    }
    assert waiting == WAITING | TAKE_SEVERAL_STEPS | ONE_LAYER_AT_A_TIME
