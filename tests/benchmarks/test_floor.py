"""The arithmetic that a step is compared with, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.floor import forward_flops, mean_context
from benchmarks.workload import PROFILES

SMOKE = PROFILES["smoke"]  # 2 layers, hidden 64, intermediate 128, 259 tokens in the vocabulary


def test_a_token_costs_two_operations_a_weight_and_four_a_token_it_reads() -> None:
    weights = 2 * (4 * 64 * 64 + 3 * 64 * 128) + 64 * 259
    assert forward_flops(SMOKE, 10, 0) == 10 * 2 * weights
    assert forward_flops(SMOKE, 10, 7) - forward_flops(SMOKE, 10, 0) == 10 * 2 * 4 * 64 * 7


def test_the_mean_context_counts_each_layer_s_completions() -> None:
    assert mean_context(SMOKE, [40]) == 40 + 12.5
    chain = replace(SMOKE, num_corrections=4)
    assert mean_context(chain, [40, 100]) == pytest.approx((40 + 4 * 100) / 5 + 12.5)
