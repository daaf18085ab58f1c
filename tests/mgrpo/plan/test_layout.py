"""A machine's GPUs or cores decide what a recipe leaves open; it is said and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.allocations import placement_recipe, plan_allocations, total
from mgrpo.check.recipe_warnings import warnings_of
from mgrpo.cli import main
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import ConfigError
from mgrpo.plan import layout
from mgrpo.plan.arithmetic import gpus_wanted
from mgrpo.plan.build import make_plan
from mgrpo.plan.hardware import named_hardware
from mgrpo.plan.layout import Cores, laid_out, laid_out_here, pooled
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.shape import find_shape

QUICKSTART = load_recipe("quickstart")


def gpus_of(config: RunConfig) -> float:
    return total(plan_allocations(placement_recipe(config), "cuda")).get("GPU", 0)


@pytest.mark.parametrize(
    ("gpus", "allocations", "said"),
    [
        (1, ["engine-0, learner"], "1 GPU where the recipe requests 3"),
        (2, ["engine-0", "learner"], "2 GPUs where the recipe requests 3"),
        (3, ["layer1-engine-0", "layer2-engine-0", "learner"], "3 in all"),
        (4, ["layer1-engine-0", "layer2-engine-0", "learner", ""], "3 in all"),
    ],
)
@pytest.mark.parametrize("gpu", ["RTX4090-24GB", "T4-16GB", "H100-80GB", "DESKTOP-8GB"])
def test_the_quickstart_has_a_plan_for_as_many_gpus_as_there_are(
    gpu: str, gpus: int, allocations: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "quickstart", "--gpus", f"{gpus}x{gpu}"]) == 0
    printed = capsys.readouterr().out
    assert said in printed and "layout: " in printed
    config, _ = laid_out(QUICKSTART, gpus)
    plan = make_plan(plan_recipe(config), find_shape("default"), named_hardware(f"{gpus}x{gpu}", 1))
    assert [row.allocation for row in plan.rows] == allocations
    assert not plan.fails


def test_on_two_gpus_the_pool_is_not_advised_to_become_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["plan", "quickstart", "--gpus", "2xRTX4090-24GB"])
    assert "or use engines.shared" not in capsys.readouterr().out


def test_a_plan_for_a_cluster_lays_nothing_out_as_the_run_there_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "quickstart", "--gpus", "1xL4", "--nodes", "2"]) == 2
    assert "layout:" not in capsys.readouterr().out
    assert main(["plan", "quickstart", "--gpus", "1xL4", "--nodes", "3"]) == 0


def test_turns_bring_all_the_keys_that_they_need() -> None:
    config, said = laid_out(QUICKSTART, 1)
    assert config.cluster.takes_turns and config.engines.shared
    assert (config.learner.num_ranks, config.learner.zero_stage) == (1, 2)
    assert config.engines.pool.min == 1
    assert "in turn (cluster.colocate)" in said
    assert not [one for one in warnings_of(config) if "num_engines" in one]


@given(
    gpus=st.integers(0, 12),
    ranks=st.integers(1, 4),
    engines=st.integers(1, 3),
    ways=st.integers(1, 2),
)
def test_whatever_is_decided_fits_wherever_anything_can(
    gpus: int, ranks: int, engines: int, ways: int
) -> None:
    config = load_recipe(
        "quickstart",
        [
            f"learner.num_ranks={ranks}",
            f"layers.solve.num_engines={engines}",
            f"engines.tensor_parallel_size={ways}",
        ],
    )
    try:
        decided, said = laid_out(config, gpus)
    except ConfigError as error:
        assert ways == 2 and 0 < gpus < ranks + ways
        assert "engines.tensor_parallel_size = 2" in str(error)
        return
    assert decided.cluster.colocate is not None and decided.cluster.colocate != "auto"
    assert bool(said) == (gpus > 0)
    assert gpus == 0 or gpus_of(decided) <= gpus
    assert gpus_wanted(placement_recipe(decided)) == gpus_of(decided)
    if gpus >= gpus_of(config):
        assert decided.model_dump(exclude={"cluster"}) == config.model_dump(exclude={"cluster"})
    assert laid_out(decided, gpus) == (decided, "")  # once is enough


def test_a_recipe_that_decides_for_itself_stays_as_it_is() -> None:
    for value in ("true", "false"):
        config = load_recipe("one_gpu", ["cluster.colocate=false"] if value == "false" else [])
        assert laid_out(config, 1) == (config, "")


def test_a_key_that_forbids_turns_is_named() -> None:
    config = load_recipe("quickstart", ["weights.backend=nccl"])
    with pytest.raises(ConfigError, match=r"colocate: auto.*\n.*weights\.backend = nccl"):
        laid_out(config, 1)
    assert laid_out(config, 2)[0].weights.backend == "nccl"


def test_an_evaluation_counts_engines_only() -> None:
    config, said = laid_out(QUICKSTART, 1, with_learner=False)
    assert config.engines.shared and not config.cluster.takes_turns
    assert "1 GPU where the recipe requests 2" in said
    assert not laid_out(QUICKSTART, 2, with_learner=False)[0].engines.shared
    wide = load_recipe("quickstart", ["engines.tensor_parallel_size=2"])
    with pytest.raises(ConfigError, match=r"engines\.tensor_parallel_size = 2"):
        laid_out(wide, 1, with_learner=False)


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int, build: str) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(layout, "local_gpus", lambda: gpus)
    monkeypatch.setattr(layout, "installed_build", lambda: build)


@pytest.mark.parametrize(
    ("gpus", "build", "turns"),
    [(1, "cuda", True), (1, "cpu", False), (0, "cuda", False), (3, "cuda", False)],
)
def test_the_machine_of_the_run_decides(
    monkeypatch: pytest.MonkeyPatch, gpus: int, build: str, turns: bool
) -> None:
    machine(monkeypatch, gpus=gpus, build=build)
    config, _ = laid_out_here(QUICKSTART)
    assert config.cluster.colocate is turns


def test_on_a_cluster_everybody_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=1, build="cuda")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    config, said = laid_out_here(QUICKSTART)
    assert config.cluster.colocate is False and said == ""


def test_check_and_train_say_what_was_decided_and_the_run_records_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, gpus=1, build="cuda")
    monkeypatch.setattr("mgrpo.plan.arithmetic.local_gpus", lambda: 1)
    monkeypatch.setattr("mgrpo.plan.arithmetic.installed_build", lambda: "cuda")
    trained: list[Any] = []

    def record(config: RunConfig, run_dir: Path, **keys: Any) -> None:
        trained.append(config)

    monkeypatch.setattr("mgrpo.training.run.run_training", record)
    arguments = ["quickstart", f"output.runs_dir={tmp_path}", "data.train.size=40"]
    assert main(["check", *arguments]) == 0
    assert "1 GPU where the recipe requests 3" in " ".join(capsys.readouterr().out.split())
    assert main(["train", *arguments]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 GPU where the recipe requests 3" in said
    assert "1 GPU: an engine and a learner rank on each, in turn" in said
    (config,) = trained
    save_recipe(config, tmp_path / "config.yaml")
    assert load_recipe(tmp_path / "config.yaml") == config
    assert "colocate: true" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "cores", "memory_gib", "engines", "threads"),
    [
        ([], 2, 16, 2, 1),
        ([], 1, 16, 1, 1),
        ([], 64, 500, 8, 8),  # 512 corrections in a step, 64 for each engine
        ([], 64, 13, 3, 21),  # half of the memory, and an engine takes 2 GiB
        (["engines.num_threads=4"], 16, 500, 4, 4),
        (["engines.num_shared_engines=3"], 64, 500, 3, 21),
        (["engines.shared=true"], 2, 16, 2, 1),
        (["prompts_per_step=2"], 2, 16, 1, 2),  # 64 corrections
    ],
)
def test_on_a_cpu_one_pool_has_as_many_engines_as_cores_memory_and_work_allow(
    settings: list[str], cores: int, memory_gib: float, engines: int, threads: int
) -> None:
    config, said = pooled(load_recipe("quickstart", settings), Cores(cores, memory_gib))
    assert config.engines.shared is True
    assert (config.engines.pool.min, config.engines.pool.max) == (engines, engines)
    assert f"{engines} engine" in said and f"{threads} thread" in said
    assert not [one for one in warnings_of(config) if "engines" in one]
    assert pooled(config, Cores(cores + 2, memory_gib)) == (config, "")  # as recorded


@pytest.mark.parametrize(
    "settings",
    [
        ["engines.shared=false"],
        ["engines.shared=true", "engines.num_shared_engines=1"],
        ["layers.solve.num_engines=2"],
        ["layers.solve.num_engines={min: 1, max: 2}"],
    ],
)
def test_a_recipe_with_pools_of_its_own_keeps_them_on_a_cpu(settings: list[str]) -> None:
    config = load_recipe("quickstart", settings)
    assert pooled(config, Cores(8, 64)) == (config, "")


def test_cores_decide_only_where_no_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=3, build="cuda")
    assert not laid_out_here(QUICKSTART)[0].engines.shared
    monkeypatch.setattr(layout, "local_gpus", lambda: 0)
    config, said = laid_out_here(QUICKSTART)
    assert config.engines.shared and "for all layers (engines.shared)" in said


def test_a_model_that_is_not_there_is_left_to_its_own_check(tmp_path: Path) -> None:
    config = load_recipe("quickstart", [f"model.path={tmp_path / 'missing'}"])
    assert pooled(config, Cores(2, 16))[0].engines.pool.min == 2
