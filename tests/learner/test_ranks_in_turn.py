"""A run whose ranks and ZeRO stage are others after each stop, against one that never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.learner.builders import save_tiny_llama
from tests.learner.rank_worker import whole_state
from tests.learner.test_deepspeed_learner import free_port
from tests.repository import REPOSITORY

DEADLINE_S = 240.0
CHAINS = {
    "float32": [(1, 2), (2, 2), (4, 3), (1, 0)],
    "bfloat16": [(1, 1), (2, 2), (4, 1), (3, 3)],
}
"""Numbers of ranks and ZeRO stages, one update each."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run_ranks(
    folder: Path, num_ranks: int, zero_stage: int, dtype: str, first: int, last: int
) -> None:
    port = free_port()
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.learner.ranks_in_turn", str(rank)),
                *map(str, (num_ranks, port, folder, zero_stage, dtype, first, last)),
            ],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        said = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * num_ranks, "\n".join(said)


@pytest.mark.parametrize("dtype", CHAINS)
def test_a_run_goes_through_other_ranks_and_stages(tmp_path: Path, dtype: str) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    for folder in (whole, moved):
        for model in ("tiny", "reference"):
            save_tiny_llama(folder / model)
    chain = CHAINS[dtype]
    run_ranks(whole, *chain[0], dtype, 0, len(chain))
    for step, (num_ranks, zero_stage) in enumerate(chain):
        run_ranks(moved, num_ranks, zero_stage, dtype, step, step + 1)
    expected, found = (whole_state(one / f"state-{len(chain)}") for one in (whole, moved))
    assert expected.keys() == found.keys()
    begun = whole_state(moved / "state-1")
    for name, value in expected.items():
        if not isinstance(value, torch.Tensor):
            assert found[name] == value == {"step": float(len(chain))}
            continue
        assert not torch.equal(found[name], begun[name])
        if dtype == "float32":
            assert_close(found[name], value, rtol=0, atol=float(value.abs().max()) * 1e-5, msg=name)
    if dtype == "bfloat16":  # other ranks sum in another order what it rounds
        others = tmp_path / "others"
        for model in ("tiny", "reference"):
            save_tiny_llama(others / model)
        run_ranks(others, 2, 2, dtype, 0, len(chain))
        rounded = distances(expected, whole_state(others / f"state-{len(chain)}"))
        for kind, distance in distances(expected, found).items():
            assert distance < 2 * rounded[kind], (kind, distance, rounded[kind])


def distances(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, float]:
    """Of the weights and of each state of the optimizer: the norm of the difference, relative, as a
    mean over the weights."""
    kinds: dict[str, list[float]] = {}
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            distance = float((found[name] - value).norm() / value.norm())
            kinds.setdefault(name.split()[0], []).append(distance)
    return {kind: sum(each) / len(each) for kind, each in kinds.items()}
