import subprocess
import sys
from types import SimpleNamespace

import pytest

from mgrpo.metrics.memory import gpu_memory_gib, run_memory_gib

HOLD = "data = bytearray(64 << 20); print('ready', flush=True); input()"


def test_what_a_child_holds_counts_and_is_gone_with_it():
    before = run_memory_gib()
    assert before is not None and before > 0
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        held = run_memory_gib()
        child.communicate("\n", timeout=60)
    assert held is not None and held - before > 0.05


class FakeNvml:
    """Two GPUs of which 3 and 5 GiB are in use, or no driver."""

    NVMLError = OSError

    def __init__(self, *, has_driver: bool = True) -> None:
        self.has_driver, self.open = has_driver, 0

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(used=(3, 5)[device] << 30)


def test_what_is_in_use_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpu_memory_gib() == [3.0, 5.0]
    assert library.open == 0, "the library is left open"


@pytest.mark.parametrize("library", [None, FakeNvml(has_driver=False)])
def test_without_library_or_driver_no_gpu_is_known(
    monkeypatch: pytest.MonkeyPatch, library: object
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpu_memory_gib() == []
