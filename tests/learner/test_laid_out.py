"""Micro-batches are laid out one ahead of what computes; tails of metrics need no whole columns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from learner.packing import collate
from learner.rows import TrainingRow, text
from learner.trainer import LaidOut
from learner.update_metrics import gap_metrics

DEADLINE_S = 10


class Reader:
    """Lays rows out as a `PolicyReader` does, and tells which were."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.laid_out: list[int] = []
        self.began = [threading.Event() for _ in range(3)]

    def collated(self, rows: Sequence[TrainingRow]) -> Any:
        number = len(self.laid_out)
        if number == self.fails_at:
            raise ValueError("no such token")
        self.laid_out.append(len(rows))
        self.began[number].set()
        return collate(rows, merge_prefixes=True)


ROWS = [text([1, 2], [3] * length) for length in (1, 2, 3, 4)]
PLAN = [[2, 3], [0], []]


def test_each_is_laid_out_while_the_one_before_it_computes() -> None:
    reader: Any = Reader()
    sizes = []
    for number, microbatch in enumerate(LaidOut(reader, ROWS, PLAN)):
        if number + 1 < len(PLAN):  # without being asked for
            assert reader.began[number + 1].wait(DEADLINE_S)
        assert len(reader.laid_out) <= number + 2  # and no further ahead
        sizes.append(microbatch.num_trained_tokens)
    assert sizes == [7, 1, 0]


def test_they_can_be_gone_through_again() -> None:
    class Endless(Reader):
        def collated(self, rows: Sequence[TrainingRow]) -> Any:
            return collate(rows, merge_prefixes=True)

    reader: Any = Endless()
    laid_out = LaidOut(reader, ROWS, PLAN)
    for _ in range(2):
        assert [one.num_trained_tokens for one in laid_out] == [7, 1, 0]


def test_what_goes_wrong_while_laying_out_ends_the_pass() -> None:
    reader: Any = Reader(fails_at=1)
    seen = []
    with pytest.raises(ValueError, match="no such token"):
        seen += [one.num_trained_tokens for one in LaidOut(reader, ROWS, PLAN)]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000])
def test_the_tail_of_the_gaps_is_that_of_all_of_them(count: int) -> None:
    gaps = torch.rand(count, generator=torch.Generator().manual_seed(count))
    ordered = gaps.sort().values
    assert gap_metrics(gaps) == {
        "mismatch/logprob_gap_p99": (float(ordered[min(int(0.99 * count), count - 1)]), 1.0),
        "mismatch/logprob_gap_max": (float(ordered[-1]), 1.0),
    }
