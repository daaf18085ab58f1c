import subprocess
import sys

from mgrpo.metrics.memory import run_memory_gib

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
