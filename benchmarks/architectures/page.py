"""The table of architectures as a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.architectures.zoo import ARCHITECTURES, Architecture

SAME_GAP = 1e-4
"""Nats: an engine within this of the learner has its weights. Others differ by what is shown."""
Row = Mapping[str, Any]


def describe(rows: Mapping[str, Row], facts: Mapping[str, Any]) -> str:
    """Counts, the table, the reasons, and what was run on what."""
    measured = [
        (architecture, rows[architecture.key])
        for architecture in ARCHITECTURES
        if architecture.key in rows
    ]
    return "\n".join(
        [
            summary([row for _, row in measured]),
            "",
            "| Architecture | `model_type` | Rows | Logits | Log-prob. | Gradient | Engine after "
            "an update |",
            "| --- | --- | --- | --- | ---: | ---: | ---: |",
            *(table_line(one, row) for one, row in measured),
            "",
            "Why rows are padded, or a model is refused:",
            "",
            *reasons(measured, lambda row: row["learner"].get("reason", "")),
            "",
            "Why there is no engine beside the learner, or another one:",
            "",
            *reasons(measured, engine_reason),
            "",
            f"{facts['command']}; {facts['cores']} cores, {facts['cpu']}; "
            + ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
            + ".",
        ]
    )


def summary(rows: list[Row]) -> str:
    outcomes = [row["learner"]["outcome"] for row in rows]
    engines = [row["engine"] for row in rows if "engine" in row]
    compared = [engine for engine in engines if engine["status"] == "compared"]
    same = [one for one in compared if one["gap_after"] <= SAME_GAP]
    return (
        f"{len(rows)} architectures: {outcomes.count('merged')} train with merged prefixes, "
        f"{outcomes.count('padded')} with padded rows, {outcomes.count('refused')} are refused. "
        f"vLLM's CPU build was tried on {len(engines)} and started {len(compared)}; after a weight "
        f"update {len(same)} of those gave the learner's log-probabilities."
    )


def table_line(architecture: Architecture, row: Row) -> str:
    learner = row["learner"]
    if learner["outcome"] == "refused":
        cells = ["refused", "", "", ""]
    else:
        towers = f", {learner['frozen']} weights frozen" if learner["frozen"] else ""
        cells = [
            learner["outcome"] + towers,
            learner["logits"],
            f"{learner['logprob_difference']:.0e}",
            f"{learner['gradient_difference']:.0e}",
        ]
    cells.append(engine_cell(row.get("engine")))
    return f"| {architecture.title} | `{architecture.model_type}` | {' | '.join(cells)} |"


def engine_cell(engine: Row | None) -> str:
    if engine is None:
        return ""
    if engine["status"] != "compared":
        return engine["status"]
    return f"{engine['gap_after']:.0e} (before: {engine['gap_before']:.2f})"


def engine_reason(row: Row) -> str:
    engine = row.get("engine")
    if engine is None:
        return ""
    if engine["status"] != "compared":
        return f"{engine['status']}: {shortened(engine['reason'])}"
    if engine["gap_after"] <= SAME_GAP:
        return ""
    if engine["gap_at_start"] > SAME_GAP:
        return (
            f"it differs from transformers by {engine['gap_at_start']:.0e} nats before any update; "
            "a run stops at its first broadcast"
        )
    return (
        "it loads the checkpoint rightly and its own reload wrongly; a run stops at its first "
        "broadcast"
    )


def reasons(measured: list[tuple[Architecture, Row]], reason_of: Callable[[Row], str]) -> list[str]:
    """One line per reason, with the architectures that it is the reason of."""
    found: dict[str, list[str]] = {}
    for architecture, row in measured:
        reason = reason_of(row)
        if reason:
            found.setdefault(reason, []).append(architecture.title)
    return [f"- {', '.join(titles)}: {reason}" for reason, titles in found.items()] or ["- none"]


def shortened(reason: str) -> str:
    """One line, without this machine's paths."""
    text = re.sub(r"/\S*/", "", " ".join(reason.split()))
    return text if len(text) <= 200 else f"{text[:200]}…"


def root_cause(output: str) -> str:
    """The last error of an engine's log that is not about another process's error."""
    found = re.findall(r"\b(\w*(?:Error|Exception)): (.+)", output)
    own = [
        f"{kind}: {text}" for kind, text in found if "ngine core" not in text and "Dead" not in kind
    ]
    return own[-1] if own else ""
