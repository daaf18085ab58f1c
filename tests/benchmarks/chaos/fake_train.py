"""Stands in for `mgrpo train`: writes the prepared records of a run.

    python fake_train.py RUN_DIR PREPARED.json

It goes on after the steps that are there, waits for its end when it first comes to some of them,
and leaves a child behind, as PREPARED says.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

WAIT_S = 60


def main() -> int:
    run_dir, prepared = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    (run_dir / "rollouts").mkdir(parents=True, exist_ok=True)
    metrics = run_dir / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if prepared["leaves_child"]:
        subprocess.Popen(["sleep", str(WAIT_S)], start_new_session=True)
    for step, rows in enumerate(prepared["rollouts"][done:], start=done):
        first_time = run_dir / f"came-to-{step}"
        if step in prepared["waits_at"] and not first_time.exists():
            first_time.touch()
            time.sleep(WAIT_S)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (run_dir / "rollouts" / f"step-{step:06d}.jsonl").write_text(text)
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "layer1/accuracy": 0.5}) + "\n")
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
