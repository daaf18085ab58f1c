"""Metrics of the engines and of the pipeline: utilisation and failures."""

from __future__ import annotations

from cluster.monitoring.names import FRACTION, Family

POOL = "A pool is layer1, layer2, ... or shared, where one pool serves every layer."

PIPELINE = (
    Family(
        "pipeline/{part}_busy_fraction",
        FRACTION,
        "Share of the step in which a pool's engines, or the learner, was busy. The others wait "
        f"for the largest. {POOL}",
    ),
    Family(
        "pipeline/{pool}_inflight_mean",
        "completions",
        "Concurrent completions of a pool, on average while it was busy.",
    ),
    Family("engines/{pool}_working", "engines", "Engines of a pool that run."),
    Family("engines/{pool}_coming", "engines", "Engines of a pool that start, or wait for a node."),
    Family("engines/deaths", "engines", "Engines that were lost in the step.", is_counted=True),
    Family("engines/restarts", "engines", "Engines that were restarted.", is_counted=True),
    Family(
        "engines/requests_resent",
        "requests",
        "Requests that were lost with an engine, or failed on it, and retried on another.",
        is_counted=True,
    ),
    Family(
        "engines/broadcasts_in_step",
        "broadcasts",
        "Broadcasts during a step, to restarted engines.",
        is_counted=True,
    ),
    Family(
        "engines/failed_broadcasts",
        "broadcasts",
        "Broadcasts that failed and were repeated without the lost engines.",
        is_counted=True,
    ),
    Family(
        "engines/{state}",
        "engines",
        "Engines by state at the end of the step: healthy, suspect, dead, starting, restarting, "
        "stale (with other weights than the learner's) or gone.",
    ),
)
