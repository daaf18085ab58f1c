"""What counts as progress of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.progress_board import PROGRESS_BYTES, Progress, ProgressBoard


def test_each_piece_of_work_is_progress() -> None:
    board = ProgressBoard()
    before = board.read()
    board.did("a forward pass")
    board.did("a forward pass")
    after = board.read()
    assert after.is_after(before) and after.doing == "a forward pass"
    assert board.count() == 2
    assert board.said() == "Nothing moved in that time (last: a forward pass)."


@pytest.mark.parametrize(("more", "is_progress"), [(0, False), (1000, False), (1 << 20, True)])
def test_a_mebibyte_read_or_written_is_progress_and_the_lines_of_a_log_are_not(
    more: int, is_progress: bool
) -> None:
    before = Progress(3, "writing its state", 500)
    assert PROGRESS_BYTES == 1 << 20
    assert Progress(3, "writing its state", 500 + more).is_after(before) is is_progress


def test_bytes_of_files_are_counted(tmp_path: Path) -> None:
    board = ProgressBoard()
    before = board.read()
    (tmp_path / "shard").write_bytes(bytes(2 * PROGRESS_BYTES))
    assert board.read().is_after(before)
