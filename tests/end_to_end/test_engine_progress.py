"""Real vLLM engines: a long queue kills nobody, a stopped one is replaced, drafts are a layer's."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import RequestError
from mgrpo.metric_sums import MetricSums
from mgrpo.records.turns import Prompt
from mgrpo.training.system import System, start_system
from mgrpo.types import Completion
from tests.end_to_end.conftest import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DEADLINE_S = 8.0


def test_a_shared_pool_drafts_for_the_layers_with_speculation_alone(tmp_path: Path) -> None:
    """First, since it has a Ray of its own."""
    config: RunConfig = load_recipe(
        "quickstart",
        [
            "engines.shared=true",
            "layers.correct.speculation={max_draft_tokens: 3}",
            "cluster.address=local",
            "cluster.device=cpu",
        ],
    )
    with start_system(config, logs_to=tmp_path, with_learner=False, note=print) as system:
        completions = system.fleet.run(system.rollout.run(0, system.problems[:8]))
        clocks = system.rollout.clocks
    assert all(np.isfinite(one.rollout_logprobs).all() for one in completions)
    assert clocks[1].num_drafted == 0 < clocks[2].num_accepted < clocks[2].num_drafted
    assert clocks[2].kept_tokens == sum(len(c.token_ids) for c in completions if c.layer == 2)


@pytest.fixture(scope="module")
def system(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    engines = {"shared": True, "num_shared_engines": 2, "num_threads": 1, "max_num_seqs": 1}
    layers = [{**tree["layers"][0], "max_completion_tokens": 160}, tree["layers"][1]]
    deadlines = {"generate_s": DEADLINE_S}
    cluster = {**tree["cluster"], "deadlines": deadlines}
    config = recipe(tree, engines=engines, layers=layers, cluster=cluster)
    logs: Path = tmp_path_factory.mktemp("logs")
    with start_system(config, logs_to=logs, with_learner=False, note=print) as running:
        yield running


def roll_out(system: System, num_problems: int, meanwhile: Any = None) -> list[Completion]:
    async def work() -> list[Completion]:
        parts = [system.rollout.run(0, system.problems[:num_problems], last_layer=1)]
        if meanwhile is not None:
            parts.append(meanwhile())
        return (await asyncio.gather(*parts))[0]

    return system.fleet.run(work())


def counts(system: System) -> dict[str, float]:
    sums = MetricSums()
    sums.add_total("seconds/step", 1.0)
    system.fleet.close_step(sums)
    return sums.means()


def engine_cores() -> list[psutil.Process]:
    """vLLM's own processes, behind the actors."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "EngineCore" in " ".join([process.name(), *process.cmdline()]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_queue_that_is_longer_than_the_deadline_kills_nobody(system: System) -> None:
    began = time.monotonic()
    completions = roll_out(system, len(system.problems))
    took_s = time.monotonic() - began
    print(f"{sum(len(one.token_ids) for one in completions)} tokens in {took_s:.1f} s")
    assert took_s > DEADLINE_S, "too little work to show anything on this machine"
    found = counts(system)
    assert (found["engines/deaths"], found["engines/requests_resent"]) == (0, 0)


def test_a_prompt_that_vllm_refuses_is_named_and_costs_no_engine(system: System) -> None:
    async def work() -> None:
        prompt = Prompt.of([5] * (system.config.layers[0].max_completion_tokens + 4000))
        await system.rollout.generate(1, prompt, num_samples=1, max_tokens=4, seed=0)

    with pytest.raises(RequestError, match=r"Layer 1: a plug-in's prompt .*maximum context"):
        system.fleet.run(work())
    found = counts(system)
    assert (found["engines/deaths"], found["engines/healthy"]) == (0, 2)


def test_an_engine_whose_core_stands_still_is_lost_within_the_deadline(system: System) -> None:
    cores = engine_cores()
    assert len(cores) == 2
    stopped_at: list[float] = []

    async def stop() -> None:
        await asyncio.sleep(0.3)
        os.kill(cores[0].pid, signal.SIGSTOP)
        stopped_at.append(time.monotonic())
        while counts(system)["engines/deaths"] == 0:
            await asyncio.sleep(0.1)
        stopped_at.append(time.monotonic())

    completions = roll_out(system, 6, meanwhile=stop)
    assert len(completions) == 6 * system.config.layers[0].group_size
    stopped, lost = stopped_at
    assert DEADLINE_S / 2 < lost - stopped < DEADLINE_S + 3
    end = time.monotonic() + 30
    while cores[0].is_running() and cores[0].status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the stopped process was left behind"
        time.sleep(0.2)
