"""The dashboards about machines: who waits for whom, and what was lost."""

from __future__ import annotations

from cluster.monitoring.panels import Board, Metric, Panel, Query, chart, lines

GENERATED = Metric("tokens/generated").series
STEP_TIME = Metric("seconds/step").series
GPU = "the cluster has GPUs"

PIPELINE = Board(
    "mgrpo-pipeline",
    "MGRPO pipeline and engines",
    "Where a step's time goes, and who waits for whom.",
    (
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
    "What was lost or failed, and what was done about it.",
    (
        Panel(
            "Time since the last step",
            "A run that is alive and reports nothing hangs, or takes long steps.",
            "s",
            (
                Query(
                    'time() - ray_mgrpo_last_report_time_seconds{run=~"$run"}',
                    "{{run}}",
                ),
            ),
        ),
        Panel(
            "Updates without a row",
            "Steps that had nothing to train on, in the last hour.",
            "short",
            (
                Query(
                    f"sum by (run) (increase({Metric('learner/skipped_updates').counter}[1h])) "
                    "or vector(0)",
                    "{{run}} skipped",
                ),
            ),
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
