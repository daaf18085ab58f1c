from __future__ import annotations

import pytest
import torch

from cluster.weight_sync.checksum import tensor_checksum


def test_hand_worked() -> None:
    # (5 + 1) * 1 + (7 + 1) * 2
    assert tensor_checksum(torch.tensor([5, 7], dtype=torch.int32)) == 22


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_a_copy_has_the_same_checksum_and_any_change_another(dtype: torch.dtype) -> None:
    tensor = torch.arange(60).to(dtype).reshape(6, 10)
    assert tensor_checksum(tensor.clone()) == tensor_checksum(tensor)
    changed = tensor.clone()
    changed[3, 4] += 1
    assert tensor_checksum(changed) != tensor_checksum(tensor)


def test_moved_elements_and_swapped_rows_show() -> None:
    tensor = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert tensor_checksum(tensor.flip(0)) != tensor_checksum(tensor)
    assert tensor_checksum(tensor.t()) != tensor_checksum(tensor)


def test_memory_layout_does_not_matter() -> None:
    tensor = torch.randn(8, 16)
    assert tensor_checksum(tensor.t().contiguous().t()) == tensor_checksum(tensor)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(1000)
    whole = tensor_checksum(tensor)
    monkeypatch.setattr("cluster.weight_sync.checksum.CHUNK_ELEMENTS", 7)
    assert tensor_checksum(tensor) == whole


def test_minus_zero_is_not_zero() -> None:
    assert tensor_checksum(torch.tensor([0.0])) != tensor_checksum(torch.tensor([-0.0]))
