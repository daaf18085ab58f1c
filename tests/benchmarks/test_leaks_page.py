"""What `make leaks` says of each quantity that a run writes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.leaks import ALLOWED, WARM_UP, growths, page_lines
from benchmarks.machine import machine
from mgrpo.metrics.resources import held, on_disk
from mgrpo.metrics.slopes import BLOCKS

NUM_STEPS = int(4 * BLOCKS / (1 - WARM_UP))


def test_every_quantity_of_a_run_has_a_bound(tmp_path: Path) -> None:
    row = {"step": 0, **held(), **on_disk(tmp_path, ())}
    found = growths([{**row, "step": step} for step in range(NUM_STEPS)])
    assert {name.rpartition("/")[2] for name in found} == ALLOWED.keys()
    assert not any(one["grows"] for one in found.values())


def test_a_quantity_that_grows_is_named_on_the_page() -> None:
    names = ("ray/shared_mib", "temporary_folders/disk_mib", "run_folder/disk_mib")
    rows = [
        {"step": step, **dict.fromkeys(names[:2], 100 + step), names[2]: 100 + step % 2}
        for step in range(NUM_STEPS)
    ]
    found = growths(rows)
    assert [found[name]["grows"] for name in names] == [True, True, False]
    result = {"steps": NUM_STEPS, "growth": found, "left": []}
    result |= {"command": "x", "date": "2026-11-30", **machine()}
    lines = "\n".join(page_lines(result))
    assert "| temporary_folders/disk_mib | +1.0000 ± 0.0000 | 0.1 | yes |" in lines
    assert "| 0.1 | no |" in lines
