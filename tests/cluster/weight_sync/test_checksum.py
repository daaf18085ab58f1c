from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.weight_sync import checksum
from cluster.weight_sync.checksum import tensor_checksum, two_way_sums

WORDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tensors have many rows, a whole chunk and an unfinished one, and a rest."""
    monkeypatch.setattr(checksum, "ROW_WORDS", 4)
    monkeypatch.setattr(checksum, "CHUNK_ROWS", 3)


def test_sums_by_hand() -> None:
    rows, columns = two_way_sums(torch.tensor([[1, 2, 3], [10, 20, 2**63 - 1]]))
    assert rows.tolist() == [6, 30 - 2**63 - 1]  # 2**63 + 29 wraps around
    assert columns.tolist() == [11, 22, -(2**63) + 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_a_copy_has_the_same_checksum_and_any_change_another(dtype: torch.dtype) -> None:
    tensor = torch.arange(60).to(dtype).reshape(6, 10)
    assert tensor_checksum(tensor.clone()) == tensor_checksum(tensor)
    changed = tensor.clone()
    changed[3, 4] += 1
    assert tensor_checksum(changed) != tensor_checksum(tensor)


@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 250])
def test_every_single_flipped_bit_shows(size: int) -> None:
    tensor = torch.randint(0, 256, (size,), generator=torch.Generator().manual_seed(size))
    data = tensor.to(torch.uint8)
    right = tensor_checksum(data)
    for place in range(size):
        for bit in range(8):
            data[place] ^= 1 << bit
            assert tensor_checksum(data) != right, (place, bit)
            data[place] ^= 1 << bit


@settings(deadline=None)
@given(WORDS, st.data())
def test_two_words_that_change_places_show(values: list[int], data: st.DataObject) -> None:
    first, second = (data.draw(st.integers(0, len(values) - 1)) for _ in range(2))
    assume(values[first] != values[second])
    swapped = list(values)
    swapped[first], swapped[second] = values[second], values[first]
    assert tensor_checksum(torch.tensor(swapped)) != tensor_checksum(torch.tensor(values))


@settings(deadline=None)
@given(WORDS, st.data())
def test_any_two_changed_words_show(values: list[int], data: st.DataObject) -> None:
    changed = list(values)
    for _ in range(2):
        changed[data.draw(st.integers(0, len(values) - 1))] = data.draw(
            st.integers(-(2**63), 2**63 - 1)
        )
    is_same = tensor_checksum(torch.tensor(changed)) == tensor_checksum(torch.tensor(values))
    assert is_same == (changed == values)


def test_moved_elements_and_swapped_rows_show() -> None:
    tensor = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert tensor_checksum(tensor.flip(0)) != tensor_checksum(tensor)
    assert tensor_checksum(tensor.t()) != tensor_checksum(tensor)
    assert tensor_checksum(tensor.roll(1)) != tensor_checksum(tensor)


def test_numbers_that_differ_in_their_highest_bits_alone_show_where_they_are() -> None:
    """Weighted sums modulo 2**64 lose these: a difference of 2**55 at a distance of 512."""
    tensor = torch.zeros(2048)
    tensor[1] = 1.0
    assert tensor_checksum(tensor.roll(1024)) != tensor_checksum(tensor)


def test_zeros_that_are_missing_show() -> None:
    sizes = [0, 1, 8, 31, 32, 33, 64]
    assert len({tensor_checksum(torch.zeros(size, dtype=torch.uint8)) for size in sizes}) == 7


def test_memory_layout_does_not_matter() -> None:
    tensor = torch.randn(8, 16)
    assert tensor_checksum(tensor.t().contiguous().t()) == tensor_checksum(tensor)


@pytest.mark.parametrize("offset", [1, 2, 4, 8])
def test_a_tensor_within_a_packed_buffer_has_its_own_checksum(offset: int) -> None:
    """Also where its words do not begin at a word of the buffer."""
    tensor = torch.randn(33)
    buffer = torch.zeros(200, dtype=torch.uint8)
    buffer[offset : offset + 132] = tensor.view(torch.uint8)
    assert tensor_checksum(buffer[offset : offset + 132]) == tensor_checksum(tensor)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(1000)
    whole = tensor_checksum(tensor)
    monkeypatch.setattr(checksum, "CHUNK_ROWS", 1000)
    assert tensor_checksum(tensor) == whole


def test_minus_zero_is_not_zero() -> None:
    assert tensor_checksum(torch.tensor([0.0])) != tensor_checksum(torch.tensor([-0.0]))


@pytest.mark.gpu
def test_a_gpu_finds_the_same_number() -> None:
    tensor = torch.randn(1001)
    assert tensor_checksum(tensor.cuda()) == tensor_checksum(tensor)
