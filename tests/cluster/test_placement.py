"""Who sits where, with Ray's logical GPUs: no device is needed to count them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
import ray

from cluster import own_ray
from cluster.allocations import placement_recipe, plan_allocations, total
from cluster.placement import Placement
from cluster.runtime import LOOPBACK, this_machine_alone
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ActorDiedError, DeadlineError, PlacementError
from tests.layouts import ENGINES_PER_LAYER

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def eight_gpus() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="mgrpo-ray-") as folder:
        with this_machine_alone():
            ray.init(
                address="local",
                num_cpus=32,
                num_gpus=8,
                include_dashboard=False,
                _temp_dir=folder,
                _node_ip_address=LOOPBACK,
                object_store_memory=80 * 1024 * 1024,
                log_to_driver=False,
            )
        own_ray.remember()
        yield
        own_ray.shut_down()


class Sitter:
    """Tells which GPUs Ray gave it."""

    def gpus(self) -> list[int]:
        return [int(gpu) for gpu in ray.get_gpu_ids()]


class Nothing:
    """Progress that there is none of."""

    def count(self) -> int:
        return 0

    def said(self) -> str:
        return ""


def qwen() -> RunConfig:
    return load_recipe("qwen2.5_math_7b", ENGINES_PER_LAYER)


def taken_gpus(config: RunConfig) -> dict[tuple[str, int], list[int]]:
    """The GPUs that each process of a recipe is given, by allocation and bundle."""
    allocations = plan_allocations(placement_recipe(config), "cuda")
    placement = Placement.reserve(allocations, deadline_s=30, can_grow=False)
    try:
        actors = {
            (allocation.name, bundle): placement.start(
                partial(Sitter),
                allocation=allocation,
                bundle=bundle,
                name=f"{allocation.name}-{bundle}",
                environment={},
            )
            for allocation in allocations
            for bundle in range(len(allocation.bundles))
        }
        return {
            place: actor.submit(Sitter.gpus).result(deadline_s=60, setting="a test")
            for place, actor in actors.items()
        }
    finally:
        placement.release()


def test_layer_one_layer_two_and_the_learner_sit_on_disjoint_gpus(eight_gpus: None) -> None:
    assert total(plan_allocations(placement_recipe(qwen()), "cuda"))["GPU"] == 8
    taken = taken_gpus(qwen())
    everything = [gpu for gpus in taken.values() for gpu in gpus]
    assert sorted(everything) == list(range(8))  # each GPU once: nobody shares
    names = {name for name, _ in taken}
    assert {"learner", "layer1-engine-0", "layer2-engine-0"} <= names


def test_taking_turns_each_engine_is_on_the_gpu_of_its_rank(eight_gpus: None) -> None:
    config = load_recipe("one_gpu", ("engines.num_shared_engines=3", "learner.num_ranks=3"))
    taken = taken_gpus(config)
    for number in range(3):
        assert taken[f"engine-{number}", 0] == taken["learner", number]
    assert len({gpus[0] for gpus in taken.values()}) == 3


def test_an_engine_that_gives_its_allocation_back_leaves_the_others_their_gpus(
    eight_gpus: None,
) -> None:
    allocations = plan_allocations(placement_recipe(load_recipe("one_gpu")), "cuda")
    placement = Placement.reserve(allocations, deadline_s=30, can_grow=False)
    try:
        placement.give_back(allocations[0])
        learner = placement.start(
            partial(Sitter),
            allocation=allocations[1],
            bundle=0,
            name="learner",
            environment={},
        )
        assert len(learner.submit(Sitter.gpus).result(deadline_s=60, setting="a test")) == 1
    finally:
        placement.release()


def test_nodes_are_asked_each_time_anew_and_one_that_does_not_answer_is_named(
    eight_gpus: None,
) -> None:
    (learner, *_), setting = plan_allocations(placement_recipe(qwen()), "cuda"), "a.setting"
    placement = Placement.reserve([learner], deadline_s=30, can_grow=False)
    never = ray.remote(num_cpus=0, resources={"nobody has": 1})(lambda: None).remote()
    (node_id,) = set(placement.node_ids_of(learner))
    try:
        for _ in range(2):
            asked = placement.probes_of(learner)
            assert list(asked.answers) == [node_id]
            placement.await_nodes(learner, deadline_s=60, setting=setting)
            assert asked.count() == 1
            assert not placement.probes
        placement.probes_of(learner).answers = {node_id: never}
        assert not placement.nodes_are_known(learner)
        waits = placement.explain_wait([learner])
        assert f"Neither has {LOOPBACK} answered" in waits and "cannot be placed" not in waits
        with pytest.raises(DeadlineError, match=f"Neither has {LOOPBACK} answered.*{setting}"):
            placement.await_nodes(learner, deadline_s=0.5, setting=setting)
        ray.cancel(never)
        assert placement.node_of(learner) == LOOPBACK
    finally:
        placement.release()


def test_a_run_that_does_not_fit_says_demand_and_supply(eight_gpus: None) -> None:
    tree = qwen().model_dump()
    tree["learner"]["num_ranks"] = 16
    allocations = plan_allocations(placement_recipe(RunConfig.model_validate(tree)), "cuda")
    with pytest.raises(PlacementError) as caught:
        Placement.reserve(allocations, deadline_s=5, can_grow=False)
    message = str(caught.value)
    assert "20 GPU" in message and "8 GPU" in message and "num_ranks" in message


def test_a_cluster_that_may_grow_is_waited_for_and_then_given_up(eight_gpus: None) -> None:
    tree = qwen().model_dump()
    tree["learner"]["num_ranks"] = 16
    allocations = plan_allocations(placement_recipe(RunConfig.model_validate(tree)), "cuda")
    with pytest.raises(PlacementError, match="was not placed within 1 s"):
        Placement.reserve(allocations, deadline_s=1, can_grow=True)


def test_a_shared_pool_serves_every_layer() -> None:
    tree = qwen().model_dump()
    tree["engines"] |= {"shared": True, "num_shared_engines": 3}
    allocations = plan_allocations(placement_recipe(RunConfig.model_validate(tree)), "cpu")
    assert [allocation.layers for allocation in allocations] == [(1, 2), (1, 2), (1, 2), ()]
    assert "GPU" not in total(allocations)


def test_a_local_ray_whose_node_is_lost_is_not_waited_for(eight_gpus: None) -> None:
    """The last one here: it ends Ray's process on the node."""
    (learner, *_), setting = plan_allocations(placement_recipe(qwen()), "cuda"), "a.setting"
    placement = Placement.reserve([learner], deadline_s=30, can_grow=False)
    sitter = placement.start(
        partial(Sitter), allocation=learner, bundle=0, name="sitter", environment={}
    )
    asked = sitter.submit(Sitter.gpus)
    assert len(asked.result(deadline_s=60, setting=setting)) == 1
    assert own_ray.what_is_lost() == ""
    (raylet,) = [one for one in psutil.Process().children() if one.name() == "raylet"]
    raylet.kill()
    raylet.wait(60)
    assert [node["Alive"] for node in ray.nodes()] == [True]  # Ray notices later
    with pytest.raises(PlacementError, match="Ray's raylet has ended, and a local Ray gets no"):
        placement.await_nodes(learner, deadline_s=120, setting=setting)
    asked = sitter.submit(Sitter.gpus)
    assert asked.is_done()
    with pytest.raises(ActorDiedError, match=r"sitter .* Ray's raylet has ended.*to resume"):
        asked.result(deadline_s=120, setting=setting)
    with pytest.raises(ActorDiedError, match="Ray's raylet has ended"):
        asyncio.run(asked.answer(deadline_s=120, setting=setting, progress=Nothing()))
