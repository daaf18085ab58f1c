"""Are the metrics that decide something metrics of this run?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from cluster.monitoring.catalogue import FAMILIES, names
from cluster.monitoring.names import TAG
from mgrpo.config import RunConfig
from mgrpo.findings import CheckLine

MOST_SUGGESTED = 3


def watched_lines(config: RunConfig) -> Iterator[CheckLine]:
    """A failure for each metric that no run has, or a warning if a plug-in of the user's may."""
    watched = {
        "checkpoints.keep_best": config.checkpoints.keep_best,
        "early_stopping": config.early_stopping,
    }
    known = names().known
    for path, one in watched.items():
        if one is None or one.heldout_layer is not None or known(one.metric):
            continue
        near = difflib.get_close_matches(
            one.metric, names_of(len(config.layers)), n=MOST_SUGGESTED, cutoff=0.4
        )
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        detail = f"{path}.metric: no run has {one.metric}.{hint} docs/metrics.md lists all."
        yield CheckLine("warn" if config.plugins else "fail", "metrics", detail)


def names_of(num_layers: int) -> list[str]:
    """Metrics of a chain that have no tag but their layer."""
    layers = range(1, num_layers + 1)
    return [
        name
        for family in FAMILIES
        if set(TAG.findall(family.pattern)) <= {"layer"}
        for name in dict.fromkeys(family.pattern.replace("{layer}", str(one)) for one in layers)
    ]
