"""cluster/aws.yaml and cluster/gcp.yaml against Ray's own schema, its code, and our allocations."""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from cluster.allocations import placement_recipe, plan_allocations
from cluster.fit import fit
from cluster.node_types import all_nodes, read_cluster_file
from mgrpo.config.load import load_recipe
from mgrpo.plan.gpus import RAY_NAMES
from tests.layouts import ENGINES_PER_LAYER

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "cluster" / name for name in ("aws.yaml", "gcp.yaml")]
GUIDE = (ROOT / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")
ON_ROLES = (
    "cluster.engine_nodes.labels.role=rollout",
    "cluster.learner_nodes.labels.role=learner",
    "learner.num_ranks=8",
)
each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


def read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


@each_file
def test_ray_accepts_the_file_with_its_defaults_filled_in(file: Path) -> None:
    config = prepare_config(copy.deepcopy(read(file)))
    validate_config(config)
    assert config["available_node_types"]["head"]["max_workers"] == 0
    seen = AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs()
    assert seen["rollout"].labels["role"] == "rollout"  # by autoscaler v2


@each_file
@pytest.mark.parametrize(
    "damage",
    [
        lambda config: config.update(idle_timeout="5"),
        lambda config: config["available_node_types"]["rollout"].update(spot=True),
        lambda config: config["available_node_types"]["rollout"]["resources"].update(GPU=0.5),
        lambda config: config.update(head_node_type="nobody"),
        lambda config: config.update(max_workers=1),
    ],
)
def test_ray_would_notice_what_is_wrong(file: Path, damage: Any) -> None:
    config = prepare_config(copy.deepcopy(read(file)))
    damage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(config)


@each_file
def test_the_head_has_no_gpu_and_takes_no_actor(file: Path) -> None:
    head = read_cluster_file(file)[0]
    assert head.is_head and head.resources == {"CPU": 0, "GPU": 0}


@each_file
def test_the_learner_stays_and_rollout_nodes_are_spot_and_come_and_go(file: Path) -> None:
    types = {t.name: t for t in read_cluster_file(file)}
    assert types["learner"].min_count == types["learner"].max_count == 1
    assert 1 <= types["rollout"].min_count < types["rollout"].max_count
    assert types["rollout"].labels["ray.io/market-type"] == "spot"
    bought = str(read(file)["available_node_types"]["rollout"]["node_config"]).lower()
    assert "spot" in bought
    assert "spot" not in str(read(file)["available_node_types"]["learner"]).lower()
    assert read(file)["max_workers"] == types["learner"].max_count + types["rollout"].max_count


@each_file
def test_the_papers_recipe_has_a_place_on_its_nodes_by_role(file: Path) -> None:
    allocations = plan_allocations(
        placement_recipe(load_recipe("qwen2.5_math_7b", ON_ROLES)), "cuda"
    )
    found = fit(allocations, all_nodes(read_cluster_file(file), grown=False))
    assert found.left_out == []
    types = {one.allocation.name: one.node.rsplit("-", 1)[0] for one in found.placed}
    assert types.pop("learner") == "learner"
    assert set(types.values()) == {"rollout"}


@each_file
def test_as_many_engines_as_the_nodes_may_hold_fit_when_grown_and_no_more(file: Path) -> None:
    rollout = next(t for t in read_cluster_file(file) if t.name == "rollout")
    most = int(rollout.max_count * rollout.resources["GPU"])
    nodes = all_nodes(read_cluster_file(file), grown=True)
    for count, is_left_out in ((most - 2, False), (most - 1, True)):
        config = load_recipe(
            "qwen2.5_math_7b", (*ENGINES_PER_LAYER, *ON_ROLES, f"layers.1.num_engines={count}")
        )
        assert (
            bool(fit(plan_allocations(placement_recipe(config), "cuda"), nodes).left_out)
            is is_left_out
        )


@each_file
def test_every_gpu_type_is_one_that_plans_know(file: Path) -> None:
    for node_type in read_cluster_file(file)[1:]:
        assert node_type.labels["ray.io/accelerator-type"] in RAY_NAMES


@each_file
def test_an_empty_node_waits_longer_than_anything_a_run_waits_for(file: Path) -> None:
    deadlines = load_recipe("qwen2.5_math_7b").cluster.deadlines
    longest = max(deadlines.engine_start_s, deadlines.weight_sync_s, deadlines.generate_s)
    assert read(file)["idle_timeout_minutes"] * 60 > longest


@each_file
def test_nobody_joins_without_the_token(file: Path) -> None:
    config = read(file)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if " start " in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0]
    assert "--address=$RAY_HEAD_IP:6379" in starts[1]


@each_file
def test_a_job_finds_python_where_the_commands_install_it(file: Path) -> None:
    config = read(file)
    copied = next(remote for remote in config["file_mounts"] if "auth_token" not in remote)
    for command in (*config["head_setup_commands"], *config["worker_setup_commands"]):
        assert f"cp -a {copied}/. ~/mgrpo-installed/ && cd ~/mgrpo-installed &&" in command
        assert "scripts/setup.sh --extra " in command
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "PATH=~/mgrpo-installed/.venv/bin:$PATH" in config[key][1]


@each_file
def test_everything_to_fill_in_is_explained_in_the_guide(file: Path) -> None:
    found = set(re.findall(r"REPLACE_[A-Z_]+", file.read_text(encoding="utf-8")))
    assert found
    assert {name for name in found if name not in GUIDE} == set()


def test_the_guide_asks_for_the_nodes_as_these_tests_do() -> None:
    assert all(override in GUIDE for override in ON_ROLES)


@each_file
def test_the_head_has_what_its_autoscaler_imports(file: Path) -> None:
    (command,) = read(file)["head_setup_commands"]
    assert command.endswith("install -q --no-deps -r requirements/extras.txt")


@pytest.mark.cluster
@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_the_launchers_needs_are_enough_to_import_the_provider(provider: str) -> None:
    """`make test-cluster` installs requirements/extras.txt, as the head does."""
    for module in ("config", "node_provider"):
        importlib.import_module(f"ray.autoscaler._private.{provider}.{module}")
