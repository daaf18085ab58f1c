"""The table of all metrics, as Markdown."""

from __future__ import annotations

from cluster.monitoring.catalogue import SECTIONS
from cluster.monitoring.names import Family

TABLE_FILE = "docs/metrics.md"

HEAD = """\
<!-- Made by `python -m cluster.monitoring.write`; do not edit. -->
# Every metric of a run

The same numbers, under two names:

- in `runs/NAME/metrics.jsonl`, TensorBoard and other trackers: `layer2/accuracy`;
- in Prometheus, through Ray: `ray_mgrpo_layer_accuracy{run="NAME", layer="2"}`.

The rule from the first to the second: what differs between metrics of one meaning (in braces below)
is a tag, the other words are joined with `_` after `mgrpo_`, and Ray puts `ray_` before what it
exports. `{layer_or_all}` is `layer2`, `layer3`, … or `all`, from the first attempt to the last
correction of a longer chain; its tag is called `layer`. Every series has the tag `run`. A metric
that is not in the table, such as one of your own plug-in, is named by the same rule, with the one
tag `layer`.

Values are those of one step, and stay until the next. A mean is a sum divided once by its count,
over all ranks and micro-batches. Fractions are of 1. Where a counter is named, it adds the steps up
since the run was started, for `rate()` and `increase()`.

Two more series exist only in Prometheus: `ray_mgrpo_step`, the newest step, and
`ray_mgrpo_last_report_time_seconds`, when the run last reported, in seconds since 1970.
`heldout/…` comes from evaluations: with their fields in `evaluation.jsonl`, under these names in
the trackers and in Prometheus.
"""

COLUMNS = "| In metrics.jsonl | In Prometheus | Unit | Meaning |\n| --- | --- | --- | --- |"


def metrics_table() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(title, rows) for title, rows in SECTIONS.items() if rows)])


def section(title: str, rows: tuple[Family, ...]) -> str:
    return "\n".join([f"## {title}\n", COLUMNS, *(row(family) for family in rows), ""])


def row(family: Family) -> str:
    tags = ", ".join(family.tags)
    exported = f"`{family.exported_name}`" + (f" by {tags}" if tags else "")
    if family.is_counted:
        exported += f"; counter `ray_{family.counter_name}`"
    when = f" Only where {family.only_when}." if family.only_when else ""
    return f"| `{family.pattern}` | {exported} | {family.unit} | {family.meaning}{when} |"
