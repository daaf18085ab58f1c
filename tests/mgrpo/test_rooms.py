"""A process that was started by another one ends with it."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

CHILD = """
import time
from mgrpo.rooms import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_ends_with_its_raylet() -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(1.5)
        assert child.is_running()  # as long as its parent is
        parent.kill()
    child.wait(timeout=30)
