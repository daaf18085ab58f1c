"""The dashboards about machines: pipeline, utilisation and failures."""

from __future__ import annotations

from cluster.monitoring.panels import Board, Metric, Panel, Query, chart, lines, share

GENERATED = Metric("tokens/generated").series
STEP_TIME = Metric("seconds/step").series
GPU = "the cluster has GPUs"


def counted(title: str, description: str, *metrics: tuple[str, str]) -> Panel:
    """Events of the last hour."""
    queries = tuple(
        Query(
            f"sum by (run) (increase({Metric(name).counter}[1h]))",
            f"{{{{run}}}} {legend}",
        )
        for name, legend in metrics
    )
    return Panel(title, description, "short", queries)


PIPELINE = Board(
    "mgrpo-pipeline",
    "MGRPO pipeline and engines",
    "Times of a step's parts, and utilisation of engines and learner.",
    (
        share(
            "Utilisation",
            "Share of the step in which a pool of engines, or the learner, was busy. The others "
            "wait for the largest.",
            ("pipeline/{part}_busy_fraction", "{{part}}"),
        ),
        Panel(
            "Engines",
            "Running engines, and engines that start or wait for a node, by pool.",
            "short",
            lines(
                ("engines/{pool}_working", "{{pool}} working"),
                ("engines/{pool}_coming", "{{pool}} starting"),
            ),
        ),
        chart(
            "Time of a step's parts",
            "Rollout, update and weights; step is the whole.",
            "s",
            ("seconds/{phase}", "{{phase}}"),
        ),
        chart(
            "Time of a layer",
            "From its first request to its last answer; layers overlap.",
            "s",
            ("seconds/layer{layer}", "layer {{layer}}"),
        ),
        Panel(
            "Generated tokens per second",
            "Over the whole step, update included.",
            "short",
            (Query(f"{GENERATED} / ignoring (phase) {STEP_TIME}", "{{run}} tokens/s"),),
        ),
        chart(
            "Completions in flight",
            "Concurrent completions of a pool, on average while it was busy.",
            "short",
            ("pipeline/{pool}_inflight_mean", "{{pool}}"),
        ),
        Panel(
            "Tokens of an update",
            "Of all rows; as computed, after shared prefixes merged; and those with a loss.",
            "short",
            lines(
                ("learner/row_tokens", "rows"),
                ("learner/input_tokens", "computed"),
                ("learner/tokens", "with loss"),
            ),
        ),
        Panel(
            "CPU by node",
            "As Ray's nodes report it.",
            "percent",
            (Query("ray_node_cpu_utilization", "{{NodeAddress}}"),),
        ),
        Panel(
            "Memory in use by node",
            "As Ray's nodes report it.",
            "bytes",
            (Query("ray_node_mem_used", "{{NodeAddress}}"),),
        ),
        Panel(
            "GPU by node",
            "Utilisation of each GPU.",
            "percent",
            (Query("ray_node_gpus_utilization", "{{NodeAddress}} GPU {{GpuIndex}}"),),
            only_when=GPU,
        ),
        Panel(
            "GPU memory by node",
            "In use, of each GPU.",
            "decmbytes",
            (Query("ray_node_gram_used", "{{NodeAddress}} GPU {{GpuIndex}}"),),
            only_when=GPU,
        ),
        Panel(
            "Actors",
            "Engines, learner ranks and others, by state.",
            "short",
            (Query("sum by (Name, State) (ray_actors) > 0", "{{Name}} {{State}}"),),
        ),
    ),
)

FAULTS = Board(
    "mgrpo-faults",
    "MGRPO faults",
    "Losses, failures and retries.",
    (
        Panel(
            "Time since the last step",
            "A run that is alive but reports nothing hangs, or takes long steps.",
            "s",
            (
                Query(
                    'time() - ray_mgrpo_last_report_time_seconds{run=~"$run"}',
                    "{{run}}",
                ),
            ),
        ),
        chart(
            "Engines by state",
            "Only healthy ones get work; stale ones wait for the next broadcast.",
            "short",
            ("engines/{state}", "{{state}}"),
        ),
        counted(
            "Engines lost",
            "And restarted, in the last hour. Losing a spot machine is a normal event.",
            ("engines/deaths", "lost"),
            ("engines/restarts", "restarted"),
        ),
        counted(
            "Retried requests",
            "Requests that were lost with an engine, in the last hour; none is counted twice.",
            ("engines/requests_resent", "requests"),
        ),
        counted(
            "Broadcasts",
            "Failed ones, and those during a step to restarted engines.",
            ("engines/failed_broadcasts", "failed"),
            ("engines/broadcasts_in_step", "during a step"),
        ),
        counted(
            "Updates without a row",
            "Steps without training data, in the last hour.",
            ("learner/skipped_updates", "skipped"),
        ),
        Panel(
            "Alerts",
            "Alert rules of mgrpo that are pending or firing.",
            "short",
            (
                Query(
                    'sum by (alertname, alertstate) (ALERTS{alertname=~"Mgrpo.*"}) or vector(0)',
                    "{{alertname}} {{alertstate}}",
                ),
            ),
        ),
    ),
)
