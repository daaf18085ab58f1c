"""One architecture in a process of its own: a crash or a hang costs one row of the table.

    python -m benchmarks.architectures.measure KEY [--without-engine]

The row is the last line of standard output, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.architectures.zoo import find, save


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("key")
    parser.add_argument("--without-engine", action="store_true")
    args = parser.parse_args()
    os.setpgrp()
    # What is too slow is told to end, and vLLM's processes would outlive this one.
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    from benchmarks.architectures.learner_side import measure_learner
    from benchmarks.workload import byte_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        model_dir = save(find(args.key), Path(folder) / "model")
        byte_tokenizer().save_pretrained(model_dir)
        row = {"learner": measure_learner(model_dir)}
        if row["learner"]["outcome"] != "refused" and not args.without_engine:
            from benchmarks.architectures.engine_side import measure_engine

            row["engine"] = measure_engine(model_dir)
        print(json.dumps(row), flush=True)
        sys.stderr.flush()
    os._exit(0)  # threads of libraries may wait for what never comes


if __name__ == "__main__":
    main()
