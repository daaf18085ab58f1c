"""Allocations on a real Ray cluster of four nodes with logical GPUs, and `mgrpo check --address` on
it.

head        4 CPUs, no GPU
learner    16 CPUs, 8 GPUs, role: learner
rollout    16 CPUs, 8 GPUs, role: rollout, twice
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.local_cluster import LocalCluster, local_cluster
from tests.layouts import ENGINES_PER_LAYER

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
MEMORY = {"object_store_memory": 80 * 2**20}
LEARNER_NODE, ROLLOUT_NODES = "127.0.0.3", {"127.0.0.4", "127.0.0.5"}
ROLES = ["cluster.engine_nodes.labels.role=rollout", "cluster.learner_nodes.labels.role=learner"]
TURNS = ["cluster.colocate=true", "engines.shared=true", "learner.zero_stage=2"]
SOON = "cluster.deadlines.placement_s=5"
RECIPES = {
    "by role": [*ROLES, "learner.num_ranks=8"],
    "wide engines": [*ROLES, "learner.num_ranks=8", "engines.tensor_parallel_size=4"],
    "learner of a whole node": ["learner.num_ranks=8"],
    "learner over two nodes": ["learner.num_ranks=12"],
    "taking turns": [*TURNS, "learner.num_ranks=12", "engines.num_shared_engines=12"],
    "too wide": ["engines.tensor_parallel_size=9", SOON],
    "too many": [*ROLES, "layers.1.num_engines=15", SOON],
    "no such label": ["cluster.learner_nodes.labels.role=teacher", SOON],
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    gpus = {"num_cpus": 16, "num_gpus": 8, **MEMORY}
    with local_cluster(
        [
            {"num_cpus": 4, "num_gpus": 0, **MEMORY},
            {**gpus, "labels": {"role": "learner"}},
            {**gpus, "labels": {"role": "rollout"}},
            {**gpus, "labels": {"role": "rollout"}},
        ]
    ) as running:
        yield running


@pytest.fixture(scope="module")
def outcomes(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """What came of each recipe, by its name above."""
    driver = ROOT / "tests" / "cluster" / "placement_driver.py"
    done = subprocess.run(
        [sys.executable, str(driver), cluster.gcs_address, json.dumps(list(RECIPES.values()))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=cluster.environment(RAY_AUTH_MODE="token", PYTHONPATH=str(ROOT)),
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(RECIPES, map(json.loads, lines), strict=True))


def owned(outcome: dict[str, Any]) -> list[tuple[str, int]]:
    """(node, GPU) of every process; a GPU that two have stands twice."""
    assert "places" in outcome, outcome
    return [(node, gpu) for _, _, node, gpus in outcome["places"] for gpu in gpus]


def nodes_of(outcome: dict[str, Any], allocation: str) -> list[str]:
    return [node for name, _, node, _ in outcome["places"] if name.startswith(allocation)]


OWN_GPUS = [name for name in RECIPES if RECIPES[name][-1] != SOON and name != "taking turns"]


@pytest.mark.parametrize("name", OWN_GPUS)
def test_nobody_shares_a_gpu(outcomes, name: str) -> None:
    taken = owned(outcomes[name])
    assert len(taken) == len(set(taken)) >= 12


def test_labels_put_the_learner_and_the_engines_on_their_own_nodes(outcomes) -> None:
    outcome = outcomes["by role"]
    assert nodes_of(outcome, "learner") == [LEARNER_NODE] * 8
    assert set(nodes_of(outcome, "layer")) <= ROLLOUT_NODES


def test_a_tensor_parallel_engine_is_on_one_node_with_all_its_gpus(outcomes) -> None:
    outcome = outcomes["wide engines"]
    engines = [place for place in outcome["places"] if place[0].startswith("layer")]
    assert [len(gpus) for _, _, _, gpus in engines] == [4] * 4
    assert sorted(nodes_of(outcome, "layer")) == sorted([*ROLLOUT_NODES, *ROLLOUT_NODES])


def test_small_engines_leave_a_whole_node_to_the_learner(outcomes) -> None:
    assert len(set(nodes_of(outcomes["learner of a whole node"], "learner"))) == 1


def test_a_learner_wider_than_a_node_takes_two_and_no_more(outcomes) -> None:
    assert len(set(nodes_of(outcomes["learner over two nodes"], "learner"))) == 2


def test_taking_turns_every_engine_is_on_the_gpu_of_its_rank(outcomes) -> None:
    places = outcomes["taking turns"]["places"]
    ranks = {bundle: (node, gpus) for name, bundle, node, gpus in places if name == "learner"}
    engines = {int(name.split("-")[1]): (node, gpus) for name, _, node, gpus in places[:12]}
    assert engines == ranks
    taken = owned(outcomes["taking turns"])
    assert len(taken) == 24 and len(set(taken)) == 12
    assert len({node for node, _ in taken}) == 2


def test_what_does_not_fit_says_demand_supply_and_labels(outcomes) -> None:
    message = outcomes["too wide"]["error"]
    assert "was not placed within 5 s" in message
    assert "layer1-engine-0: 1 CPU, 9 GPU" in message
    assert "127.0.0.4: 16 CPU, 8 GPU with role=rollout" in message
    assert "16 x" not in message and "tensor_parallel_size" in message
    too_many = outcomes["too many"]["error"]
    assert "layer2-engine-14: 1 CPU, 1 GPU on nodes with role=rollout" in too_many
    assert "on nodes with role=teacher" in outcomes["no such label"]["error"]


def check(cluster: LocalCluster, *arguments: str) -> tuple[int, str]:
    """`mgrpo check --address` from outside."""
    command = [sys.executable, "-m", "mgrpo", "check", "qwen2.5_math_7b"]
    command += [*ENGINES_PER_LAYER, *ROLES, *arguments]
    done = subprocess.run(
        [*command, "--address", cluster.url],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=cluster.environment(HF_HUB_OFFLINE="1"),
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_check_finds_a_place_for_everything_on_the_live_cluster(cluster) -> None:
    code, said = check(cluster, "learner.num_ranks=8")
    assert code == 0, said
    assert "has 4 nodes: 1 x (4 CPU); 1 x (16 CPU, 8 GPU with role=learner)" in said
    assert "every process can be placed: 8 on 127.0.0.3" in said


def test_check_says_what_is_missing_and_that_nothing_will_come(cluster) -> None:
    code, said = check(cluster, "learner.num_ranks=9")
    assert code == 2
    assert "learner (9 x (1 CPU, 1 GPU) on nodes with role=learner): it needs 9 GPU" in said
    assert "autoscaler: none was found here" in said


def test_check_says_what_the_autoscaler_may_bring(cluster) -> None:
    file = str(ROOT / "cluster" / "aws.yaml")
    many = ["layers.1.num_engines=9", "engines.tensor_parallel_size=2"]
    code, said = check(cluster, "learner.num_ranks=8", *many, "--cluster", file)
    assert "cannot be placed" in said and code == 2  # 11 engines of 2 GPUs on 4 nodes of 4
    fewer = ["layers.1.num_engines=6", "engines.tensor_parallel_size=2"]
    code, said = check(cluster, "learner.num_ranks=8", *fewer, "--cluster", file)
    assert code == 0 and "every process can be placed" in said  # 8 x 2 GPUs are here already
    code, said = check(
        cluster,
        "learner.num_ranks=8",
        "cluster.engine_nodes.labels={role: rollout, ray.io/market-type: spot}",
        "--cluster",
        file,
    )
    assert code == 0, said
    assert "it can add the missing resources: 1 x learner, 1 x rollout" in said


def test_check_waits_no_longer_than_it_is_told(cluster) -> None:
    code, said = check(cluster, "learner.num_ranks=9", "--wait-s", "3")
    assert code == 2 and "missing" in said
