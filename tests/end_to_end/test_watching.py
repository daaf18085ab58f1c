"""A run is watched: a real cluster and job, a real Prometheus, a real browser.

The pictures of the documentation are taken here:

    MGRPO_PICTURES=docs/images python -m pytest -m cluster tests/end_to_end/test_watching.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.monitoring.boards import BOARDS
from cluster.monitoring.catalogue import names
from mgrpo.metrics.log import read_metrics
from tests.end_to_end.browser import find_chromium, open_browser
from tests.end_to_end.local_cluster import ROOT, LocalCluster, local_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

RUN = "watched"
OVERRIDES = [
    "steps=2000",  # it is stopped
    "prompts_per_step=4",
    "data.train.size=60",
    "data.heldout.size=8",
    "evaluation.every_steps=0",
    "learner.warmup_steps=1",
    "objective.kl.weight=0.01",  # so that the divergence is measured
    "checkpoints.every_steps=0",
]
DEADLINE_S = 400
SCRAPED_S = 120  # Ray exports every 10 s, Prometheus reads every 5 s
WITHOUT_GPUS = {"GPU by node", "GPU memory by node"}
"""Panels that stay empty here: Ray has no GPU's numbers on a machine without one."""
NOT_OF_THIS_RUN = {
    *("Corrections with feedback", "Length of feedback", "Terms of the reward"),
    "Verdicts on attempts",
}
"""Panels of what this recipe has not: feedback, several reward terms, layers that verify."""
WITHOUT_DATA = WITHOUT_GPUS | NOT_OF_THIS_RUN
SCROLL_DOWN = """
for (const one of document.querySelectorAll("main *, #root *")) one.scrollTop = one.scrollHeight;
window.scrollTo(0, 0);
"""
needs_browser = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@dataclass
class Watched:
    """A cluster with a run, and `mgrpo dashboard` beside it."""

    cluster: LocalCluster
    dashboard: subprocess.Popen[bytes]
    said: str
    run_dir: Path

    @property
    def prometheus(self) -> str:
        found = re.search(r"^Prometheus +(\S+)", self.said, re.MULTILINE)
        assert found is not None, self.said
        return found[1]

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The only series' value; None where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with local_cluster([{"num_cpus": 8}]) as cluster:
        command = ["submit", "methods/mgrpo", *OVERRIDES, "--run", RUN, "--skip-check", "--detach"]
        done = mgrpo(cluster, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        run_dir = cluster.folder / "mgrpo" / "runs" / RUN
        wait_until(lambda: num_steps(run_dir) > 1 or has_ended(cluster), "two steps of the run")
        assert num_steps(run_dir) > 1, mgrpo(cluster, "logs", RUN).stdout
        with dashboard_of(cluster) as (process, said):
            yield Watched(cluster, process, said, run_dir)


def mgrpo(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mgrpo", *arguments, "--address", cluster.url],
        cwd=ROOT,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


class dashboard_of:
    """`mgrpo dashboard` as a context; ended with SIGTERM if the test has not done it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.output = cluster.folder / "dashboard.log"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mgrpo", "dashboard", "--no-grafana"),
                    *("--address", cluster.url),
                ],
                cwd=ROOT,
                env=cluster.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> tuple[subprocess.Popen[bytes], str]:
        end = time.monotonic() + DEADLINE_S
        while "Ctrl-C ends them." not in (said := self.output.read_text()):
            assert self.process.poll() is None and time.monotonic() < end, said
            time.sleep(0.5)
        return self.process, said

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.5)


def num_steps(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def has_ended(cluster: LocalCluster) -> bool:
    return cluster.get(f"/api/jobs/mgrpo-{RUN}-1")["status"] in ("FAILED", "STOPPED", "SUCCEEDED")


def all_runs(expression: str) -> str:
    return expression.replace("$run", ".*")


def test_prometheus_reads_every_node_that_ray_lists_and_the_alert_rules(watched: Watched) -> None:
    wait_until(lambda: watched.ask("targets")["activeTargets"], "the nodes", SCRAPED_S)
    wait_until(
        lambda: all(one["health"] == "up" for one in watched.ask("targets")["activeTargets"]),
        "all nodes answer",
        SCRAPED_S,
    )
    (rules,) = watched.ask("rules")["groups"]
    assert rules["name"] == "mgrpo" and len(rules["rules"]) > 8
    assert {rule["health"] for rule in rules["rules"]} <= {"ok", "unknown"}


def test_every_panel_s_every_query_is_answered_with_data(watched: Watched) -> None:
    expressions = {
        (board.uid, panel.title, query.expression)
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
        if panel.title not in WITHOUT_DATA
    }
    assert len(expressions) > 50
    end = time.monotonic() + SCRAPED_S
    while empty := {key for key in expressions if not watched.query(all_runs(key[2]))}:
        assert time.monotonic() < end, f"without data: {sorted(empty)}"
        time.sleep(2)


def test_what_prometheus_has_is_what_the_run_wrote_down(watched: Watched) -> None:
    """Of one step; the newest may not have been read yet."""
    rule = names()
    end = time.monotonic() + SCRAPED_S
    while True:
        step = watched.value(f'ray_mgrpo_step{{run="{RUN}"}}')
        found = watched.value(f'ray_mgrpo_layer_accuracy{{run="{RUN}",layer="1"}}')
        again = watched.value(f'ray_mgrpo_step{{run="{RUN}"}}')
        if step is not None and step == again:
            break
        assert time.monotonic() < end, "no step stays long enough"
    rows = {row["step"]: row for row in read_metrics(watched.run_dir)}
    assert found == pytest.approx(rows[int(step)]["layer1/accuracy"])
    unknown = {name for row in rows.values() for name in row if rule.known(name) is None}
    assert unknown == set()


def test_tasks_and_actors_have_names_that_say_who_they_are(watched: Watched) -> None:
    actors = {one["name"] for one in watched.cluster.actors()}
    assert {"layer1-engine-0", "layer2-engine-0", "learner-rank-0"} <= actors
    found = watched.cluster.get("/api/v0/tasks?limit=10000&detail=false&exclude_driver=true")
    tasks = {one["name"] for one in found["data"]["result"]["result"]}
    assert {"layer1-engine-0.generate", "layer2-engine-0.generate", "learner-rank-0.update"} <= (
        tasks
    )


def test_an_engine_that_is_lost_shows_among_the_faults(watched: Watched) -> None:
    lost = 'sum(ray_mgrpo_engines_deaths_total{run="watched"})'
    wait_until(lambda: watched.value(lost) == 0, "a counter that begins at 0", SCRAPED_S)
    (pid,) = (
        one["pid"]
        for one in watched.cluster.actors()
        if one["name"] == "layer2-engine-0" and one["state"] == "ALIVE"
    )
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: watched.value(lost) == 1, "the lost engine in Prometheus")
    faults = next(board for board in BOARDS if board.uid == "mgrpo-faults")
    (panel,) = (panel for panel in faults.panels if panel.title == "Engines lost")
    risen = watched.value(all_runs(panel.queries[0].expression))
    assert risen is not None and risen > 0


@needs_browser
def test_the_pages_can_be_read_in_a_browser(watched: Watched, tmp_path: Path) -> None:
    asyncio.run(read_pages(watched, Path(os.environ.get("MGRPO_PICTURES") or tmp_path)))


async def read_pages(watched: Watched, pictures: Path) -> None:
    ray = watched.cluster.url
    token = {"ray-authentication-token": (watched.cluster.token, ray)}
    async with open_browser(cookies=token) as page:
        seen = await page.open(
            f"{ray}/#/actors",
            until=lambda text: "layer1-engine-0" in text and "learner-rank-0" in text,
            deadline_s=60,
        )
        assert "ALIVE" in seen
        await page.picture(pictures / "ray-actors.png")

        submission = f"mgrpo-{RUN}-1"
        await page.open(
            f"{ray}/#/jobs",
            until=lambda text: submission in text and "RUNNING" in text,
            deadline_s=60,
        )
        job = watched.cluster.get(f"/api/jobs/{submission}")["job_id"] or submission
        seen = await page.open(
            f"{ray}/#/jobs/{job}", until=lambda text: f"recipe: {RUN}" in text, deadline_s=60
        )
        assert "RUNNING" in seen and "mgrpo train" in seen
        # The log's view holds what is visible alone: its end has to be scrolled to.
        end = time.monotonic() + 60
        while not re.search(r"step \d+\s+Acc@t1 .*done \d+/2000", await page.text()):
            assert time.monotonic() < end, await page.text()
            await page.evaluate(SCROLL_DOWN)
            await asyncio.sleep(1)
        await page.picture(pictures / "ray-job.png", height_below=300)

        last = BOARDS[-1].panels[-1].title
        seen = await page.open(
            f"{watched.prometheus}/user/index.html",
            until=lambda text: last in text and "as of" in text and "layer 2" in text,
            deadline_s=60,
        )
        for board in BOARDS:
            assert board.title in seen and all(panel.title in seen for panel in board.panels)
        empty = await page.evaluate(
            "[...document.querySelectorAll('figure')].filter(f => f.querySelector('.empty'))"
            ".map(f => f.querySelector('figcaption').textContent).join('|')"
        )
        assert set(empty.split("|")) == WITHOUT_DATA
        await page.picture(pictures / "curves.png")


@needs_browser
def test_a_stopped_run_s_report_and_the_end_of_its_curves(watched: Watched, tmp_path: Path) -> None:
    stopped = mgrpo(watched.cluster, "stop", RUN)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    report = watched.run_dir / "report.html"
    wait_until(report.is_file, "the report", 60)
    asyncio.run(read_report(report, Path(os.environ.get("MGRPO_PICTURES") or tmp_path)))
    gone = f'ray_mgrpo_step{{run="{RUN}"}}'
    wait_until(lambda: not watched.query(gone), "the end of the run's curves", SCRAPED_S)


async def read_report(report: Path, pictures: Path) -> None:
    async with open_browser() as page:
        seen = await page.open(report.as_uri(), until=lambda text: RUN in text, deadline_s=60)
        assert "Accuracy" in seen
        assert await page.evaluate("document.querySelectorAll('svg').length") > 5
        await page.picture(pictures / "report.png")


def test_sigterm_ends_the_dashboard_and_prometheus(watched: Watched) -> None:
    watched.dashboard.send_signal(signal.SIGTERM)
    assert watched.dashboard.wait(timeout=40) == 0
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{watched.prometheus}/-/ready", timeout=5)
