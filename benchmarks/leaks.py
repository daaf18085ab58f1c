"""Does a run hold more with every step? Memory, shared memory, files and threads by role, disk of
its folders, and what it leaves.

    make leaks                      # python -m benchmarks.leaks --steps 500

Trains the quickstart's policy on very small batches, with checkpoints and evaluations, and fits a
line to what `resources.jsonl` says of the steps after the warm-up. The last line of the output is
JSON: by role or folder and quantity the growth a step with its standard error, whether that is
surely more than is allowed, and the files, shared memory and processes that the run has left
behind. The exit code is 1 where something grows or is left. What a run's folder keeps of each step
because the recipe asks for it (checkpoints, policies, rollouts, records) is not measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from actors.engine import CODE_CACHE
from benchmarks.commands import run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from mgrpo.metrics.resources import (
    DISK,
    FILES,
    MEMORY,
    RESOURCES_FILE,
    SHARED_MEMORY,
    THREADS,
)
from mgrpo.metrics.rows import Row, read_lines
from mgrpo.metrics.slopes import BLOCKS, slope

PAGE = REPOSITORY / "docs" / "results" / "reliability.md"
ALLOWED = {MEMORY: 0.1, SHARED_MEMORY: 0.1, DISK: 0.1, FILES: 0.01, THREADS: 0.01}
"""Growth a step: of 10,000 steps 1 GiB, and of files a tenth of the usual limit of 1,024."""
WARM_UP = 0.4
"""Share of the steps that is left out: caches fill, and memory that was given once is kept."""
START_S, STEP_S = 600.0, 20.0
OVERRIDES = (
    *("prompts_per_step=2", "layers.0.group_size=2", "layers.1.group_size=2"),
    *("layers.0.max_completion_tokens=16", "layers.1.max_completion_tokens=16"),
    *("data.heldout.size=4", "evaluation.every_steps=20", "checkpoints.every_steps=10"),
    *("engines.num_shared_engines=1", "output.resources=true", "output.report=false"),
    "engines.extra_args={num_gpu_blocks_override: 64}",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name}")
    args = parser.parse_args(argv)
    if (fewest := int(2 * BLOCKS / (1 - WARM_UP)) + 1) > args.steps:
        parser.error(f"--steps must be at least {fewest}, for a line with an error")
    stop_on_sigterm()
    result = measured(args.steps)
    result |= {
        "command": " ".join(["python -m benchmarks.leaks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    text = "\n".join(page_lines(result))
    publish(result, text, PAGE if args.write else None, title="Reliability", part="leaks")
    return int(bool(result["growing"] or result["left"]))


def page_lines(result: Result) -> Iterator[str]:
    """The measured part about growth."""
    yield f"{result['steps']} steps; the first {WARM_UP:.0%} are left out.\n"
    yield "| Role or folder / quantity | Growth a step ± standard error | Allowed | Surely more |"
    yield "| --- | ---: | ---: | --- |"
    for name, found in result["growth"].items():
        allowed, said = ALLOWED[name.rpartition("/")[2]], "yes" if found["grows"] else "no"
        yield f"| {name} | {found['per_step']:+.4f} ± {found['error']:.4f} | {allowed} | {said} |"
    yield f"\nLeft behind: {', '.join(result['left']) or 'nothing'}.\n"
    yield from origin_lines(result)


def measured(num_steps: int) -> Result:
    """One run, what grows in it, and what it leaves.

    Raises:
        CommandFailed: the run failed or took too long.
    """
    before = traces_outside()
    # Ray's sockets have room for no longer name. PyTorch's cache of code, which would lie there
    # with the user's name, is shared by all programs of a user, so that none leaves it.
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(prefix="m-") as short:
        folder = Path(name)
        run_command(
            [
                *(sys.executable, "-m", "mgrpo", "train", "quickstart", f"steps={num_steps}"),
                *("--run", "leaks", f"output.runs_dir={folder}", *OVERRIDES),
            ],
            log=folder / "log",
            deadline_s=START_S + STEP_S * num_steps,
            environment={"TMPDIR": short, CODE_CACHE: str(folder / "code")},
        )
        growth = growths(read_lines(folder / "leaks" / RESOURCES_FILE))
        left = [f"file {one.name}" for one in Path(short).iterdir()]
    left += sorted(traces_outside() - before)
    growing = [name for name, found in growth.items() if found["grows"]]
    return {"steps": num_steps, "growth": growth, "growing": growing, "left": left}


def growths(rows: Sequence[Row]) -> dict[str, dict[str, float | bool]]:
    """By role/quantity, the growth a step after the warm-up."""
    kept = rows[int(len(rows) * WARM_UP) :]
    found: dict[str, dict[str, float | bool]] = {}
    for name in sorted(set(rows[-1]) - {"step"}):
        line = slope([float(row.get(name, 0.0)) for row in kept])
        allowed = ALLOWED[name.rpartition("/")[2]]
        found[name] = {
            "per_step": round(line.per_step, 5),
            "error": round(line.error, 5),
            "grows": line.exceeds(allowed),
        }
    return found


def traces_outside() -> set[str]:
    """Shared memory, and orphans of this user: a run that has ended leaves none."""
    shared = Path("/dev/shm")
    segments = [one.name for one in shared.iterdir()] if shared.is_dir() else []
    orphans = []
    for one in psutil.process_iter(["cmdline", "ppid", "uids"]):
        command, uids = " ".join(one.info["cmdline"] or []), one.info["uids"]
        if one.info["ppid"] == 1 and uids and uids.real == os.getuid() and "ray" in command:
            orphans.append(f"{one.pid} {command[:60]}")
    return {*(f"shared memory {name}" for name in segments), *(f"process {one}" for one in orphans)}


if __name__ == "__main__":
    sys.exit(main())
