"""Who would sit where: by hand on a few nodes."""

from __future__ import annotations

from cluster.allocations import Allocation, groups_of, placement_recipe, plan_allocations
from cluster.fit import Node, fit, reasons
from mgrpo.config.load import load_recipe


def node(name: str, gpus: int, cpus: int = 64, **labels: str) -> Node:
    return Node(name, {"CPU": cpus, "GPU": gpus}, labels)


def engine(name: str, gpus: int, **labels: str) -> Allocation:
    return Allocation(name, ({"CPU": 1.0, "GPU": float(gpus)},), (1,), labels)


def learner(ranks: int, **labels: str) -> Allocation:
    return Allocation("learner", ({"CPU": 1.0, "GPU": 1.0},) * ranks, (), labels)


def test_every_gpu_of_a_full_node_has_exactly_one_owner() -> None:
    found = fit(
        plan_allocations(placement_recipe(load_recipe("qwen2.5_math_7b")), "cuda"), [node("a", 8)]
    )
    assert found.left_out == []
    taken = [(one.node, gpu) for one in found.placed for gpu in one.gpus]
    assert sorted(taken) == [("a", gpu) for gpu in range(8)]


def test_small_engines_do_not_take_the_room_of_a_wide_one() -> None:
    allocations = [engine("small-0", 1), engine("small-1", 1), engine("wide", 4)]
    found = fit(allocations, [node("a", 4), node("b", 2)])
    assert {one.allocation.name: one.node for one in found.placed} == {
        "wide": "a",
        "small-0": "b",
        "small-1": "b",
    }


def test_an_engine_never_spans_two_nodes() -> None:
    wide = engine("wide", 4)
    nodes = [node("a", 2), node("b", 3)]
    left_out = fit([wide], nodes).left_out
    assert left_out == groups_of([wide])
    assert reasons(left_out[0], nodes) == "one process needs 4 GPU, and no node has more than 3"


def test_a_learner_wider_than_a_node_fills_the_emptiest_first() -> None:
    found = fit([learner(10)], [node("a", 4), node("b", 8)])
    assert [one.node for one in found.placed].count("b") == 8
    assert [one.node for one in found.placed].count("a") == 2


def test_the_learner_takes_the_fullest_node_that_holds_it_whole() -> None:
    found = fit([learner(4)], [node("large", 8), node("small", 4)])
    assert {one.node for one in found.placed} == {"small"}


def test_labels_decide_before_room_does() -> None:
    allocations = [engine("e", 1, role="rollout"), learner(2, role="learner")]
    found = fit(allocations, [node("a", 8, role="learner"), node("b", 1, role="rollout")])
    assert {(one.allocation.name, one.node) for one in found.placed} == {
        ("e", "b"),
        ("learner", "a"),
    }
    alone = [node("a", 8, role="learner")]
    left_out = fit(allocations, alone).left_out
    assert [group.name for group in left_out] == ["e"]
    assert reasons(left_out[0], alone) == "no node has the labels role=rollout"


def test_cpus_count_too() -> None:
    allocation = engine("e", 1)
    nodes = [node("a", 8, cpus=0)]
    left_out = fit([allocation], nodes).left_out
    assert left_out == groups_of([allocation])
    assert reasons(left_out[0], nodes) == "one process needs 1 CPU, and no node has more than 0"


def test_an_allocation_that_finds_no_place_takes_nothing_from_the_others() -> None:
    found = fit([learner(9), engine("e", 1)], [node("a", 8)])
    assert [group.name for group in found.left_out] == ["learner"]
    assert [one.allocation.name for one in found.placed] == ["e"]
    assert "it needs 9 GPU" in reasons(found.left_out[0], [node("a", 8)])
