"""The benchmark of one GPU: its arithmetic, and all of its parts with a tiny policy on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as bench
from benchmarks.gpu.device import known_gpu
from benchmarks.gpu.learner_part import FORMS, step_of, without_shared_prefixes
from benchmarks.gpu.sizes import SIZES, WORKLOADS, fit, shape_by_name, update_flops
from benchmarks.learner_update import Work

GIB = 2**30
NO_HURRY = ("--budget", "1000")


@pytest.mark.parametrize(
    ("reported", "gib", "name"),
    [
        ("NVIDIA H200", 139, "H200-141GB"),
        ("NVIDIA H100 80GB HBM3", 79, "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 39, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79, "A100-80GB"),
        ("NVIDIA GeForce RTX 4090", 24, "RTX4090-24GB"),
        ("NVIDIA RTX A6000", 48, "A6000-48GB"),
        ("Tesla T4", 15, "T4-16GB"),
        ("NVIDIA L40S", 45, "L40S-48GB"),
        ("NVIDIA L40", 45, None),
        ("NVIDIA T400", 4, None),
    ],
)
def test_a_gpu_is_known_by_its_driver_s_name(reported: str, gib: int, name: str | None) -> None:
    found = known_gpu(reported, gib * GIB)
    assert (found.name if found else None) == name


def test_what_does_not_fit_is_said_by_arithmetic() -> None:
    small, large = (
        fit(size, "bfloat16", microbatch_tokens=16_384, free_bytes=79 * GIB)
        for size in ("0.5B", "8B")
    )
    assert not small.fault and small.learner["gradient_checkpointing"] is False
    assert "optimizer" in large.fault and "79.0 GiB" in large.fault
    # weights, float32 gradients, master weights and two moments: 18 bytes of each of 8.03e9
    assert large.memory.total > 18 * 8.03e9


def test_an_update_s_arithmetic_is_that_worked_by_hand() -> None:
    shape = shape_by_name("tiny")
    completions = step_of(Work(prompts=1, groups=(2,), tokens=3))
    prompt = len(completions[0].prompt_token_ids)
    # q, k, v, o: 64 x (64 + 2 x 32 + 64); gate, up, down: 3 x 64 x 128; two layers
    weights = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)
    head = 6 * 6 * 512 * 64

    def pairs(start: int, end: int) -> int:
        return sum(range(start + 1, end + 1))

    own = update_flops(shape, completions, is_shared=False)
    row = prompt + 2
    assert own["tokens"] == 2 * row
    assert own["flops"] == 6 * 2 * row * weights + head + 12 * 2 * 64 * 2 * pairs(0, row)
    shared = update_flops(shape, completions, is_shared=True)
    nodes = prompt + 4
    seen = pairs(0, prompt) + 2 * pairs(prompt, row)
    assert shared["tokens"] == nodes
    assert shared["flops"] == 6 * nodes * weights + head + 12 * 2 * 64 * seen


def test_packed_rows_share_nothing_and_every_row_of_the_step_trains() -> None:
    work = WORKLOADS["cpu"].work
    completions = step_of(work)
    alone = without_shared_prefixes(completions)
    shape = shape_by_name("tiny")
    tokens = [update_flops(shape, alone, is_shared=one)["tokens"] for one in (True, False)]
    assert tokens[0] == tokens[1]
    for group in {one.group_key for one in completions}:
        rewards = {one.reward.value for one in completions if one.group_key == group and one.reward}
        assert rewards == {0.0, 1.0}


@pytest.mark.parametrize("device", WORKLOADS)
def test_every_policy_has_tokens_for_the_step_s_rows(device: Any) -> None:
    rows = len(step_of(WORKLOADS[device].work))
    assert all(rows + 3 <= SIZES[size]["vocab_size"] for size in WORKLOADS[device].sizes)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert bench.main(["--device", "cpu", "--rounds", "1", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_without_time_every_part_is_left_out_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = run(capsys, "--budget", "9")
    assert found["parts"] == {} and found["ratios"] == {}
    assert set(found["left_out"]) == {
        "learner tiny bfloat16",
        "learner tiny float32",
        "TRL tiny bfloat16",
        "MGRPO step",
    }
    assert all("s are left" in reason for reason in found["left_out"].values())


def test_a_policy_that_does_not_fit_is_left_out_before_anything_is_allocated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"name": "small", "free_bytes": GIB // 1024, "data_sheet_tflops": None}
    monkeypatch.setattr(bench, "described", lambda _: facts)
    found = run(capsys, "--only", "learner")
    assert found["parts"] == {}
    assert all("0.0 GiB that are free" in reason for reason in found["left_out"].values())


@pytest.mark.parametrize(
    ("only", "tolerances"),
    [
        ("learner tiny float32", {"float32": 1e-5}),
        # The same in another type, and a ratio that test_ratios_are_of_the_learner_s_tree has too.
        pytest.param("learner", {"float32": 1e-5, "bfloat16": 1e-2}, marks=pytest.mark.slow),
    ],
)
def test_the_learner_s_forms_make_the_same_update(
    capsys: pytest.CaptureFixture[str], only: str, tolerances: dict[str, float]
) -> None:
    found = run(capsys, "--only", only, *NO_HURRY)
    assert found["left_out"] == {}
    for dtype, tolerance in tolerances.items():
        forms = found["parts"][f"learner tiny {dtype}"]["forms"]
        assert set(forms) == set(FORMS)
        norm = forms["tree"]["grad_norm"]
        assert norm > 0.1
        for form in ("streamed", "padded"):  # packed rows begin with other tokens
            assert forms[form]["grad_norm"] == pytest.approx(norm, rel=tolerance)
        assert forms["packed"]["computed_tokens"] > 2 * forms["tree"]["computed_tokens"]
        assert all(one["peak_bytes"] > 0 and one["mfu"] is None for one in forms.values())
    of_types = {"float32 over bfloat16"} if len(tolerances) > 1 else set()
    of_forms = {"streamed over tree", "packed over tree", "padded over tree"}
    assert set(found["ratios"]) == of_forms | of_types
    assert not found["is_meaningful"]


def test_trl_s_loss_runs_on_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        bench.trl_python()
    except bench.LeftOut as reason:
        pytest.skip(str(reason))
    found = run(capsys, "--only", "TRL", *NO_HURRY)
    assert found["left_out"] == {}
    assert found["parts"]["TRL tiny bfloat16"]["seconds"] > 0


def test_ratios_are_of_the_learner_s_tree() -> None:
    def part(seconds: float, mfu: float | None) -> dict[str, Any]:
        forms = {name: {"seconds": seconds, "mfu": mfu} for name in FORMS}
        return {"forms": {**forms, "padded": {"seconds": 3 * seconds, "mfu": mfu}}}

    found = bench.ratios(
        {
            "learner 0.5B bfloat16": part(2.0, 0.4),
            "learner 0.5B float32": part(8.0, None),
            "TRL 0.5B bfloat16": {"seconds": 5.0},
            "MGRPO step": {"step_s": 1.0},
        }
    )
    assert found["padded over tree"] == {"0.5B bfloat16": 3.0, "0.5B float32": 3.0}
    assert found["TRL over tree"] == {"0.5B bfloat16": 2.5}
    assert found["float32 over bfloat16"] == {"0.5B": 4.0}
    assert found["MFU, tree"] == {"0.5B bfloat16": 0.4}


def test_what_a_part_measured_before_it_was_ended_is_kept(tmp_path: Path) -> None:
    program = "import sys, time; open(sys.argv[2], 'w').write('{}'); time.sleep(60)"
    whole = bench.Bench("cpu", {}, 1, tmp_path, 0.0)
    command = [bench.sys.executable, "-c", program]
    found = bench.run_child(whole, "a part", command, {}, deadline_s=2.0)
    assert "not done after 2 s" in found["ended"]


@pytest.mark.slow
def test_a_step_of_mgrpo_runs_with_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "--only", "MGRPO", *NO_HURRY)
    assert found["left_out"] == {}
    step = found["parts"]["MGRPO step"]
    assert step["order"] == "streamed" and step["tokens_per_s"] > 0
