"""A process that was started by another one ends with it."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

CHILD = """
import subprocess, time
from mgrpo.rooms import end_with_parent
end_with_parent()
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
command = [sys.executable, "-c", sys.argv[1]]
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
print(child.pid, child.stdout.readline(), flush=True)
time.sleep(600)
"""


def test_a_worker_ends_with_its_raylet_and_what_it_has_started_with_it() -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        time.sleep(1.5)
        assert all(one.is_running() for one in started)  # as long as their parent is
        parent.kill()
    assert psutil.wait_procs(started, timeout=30)[1] == []
