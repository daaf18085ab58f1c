"""`mgrpo check`: all checks that are possible before a run starts.

Needs no GPU and no Ray, and takes seconds: the recipe's arithmetic, its plug-ins, the data, the
model's folder, its tokenizer and context, the rewards on a sample, and the required hardware.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from mgrpo.check.data import disjoint_lines, problems_in, share_lines, size_lines, source_lines
from mgrpo.check.environment import environment_lines
from mgrpo.check.plugins import plugin_lines
from mgrpo.check.recipe_warnings import warnings_of
from mgrpo.check.storage import storage_lines
from mgrpo.check.trackers import tracker_lines
from mgrpo.check.watched import watched_lines
from mgrpo.config import RunConfig
from mgrpo.data.problems import LoadedData, refuse_missing_answers
from mgrpo.errors import HubUnreachable, MgrpoError
from mgrpo.findings import CheckLine, CheckReport
from mgrpo.plan.arithmetic import batch_lines, resource_lines
from mgrpo.plan.recipe import plan_recipe

SLACK_S = 30.0  # start and end of the cluster check, on a busy machine

__all__ = ["CheckLine", "CheckReport", "check_recipe"]


def check_recipe(config: RunConfig, *, layout: str = "", on_cluster: bool = False) -> CheckReport:
    """Check everything that the recipe names. Findings are returned, not raised.

    Args:
        layout: the layout chosen for the recipe (`mgrpo.plan.layout`), in words.
        on_cluster: this machine's own GPUs, cores and memory are not checked.

    The parts that need torch's neighbours are imported as they are reached, so that a broken
    data file is reported without waiting for them.
    """
    report = CheckReport()
    beside = ThreadPoolExecutor(
        1
    )  # runs beside the other checks: an unreachable cluster takes its whole deadline
    around = (
        None
        if on_cluster
        else beside.submit(environment_lines, config.output, config.cluster, config.name)
    )
    chain = " -> ".join(layer.name for layer in config.layers)
    report.lines.append(CheckLine("ok", "recipe", f"{config.name}: {config.method}, {chain}"))
    if layout:
        report.lines.append(CheckLine("ok", "layout", layout))
    with part_of(report, "recipe"):
        report.add(CheckLine("warn", "recipe", warning) for warning in warnings_of(config))
    with part_of(report, "layers"):
        report.add(batch_lines(plan_recipe(config)))
    with part_of(report, "plug-ins"):
        report.add(plugin_lines(config.method_view, config.pipeline))
    with part_of(report, "metrics"):
        report.add(watched_lines(config))
    with part_of(report, "trackers"):
        report.add(tracker_lines(config.output.trackers))
    with part_of(report, "storage"):
        report.add(storage_lines(config.output, config.name))

    loaded: dict[str, LoadedData] = {}
    for name, source in (("data.train", config.data.train), ("data.heldout", config.data.heldout)):
        if source is not None:
            with part_of(report, name):
                lines, loaded[name] = source_lines(name, source, config.data.max_dropped_fraction)
                report.add(lines)

    with part_of(report, "rewards"):
        from mgrpo.check.agreement import agreement_lines
        from mgrpo.check.code_sandbox import sandbox_lines
        from mgrpo.check.rewards import reward_lines, unreachable_line

        refuse_missing_answers(problems_in(loaded), config.rewards)
        report.add(sandbox_lines(config.rewards))
        elsewhere = unreachable_line(config.rewards) if on_cluster else None
        if elsewhere is not None:
            report.lines.append(elsewhere)
        else:
            report.add(reward_lines(config.rewards, config.layers, problems_in(loaded)))
            if not any(line.name == "rewards" for line in report.failures):
                report.add(agreement_lines(config.rewards))

    num_parameters: int | None = None
    with part_of(report, "model"):
        from mgrpo.check.model import look_at_model

        lines, num_parameters = look_at_model(config, loaded)
        report.add(lines)
    with part_of(report, "steps"):
        report.add(size_lines(config.steps, config.prompts_per_step, loaded))
        report.add(share_lines(config.data, config.steps, config.prompts_per_step, loaded))
    with part_of(report, "held-out"):
        report.add(disjoint_lines(loaded))
    if not on_cluster:
        with part_of(report, "resources"):
            report.add(resource_lines(plan_recipe(config), num_parameters))
    if around is not None:
        with part_of(report, "environment"):
            report.add(around.result(timeout=config.cluster.deadlines.connect_s + SLACK_S))
    return report


@contextmanager
def part_of(report: CheckReport, name: str) -> Iterator[None]:
    """An error in one part of the check becomes its line; the other parts still run."""
    try:
        yield
    except HubUnreachable as error:
        report.lines.append(CheckLine("warn", name, f"not checked: {error}"))
    except MgrpoError as error:
        report.lines.append(CheckLine("fail", name, str(error)))
    except Exception as error:  # an error of a library or our own: it would hide all other lines
        if os.environ.get("MGRPO_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        report.lines.append(
            CheckLine("fail", name, f"could not be checked: {what}. MGRPO_DEBUG=1 shows where.")
        )
