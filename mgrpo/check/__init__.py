"""`mgrpo check`: everything that can be known before anything is started.

Needs no GPU and no Ray, and takes seconds: the recipe's arithmetic, its plug-ins, the data, the
model's folder, its tokenizer and context, the rewards on a sample, and the hardware that is wanted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mgrpo.check.arithmetic import batch_lines, resource_lines
from mgrpo.check.data import disjoint_lines, size_lines, source_lines
from mgrpo.check.environment import environment_lines
from mgrpo.check.plugins import plugin_lines
from mgrpo.check.report import CheckLine, CheckReport
from mgrpo.check.storage import storage_lines
from mgrpo.check.trackers import tracker_lines
from mgrpo.config import DataSource, RunConfig
from mgrpo.config.relations import warnings_of
from mgrpo.data import LoadedData
from mgrpo.errors import HubUnreachable, MgrpoError

SLACK_S = 30.0  # what starts and ends the look at a cluster, on a busy machine

__all__ = ["CheckLine", "CheckReport", "check_recipe"]


def check_recipe(config: RunConfig, *, on_cluster: bool = False) -> CheckReport:
    """Look at everything that the recipe names. Never raises for what it finds.

    Args:
        on_cluster: this machine's own GPUs, cores and memory do not matter.

    The parts that need torch's neighbours are imported as they are reached, so that a broken
    data file is reported without waiting for them.
    """
    report = CheckReport()
    beside = ThreadPoolExecutor(1)  # a cluster that is gone is waited for, meanwhile
    around = None if on_cluster else beside.submit(environment_lines, config)
    chain = " -> ".join(layer.name for layer in config.layers)
    report.lines.append(CheckLine("ok", "recipe", f"{config.name}: {config.method}, {chain}"))
    report.add(CheckLine("warn", "recipe", warning) for warning in warnings_of(config))
    report.add(batch_lines(config))
    report.add(plugin_lines(config))
    report.add(tracker_lines(config))
    report.add(storage_lines(config))

    train = look_at_source(report, "data.train", config.data.train, config)
    heldout = None
    if config.data.heldout is not None:
        heldout = look_at_source(report, "data.heldout", config.data.heldout, config)
    if train is not None:
        report.add(size_lines(config, train))
        if heldout is not None:
            report.add(disjoint_lines(train, heldout))
    problems = [p for data in (train, heldout) if data is not None for p in data.problems]

    from mgrpo.check.rewards import reward_lines

    report.add(reward_lines(config, problems))

    from mgrpo.check.model import look_at_model

    lines, num_parameters = look_at_model(config, problems)
    report.add(lines)
    if not on_cluster:
        report.add(resource_lines(config, num_parameters))
    if around is not None:
        report.add(around.result(timeout=config.cluster.deadlines.connect_s + SLACK_S))
    return report


def look_at_source(
    report: CheckReport, name: str, source: DataSource, config: RunConfig
) -> LoadedData | None:
    """Add a source's lines; its data where it can be used."""
    try:
        lines, data = source_lines(name, source, config)
    except HubUnreachable as error:
        report.lines.append(CheckLine("warn", name, f"not checked: {error}"))
        return None
    except MgrpoError as error:
        report.lines.append(CheckLine("fail", name, str(error)))
        return None
    report.add(lines)
    return data
