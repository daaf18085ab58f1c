"""The step-time comparison as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.measurement import WARM_UP_STEPS, Measurement, round_ratios, summarise


def as_json(measurements: Sequence[Measurement], facts: Mapping[str, Any]) -> str:
    """Everything that was measured, and the facts that it belongs to."""
    result = {
        **facts,
        "warm_up_steps": WARM_UP_STEPS,
        "summary": {system: asdict(summarise(runs)) for system, runs in split(measurements)},
        "trl_over_ours_by_round": round_ratios(measurements),
        "measurements": [asdict(run) for run in measurements],
    }
    return json.dumps(result, indent=2) + "\n"


def as_markdown(measurements: Sequence[Measurement], facts: Mapping[str, Any]) -> str:
    """A page with the result first, then what it holds for."""
    ratios = round_ratios(measurements)
    work = facts["workload"]
    lines = [
        "# Step time: plain GRPO against TRL",
        "",
        f"TRL's median step takes **{median(ratios):.2f} times** as long as ours "
        f"(median over {len(ratios)} rounds; each round: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}).",
        "",
        *step_table(measurements),
        "",
        *phase_table(measurements),
        "",
        f"One step: {work['num_prompts']} prompts x {work['group_size']} completions x "
        f"{work['completion_tokens']} tokens, float32, one update, no KL; profile "
        f"`{facts['profile']}`. The first {WARM_UP_STEPS} steps of each process are left out. TRL "
        "samples with transformers, since its vLLM modes need a GPU. What is compared, and how: "
        "[benchmarks/README.md](../../benchmarks/README.md).",
        "",
        *facts_table(measurements, facts),
    ]
    return "\n".join(lines) + "\n"


def split(measurements: Sequence[Measurement]) -> list[tuple[str, list[Measurement]]]:
    """The measurements of each system."""
    return [
        (system, [run for run in measurements if run.system == system])
        for system in ("ours", "TRL")
    ]


def step_table(measurements: Sequence[Measurement]) -> list[str]:
    rows = []
    for system, runs in split(measurements):
        found = summarise(runs)
        rows.append(
            f"| {system} | {found.median_s:.2f} | {found.min_s:.2f} | {found.max_s:.2f} "
            f"| {found.num_steps} | {found.tokens_per_step} | {found.tokens_per_second:.0f} |"
        )
    return [
        "| | median s/step | min | max | steps | tokens/step | sampled tokens/s |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        *rows,
    ]


def phase_table(measurements: Sequence[Measurement]) -> list[str]:
    """Where a mean step's time goes; both systems' parts, one per line."""
    lines = ["| | part of a step | mean s | share |", "| --- | --- | --: | --: |"]
    for system, runs in split(measurements):
        parts = summarise(runs).phase_mean_s
        whole = sum(parts.values())
        for name, seconds in parts.items():
            label = "rewards, update and all else" if (system, name) == ("TRL", "other") else name
            lines.append(f"| {system} | {label} | {seconds:.2f} | {seconds / whole:.0%} |")
    return lines


def facts_table(measurements: Sequence[Measurement], facts: Mapping[str, Any]) -> list[str]:
    trl = facts["trl"]
    loads = ", ".join(f"{run.load_before:.1f}" for run in measurements)
    rows = {
        "Machine": f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB",
        "Load before each process": loads,
        "Ours": versions({"mgrpo": facts["mgrpo_version"], **facts["packages"]}),
        "TRL": f"{versions(trl['versions'])}; {trl['batch_size']} completions per forward and "
        f"backward, {trl['threads']} threads",
        "Python": facts["python"],
        "Date": facts["date"],
        "Commit": facts["commit"],
        "Command": f"`{facts['command'].strip()}`",
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
