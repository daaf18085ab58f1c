"""Whole plans: placement, refusals, warnings, and the command's output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plan.assessment import HOST_OPTIMIZER
from mgrpo.plan.build import Plan, make_plan
from mgrpo.plan.gpus import KNOWN, parse_gpus
from mgrpo.plan.hardware import file_hardware, named_hardware
from mgrpo.plan.memory import GIB
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.shape import find_shape, parse_parameters, qwen25_shape, shape_like
from mgrpo.plan.show import plan_text
from tests.layouts import ENGINES_PER_LAYER
from tests.repository import REPOSITORY

ROLES = (
    "cluster.engine_nodes.labels.role=rollout",
    "cluster.learner_nodes.labels.role=learner",
)


def plan_of(gpus: str, *overrides: str, nodes: int = 1, size: str = "7B") -> Plan:
    config = load_recipe("qwen2.5_math_7b", [*ENGINES_PER_LAYER, *overrides])
    return make_plan(plan_recipe(config), qwen25_shape(size), named_hardware(gpus, nodes))


def said(plan: Plan, status: str) -> str:
    return "\n".join(f"{line.name}: {line.detail}" for line in plan.lines if line.status == status)


def test_the_papers_setting_fits_on_eight_h100() -> None:
    plan = plan_of("8xH100-80GB")
    assert not plan.fails, said(plan, "fail")
    assert [row.allocation for row in plan.rows].count("learner") == 4
    assert all(row.allocation and 0 < row.used_bytes < row.memory_bytes for row in plan.rows)
    assert sorted(row.gpu for row in plan.rows) == list(range(8))


def test_a_learner_that_does_not_fit_says_what_is_largest() -> None:
    plan = plan_of("8xA100-40GB", "learner.gradient_checkpointing=false")
    assert plan.fails
    assert "does not fit" in said(plan, "fail")
    assert "activations are the largest item: use gradient_checkpointing" in said(plan, "fail")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "problems train while others are sampled"),
        (("pipeline.max_staleness_steps=1",), "the next step is sampled while one trains"),
        (
            ("pipeline.max_staleness_steps=2", "pipeline.new_weights=between_groups"),
            "the next 2 steps are sampled while one trains",
        ),
        (
            ("objective.minibatches=2", "layers.correct.group_by=batch"),
            "the learner waits for a whole step: objective.minibatches: 2 takes several steps on "
            "one rollout; layers.1.group_by: batch compares corrections of different problems",
        ),
        (
            ("plugins=[{use: agro}]",),
            "the learner waits for a whole step: Agro looks at all problems of a step",
        ),
    ],
)
def test_the_plan_says_what_streams_and_why_a_step_waits(
    overrides: tuple[str, ...], words: str
) -> None:
    assert f"pipeline: {words}" in said(plan_of("8xH100-80GB", *overrides), "ok")


def test_a_lower_stage_that_does_not_fit_asks_for_a_higher_one() -> None:
    plan = plan_of("8xH100-80GB", "learner.zero_stage=1", "learner.microbatch_tokens=4096")
    assert "raise learner.zero_stage" in said(plan, "fail")


def test_weights_that_leave_no_cache_are_refused() -> None:
    plan = plan_of("8xL40S", size="32B")
    assert "KV cache: does not fit" in said(plan, "fail")
    assert "tensor_parallel_size" in said(plan, "fail")


def turns_of(gpus: str, *overrides: str) -> Plan:
    config = load_recipe("one_gpu", overrides)
    return make_plan(plan_recipe(config), qwen25_shape("1.5B"), named_hardware(gpus, 1))


def test_a_gpu_that_two_have_in_turn_is_as_full_as_its_fullest_turn() -> None:
    plan = turns_of("1xH100-80GB")
    assert not plan.fails, said(plan, "fail")
    (row,) = plan.rows
    assert (row.allocation, row.role) == (
        "engine-0, learner",
        "samples solve and correct, rank 0 of 1",
    )
    assert plan.turns is not None
    samples, updates, travels = plan.turns.items
    assert samples.num_bytes == plan.engine.use.total + GIB  # the learner's context stays
    assert updates.num_bytes == plan.learner.total + 2 * GIB  # an engine's context and graphs
    assert travels.num_bytes < updates.num_bytes < samples.num_bytes == row.used_bytes
    assert "turns: at most" in said(plan, "ok") and "while the engine samples" in said(plan, "ok")
    assert "each GPU in turn, at its peak" in plan_text(plan)
    assert not any(line.name == "balance" for line in plan.lines)


def test_turns_that_do_not_fit_say_which_one() -> None:
    plan = turns_of("1xL4")
    assert plan.fails
    assert "while the learner updates. Its optimizer is the largest item" in said(plan, "fail")
    assert "while the engine samples. Lower engines.gpu_memory" in said(
        turns_of("1xH100-80GB", "engines.gpu_memory_utilization=1.0"), "fail"
    )


def test_advice_is_about_the_gpus_that_there_are() -> None:
    alone, two = (said(turns_of(f"{n}xRTX4090-24GB"), "fail") for n in (1, 2))
    assert "keep the optimizer in host memory" in alone and "keep the optimizer" in two
    assert "num_ranks" not in alone and "zero_stage" not in alone
    assert "or raise learner.num_ranks and engines.num_shared_engines together" in two


def test_what_the_advice_says_makes_1_5b_fit_on_24_gb() -> None:
    plan = turns_of("1xRTX4090-24GB", HOST_OPTIMIZER)
    assert not plan.fails, said(plan, "fail")
    # 16 bytes of each of 1.5437e9 parameters; weights of 2.9 GiB take 4 of pinned memory.
    size = plan.shape.num_parameters
    assert f"{16 * size / GIB + 4:.1f} GiB of host memory" in said(plan, "ok")


def test_two_gpus_in_turn_hold_a_rank_and_an_engine_each() -> None:
    plan = turns_of("2xH100-80GB", "engines.num_shared_engines=2", "learner.num_ranks=2")
    assert [row.allocation for row in plan.rows] == ["engine-0, learner", "engine-1, learner"]
    assert [row.role.split(", ")[1] for row in plan.rows] == ["rank 0 of 2", "rank 1 of 2"]
    size = plan.shape.num_parameters
    assert size == 1_543_714_304
    # Weights of 2.9 GiB take 4 of pinned memory; master copy and two moments, shared out, 2.9 each.
    assert f"{2 * (4 + 3 * 4):.1f} GiB of host memory per machine" in said(plan, "ok")
    short = turns_of("1xH100-80GB", "engines.num_shared_engines=2", "learner.num_ranks=2")
    assert "colocated (2 x (2 CPU, 1 GPU)) cannot be placed" in said(short, "fail")


def test_too_few_gpus_name_the_allocation_and_what_to_change() -> None:
    plan = plan_of("4xH100-80GB", "learner.num_ranks=6")
    assert "learner (6 x (1 CPU, 1 GPU)) cannot be placed" in said(plan, "fail")
    assert "Lower learner.num_ranks" in said(plan, "fail")


def test_an_engine_wider_than_a_node_is_refused() -> None:
    plan = plan_of("4xH100-80GB", "engines.tensor_parallel_size=7", nodes=8)
    assert "one process needs 7 GPU, and no node has more than 4" in said(plan, "fail")


def test_ways_that_do_not_divide_the_heads_are_refused() -> None:
    plan = plan_of("8xH100-80GB", "engines.tensor_parallel_size=3", nodes=3)
    assert "does not divide 28 attention heads. Nearest valid value: 2" in said(plan, "fail")


def test_gpus_without_bfloat16_are_refused() -> None:
    assert "no bfloat16" in said(plan_of("8xV100-32GB"), "fail")


def test_gpus_without_work_are_a_warning() -> None:
    assert "2 of 10 GPUs stay idle" in said(plan_of("10xH100-80GB"), "warn")


def test_ranks_spread_unevenly_over_nodes_are_a_warning() -> None:
    plan = plan_of("8xH100-80GB", "learner.num_ranks=10", nodes=2)
    assert "spread unevenly over nodes (2 + 8)" in said(plan, "warn")


def test_a_cache_too_small_for_what_is_asked_is_a_warning() -> None:
    plan = plan_of("8xA10G", "learner.num_ranks=4", "engines.gpu_memory_utilization=0.95")
    assert "if all are long" in said(plan, "warn")


def test_a_learner_that_mostly_waits_is_a_warning() -> None:
    plan = plan_of(
        "32xH100-80GB",
        "learner.num_ranks=28",
        "learner.microbatch_tokens=4096",
        "layers.correct.group_size=2",
    )
    assert "learner would be busy for about" in said(plan, "warn")


def test_elastic_engines_say_what_they_may_take() -> None:
    plan = plan_of("8xH100-80GB", "layers.correct.num_engines={min: 2, max: 6}")
    assert "may grow by 4 engines, which need 4 GPUs more" in said(plan, "ok")


def test_a_recipe_for_cpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="runs on CPUs"):
        plan_of("8xH100-80GB", "cluster.device=cpu")


def test_the_table_has_a_row_per_gpu_and_every_item_its_formula() -> None:
    text = plan_text(plan_of("8xH100-80GB"))
    assert text.count("layer1-engine-") == 2 and text.count("rank ") >= 4
    assert "2 bytes x parameters / 4 ranks" in text
    assert "32 prompts x 8 = 256 completions" in text


def test_the_table_says_which_layers_are_drafted() -> None:
    text = plan_text(plan_of("8xH100-80GB", "layers.correct.speculation={max_draft_tokens: 5}"))
    (solve, correct) = (line for line in text.splitlines() if "tokens sampled" in line)
    assert correct.endswith(", drafted up to 5 at a time") and "drafted" not in solve


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("8xH100-80GB", 8, "H100-80GB"),
        ("H200", 1, "H200-141GB"),
        ("2xa100-40GB", 2, "A100-40GB"),
        ("4xNEW-96GB", 4, "NEW-96GB"),
    ],
)
def test_gpus_are_named_by_kind_and_memory(text: str, count: int, name: str) -> None:
    found, gpu = parse_gpus(text)
    assert (found, gpu.name) == (count, name)


def test_an_unknown_gpu_counts_its_memory_and_has_no_times() -> None:
    assert parse_gpus("4xNEW-96GB")[1].memory_bytes == 96 * 10**9
    assert plan_of("8xNEW-96GB").own is None


@pytest.mark.parametrize("text", ["A100", "8x", "0xH100", "FOO", "8 H100", "xH100"])
def test_other_words_for_gpus_are_refused_with_those_known(text: str) -> None:
    with pytest.raises(ConfigError, match="H100-80GB"):
        parse_gpus(text)


def test_known_gpus_hold_about_what_their_names_say() -> None:
    for gpu in KNOWN.values():
        gb = int(gpu.name.rsplit("-", 1)[1].removesuffix("GB"))
        assert 0.9 * gb * 10**9 < gpu.memory_bytes < 1.1 * gb * 10**9, gpu.name


def test_a_size_alone_takes_the_nearest_shape() -> None:
    assert parse_parameters("7.6B") == 7_600_000_000 and parse_parameters("500m") == 500_000_000
    shape = shape_like(8_000_000_000)
    assert "shaped like Qwen2.5-7B" in shape.source and shape.num_parameters == 8_000_000_000
    with pytest.raises(ConfigError, match="not a size"):
        parse_parameters("big")


def test_the_shape_of_a_shipped_model_is_read_and_counted() -> None:
    shape = find_shape("default")
    config = json.loads((REPOSITORY / "mgrpo/models/default/config.json").read_text())
    assert shape.hidden == config["hidden_size"] and shape.num_layers == config["num_hidden_layers"]
    assert 0.5e6 < shape.num_parameters < 1.5e6


@pytest.mark.parametrize("file", ["aws.yaml", "gcp.yaml", "kuberay/raycluster.yaml"])
def test_a_cluster_file_is_planned_with_its_labels(file: str) -> None:
    config = load_recipe("qwen2.5_math_7b", (*ENGINES_PER_LAYER, *ROLES, "learner.num_ranks=8"))
    plan = make_plan(
        plan_recipe(config),
        qwen25_shape("7B"),
        file_hardware(str(REPOSITORY / "cluster" / file), None),
    )
    assert not plan.fails, said(plan, "fail")
    assert {row.node for row in plan.rows if row.allocation == "learner"} == {"learner-0"}
    assert {row.node for row in plan.rows if "engine" in row.allocation} == {"rollout-0"}


def test_nodes_that_have_to_be_brought_are_named() -> None:
    config = load_recipe(
        "qwen2.5_math_7b",
        (*ENGINES_PER_LAYER, *ROLES, "learner.num_ranks=8", "layers.correct.num_engines=6"),
    )
    hardware = file_hardware(str(REPOSITORY / "cluster/aws.yaml"), None)
    plan = make_plan(plan_recipe(config), qwen25_shape("7B"), hardware)
    assert not plan.fails
    assert "has to add rollout-1" in said(plan, "ok")
    assert {row.node for row in plan.rows} == {"learner-0", "rollout-0", "rollout-1"}


def test_more_than_the_autoscaler_may_bring_fails() -> None:
    config = load_recipe(
        "qwen2.5_math_7b",
        (*ENGINES_PER_LAYER, *ROLES, "learner.num_ranks=8", "layers.correct.num_engines=16"),
    )
    hardware = file_hardware(str(REPOSITORY / "cluster/aws.yaml"), None)
    plan = make_plan(plan_recipe(config), qwen25_shape("7B"), hardware)
    assert "layer2-engine-" in said(plan, "fail")


def test_the_command_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from mgrpo.cli import main; "
        "code = main(['plan', 'qwen2.5_math_7b', '--gpus', '8xH100-80GB', '--parameters', '7.6B']);"
        "print([m for m in ('torch', 'ray', 'transformers', 'vllm') if m in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=240
    )
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr


def test_the_command_writes_json_and_exits_with_2_where_something_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    arguments = ["plan", "qwen2.5_math_7b", "--parameters", "32B", "--json", "--gpus"]
    assert main([*arguments, "8xL40S"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is False and len(told["gpus"]) == 8
    assert told["learner_rank"]["total_bytes"] == sum(
        item["num_bytes"] for item in told["learner_rank"]["items"]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "a plan needs GPUs to plan for"),
        (["--gpus", "8xFOO"], "is not a known GPU"),
        (["--gpus", "8xH100", "--nodes", "0"], "must be 1 or more"),
        (["--cluster", "none.yaml"], "cannot be read"),
        (["--cluster", "cluster/aws.yaml", "--nodes", "2"], "the cluster file states the number"),
        (["--gpus", "8xH100"], "Or give its size: --parameters 7B"),
    ],
)
def test_what_the_command_cannot_use_is_said(
    arguments: list[str], expected: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("mgrpo.plan.shape.is_hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["plan", "qwen2.5_math_7b", *arguments]) != 0
    assert expected in capsys.readouterr().err


def test_a_cluster_file_that_names_no_gpu_asks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "available_node_types: {head: {resources: {GPU: 8, CPU: 8}, node_config: {}}}\n"
        "head_node_type: head\n"
    )
    with pytest.raises(ConfigError, match="does not name its GPU"):
        file_hardware(str(file), None)
    assert file_hardware(str(file), "H100").gpus["head-0"].name == "H100-80GB"
