"""What a recipe asks for, without Ray."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cluster.allocations import (
    PlacementRecipe,
    groups_of,
    has_labels,
    packing_order,
    placement_recipe,
    plan_allocations,
    resource_text,
)
from mgrpo.config.cluster import NodesConfig
from mgrpo.config.load import load_recipe
from tests.layouts import ENGINES_PER_LAYER

ROLES = (
    "cluster.engine_nodes.labels.role=rollout",
    "cluster.learner_nodes.labels.role=learner",
)


def qwen(*overrides: str) -> PlacementRecipe:
    return placement_recipe(load_recipe("qwen2.5_math_7b", [*ENGINES_PER_LAYER, *overrides]))


def test_an_engine_is_one_bundle_with_all_its_gpus() -> None:
    engine = groups_of(plan_allocations(qwen("engines.tensor_parallel_size=4"), "cuda"))[0]
    assert engine.bundles == ({"CPU": 1.0, "GPU": 4.0},)
    assert engine.strategy == "STRICT_PACK"


def test_the_learner_is_one_bundle_per_rank_packed_together() -> None:
    learner = groups_of(plan_allocations(qwen(), "cuda"))[-1]
    assert learner.has_learner
    assert learner.bundles == ({"CPU": 1.0, "GPU": 1.0},) * 4
    assert learner.strategy == "PACK"


def test_labels_and_custom_resources_go_to_their_own_kind_of_allocation() -> None:
    allocations = plan_allocations(qwen(*ROLES, "cluster.engine_nodes.resources.slot=2"), "cuda")
    assert {allocation.labels["role"] for allocation in allocations[:-1]} == {"rollout"}
    assert allocations[0].bundles == ({"CPU": 1.0, "GPU": 1.0, "slot": 2.0},)
    assert groups_of(allocations)[-1].label_selectors == [{"role": "learner"}] * 4
    assert "slot" not in allocations[-1].bundles[0]


def test_without_labels_any_node_will_do() -> None:
    groups = groups_of(plan_allocations(qwen(), "cuda"))
    assert all(group.label_selectors is None for group in groups)


def test_what_needs_most_of_one_node_is_taken_first() -> None:
    allocations = plan_allocations(
        qwen("engines.tensor_parallel_size=2", "learner.num_ranks=3"), "cuda"
    )
    assert [group.name for group in packing_order(groups_of(allocations))] == [
        "learner",  # 3 GPUs, then the engines with 2 each
        "layer1-engine-0",
        "layer1-engine-1",
        "layer2-engine-0",
        "layer2-engine-1",
    ]


@pytest.mark.parametrize(
    ("wanted", "labels", "fits"),
    [
        ("spot", {"market": "spot"}, True),
        ("spot", {"market": "on-demand"}, False),
        ("spot", {}, False),
        ("!spot", {"market": "on-demand"}, True),
        ("!spot", {}, True),
        ("!spot", {"market": "spot"}, False),
        ("in(spot, reserved)", {"market": "reserved"}, True),
        ("in(spot,reserved)", {"market": "on-demand"}, False),
        ("!in(spot,reserved)", {"market": "on-demand"}, True),
        ("!in(spot,reserved)", {"market": "spot"}, False),
    ],
)
def test_label_selectors_follow_rays_rules(wanted: str, labels: Any, fits: bool) -> None:
    assert has_labels({"market": wanted}, labels) is fits


@pytest.mark.parametrize("value", ["", "in()", "a b", "!!spot", "in(a,)"])
def test_a_label_that_is_no_selector_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        NodesConfig(labels={"role": value})


def test_resources_are_said_without_rays_bookkeeping() -> None:
    found = {"GPU": 8.0, "CPU": 64.0, "memory": 1e11, "node:10.0.0.1": 1.0, "slot": 2.0}
    assert resource_text(found) == "64 CPU, 8 GPU, 2 slot"
    assert resource_text({"memory": 1e11}) == "nothing"


def test_an_allocation_says_what_it_asks_for() -> None:
    learner = plan_allocations(qwen(*ROLES), "cuda")[-1]
    assert str(learner) == "4 x (1 CPU, 1 GPU) on nodes with role=learner"
