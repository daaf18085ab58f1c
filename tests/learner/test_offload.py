"""What a rank holds of its GPU."""

from __future__ import annotations

import pytest
import torch

from learner.offload import StateOffload


def test_the_peak_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = StateOffload(None, [], torch.device("cuda", 0))
    peaks = [3 << 30]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[-1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.append(1 << 30))
    assert gpu.take_peak() == {"memory/learner_peak_gib": (3.0, 1.0)}
    assert gpu.take_peak() == {"memory/learner_peak_gib": (1.0, 1.0)}


def test_a_rank_without_a_gpu_has_no_peak() -> None:
    assert StateOffload(None, [], torch.device("cpu")).take_peak() == {}
