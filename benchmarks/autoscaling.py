"""A training run on a cluster that grows and shrinks under it, recorded as a timeline.

    python -m benchmarks.autoscaling --write

A head without engines, whose autoscaler adds nodes of one CPU each. The learner runs on the head;
each engine needs its own node. In the first phase layer 1 is the bottleneck and its pool grows;
then a node is killed like a preempted spot machine; in the last phase layer 1 samples little, and
its second engine and node are released. The training is real: vLLM engines, a DeepSpeed learner,
verified broadcasts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import yaml

from benchmarks.autoscaling_page import write_page
from benchmarks.elastic_cluster import HEAD_ADDRESS, ElasticCluster, elastic_cluster, wait_until
from benchmarks.machine import machine
from cluster.fleet.engine_log import read_engine_log
from mgrpo.metrics.log import METRICS_FILE, read_metrics

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "autoscaling.json"
EVENT_DEADLINE_S = 900
NODE_IDLE_S = 15


def recipe(steps: int, calm_from: int, runs_dir: Path) -> dict[str, Any]:
    """Layer 1 samples much and does not train (as in iGRPO): the learner has little to do."""
    return {
        "extends": "methods/igrpo",
        "name": "autoscaling",
        "steps": steps,
        "prompts_per_step": 4,
        "data": {"heldout": None},
        "layers": {
            "solve": {"group_size": 32, "num_engines": {"min": 1, "max": 2}},
            "correct": {"group_size": 4, "num_engines": 1},
        },
        "phases": [
            {
                "name": "calm",
                "from_step": calm_from,
                "changes": {"layers": {"solve": {"group_size": 2}}},
            }
        ],
        "engines": {"num_threads": 1},
        "learner": {"num_threads": 1, "warmup_steps": 1},
        "checkpoints": {"every_steps": 0},
        "output": {"runs_dir": str(runs_dir), "report": False},
        "cluster": {
            "device": "cpu",
            "engine_nodes": {"labels": {"role": "rollout"}},
            "deadlines": {"placement_s": 300},
            "health": {"heartbeat_s": 2},
            "elastic": {
                "grow_above": 0.3,
                "grow_min_inflight": 12,
                "shrink_below": 0.1,
                "shrink_after_steps": 3,
            },
        },
    }


class NodeWatch:
    """Writes down, once a second, which nodes are alive."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, list[str]]] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.stopped.wait(1.0):
            self.samples.append((time.time(), alive_nodes()))

    def __enter__(self) -> NodeWatch:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.thread.join(timeout=10)


def alive_nodes() -> list[str]:
    return sorted(str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"])


def node_spans(samples: list[tuple[float, list[str]]]) -> list[dict[str, Any]]:
    """From when to when each node was seen alive, in the order of their coming.

    Example: [(0, ["a"]), (1, ["a", "b"]), (2, ["b"])] gives a from 0 to 1, b from 1 to 2.
    """
    spans: dict[str, dict[str, Any]] = {}
    for at, nodes in samples:
        for node in nodes:
            span = spans.setdefault(node, {"node": node, "from": at, "to": at})
            span["to"] = at
    return list(spans.values())


def run(steps: int, calm_from: int, folder: Path) -> dict[str, Any]:
    """The whole story; returns its record."""
    runs = folder / "runs"
    recipe_file = folder / "autoscaling.yaml"
    recipe_file.write_text(yaml.safe_dump(recipe(steps, calm_from, runs)), encoding="utf-8")
    run_dir = runs / "autoscaling"
    with elastic_cluster(head={"CPU": 1}, node={"CPU": 1}, max_nodes=4, idle_s=NODE_IDLE_S) as it:
        ray.init(
            address=it.address,
            _node_ip_address=HEAD_ADDRESS,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            with NodeWatch() as watch:
                began = time.time()
                lost = train_and_lose_a_node(it, recipe_file, run_dir, calm_from, folder)
                ended = time.time()
                wait_until(
                    lambda: alive_nodes() == [HEAD_ADDRESS],
                    "the nodes to go after the run",
                    timeout_s=EVENT_DEADLINE_S,
                )
        finally:
            ray.shutdown()
    rows = read_metrics(run_dir)
    last_row_at = (run_dir / METRICS_FILE).stat().st_mtime
    return {
        "began": began,
        "ended": ended,
        "metrics_began": last_row_at - rows[-1]["wall_s"] - began,
        "lost": lost,
        "steps": steps,
        "calm_from": calm_from,
        "nodes": node_spans(watch.samples),
        "engines": read_engine_log(run_dir),
        "metrics": [kept_metrics(row) for row in rows],
        "machine": machine(),
    }


def train_and_lose_a_node(
    cluster: ElasticCluster, recipe_file: Path, run_dir: Path, calm_from: int, folder: Path
) -> dict[str, Any]:
    """Train to the end; on the way, once layer 1 has two engines at work, end a node of one."""
    command = [sys.executable, "-m", "mgrpo", "train", str(recipe_file)]
    with (folder / "train.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=cluster.environment(), stdout=log, stderr=subprocess.STDOUT
        )
    try:

        def has_grown() -> bool:
            check_running(process, folder)
            rows = read_metrics(run_dir) if run_dir.exists() else []
            return sum(row.get("engines/layer1_working", 0) == 2 for row in rows) >= 2

        wait_until(has_grown, "layer 1's second engine at work", timeout_s=EVENT_DEADLINE_S)
        node = node_of(run_dir, "layer1-engine-0")
        lost = {"node": node, "time": time.time(), "step": len(read_metrics(run_dir))}
        cluster.lose_node(node)
        code = process.wait(timeout=2 * EVENT_DEADLINE_S)
        if code != 0:
            raise RuntimeError(f"training ended with exit code {code}: {tail(folder)}")
        return lost
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=120)


def check_running(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"training ended with exit code {process.returncode}: {tail(folder)}")


def tail(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8", errors="replace")[-3000:]


def node_of(run_dir: Path, engine: str) -> str:
    """The address of the node that an engine was last seen on."""
    return str(
        [
            row["node"]
            for row in read_engine_log(run_dir)
            if row["engine"] == engine and row["node"]
        ][-1]
    )


def kept_metrics(row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a step."""
    prefixes = ("engines/", "pipeline/")
    names = ("step", "wall_s", "seconds/step", "policy_version", "weights/probe_gap_max")
    return {key: row[key] for key in row if key in names or key.startswith(prefixes)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=130)
    parser.add_argument("--calm-from", type=int, default=95, help="step of the last phase")
    parser.add_argument("--write", action="store_true", help="write the record and the page")
    parser.add_argument("--keep", type=Path, help="a folder for the run and its logs")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    options = parse(arguments)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="mgrpo-autoscaling-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        record = run(options.steps, options.calm_from, folder)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if options.write:
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_page(record)
    say(
        f"{len(record['metrics'])} steps, {len(record['nodes'])} nodes, "
        f"{record['ended'] - record['began']:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
