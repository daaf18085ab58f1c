"""The step-time comparison as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.workload import Profile

PHASE_NAMES = {
    "rollout": "sampling and rewards",
    "update": "update",
    "weights": "verified broadcast",
    "sampling": "sampling",
}


@dataclass(frozen=True)
class Steps:
    """The steady steps of one process."""

    seconds: list[float]  # from the end of one step to the end of the next
    phases: dict[str, list[float]]  # named parts of each step, in seconds
    load_before: float  # load average of the last minute as the process was started


@dataclass(frozen=True)
class Round:
    """Both systems once."""

    ours: Steps
    trl: Steps

    @property
    def ratio(self) -> float:
        """Our median step over TRL's: below 1, ours is faster."""
        return median(self.ours.seconds) / median(self.trl.seconds)


def as_json(profile: Profile, rounds: Sequence[Round], facts: Mapping[str, Any]) -> str:
    """Every measured step, and what the numbers hold for."""
    measured = [asdict(one) | {"ratio": one.ratio} for one in rounds]
    return json.dumps({**facts, "workload": asdict(profile), "rounds": measured}, indent=2) + "\n"


def describe(
    profile: Profile, rounds: Sequence[Round], facts: Mapping[str, Any], *, num_warm_up: int
) -> str:
    """The page: a row per round, then where the time goes, then what was run on what."""
    ours = [seconds for one in rounds for seconds in one.ours.seconds]
    trl = [seconds for one in rounds for seconds in one.trl.seconds]
    overall = median(ours) / median(trl)
    tokens = profile.tokens_per_step
    return "\n".join(
        [
            "# Step time: plain GRPO against TRL",
            "",
            f"One update on {profile.num_prompts} prompts x {profile.group_size} completions x "
            f"{profile.completion_tokens} tokens ({tokens:,} sampled tokens in every step of "
            f"both), float32, a Llama of {profile.num_layers} layers and hidden size "
            f"{profile.hidden_size} with random weights, no KL. Seconds per step: median (lowest "
            f"to highest) of the steps after the first {num_warm_up}.",
            "",
            "| Round | ours | TRL | ours / TRL |",
            "| --- | ---: | ---: | ---: |",
            *(
                f"| {number} | {spread(one.ours.seconds)} | {spread(one.trl.seconds)} "
                f"| {one.ratio:.2f} |"
                for number, one in enumerate(rounds)
            ),
            f"| all | {spread(ours)} | {spread(trl)} | {overall:.2f} |",
            "",
            f"Sampled tokens per second of step: ours {tokens / median(ours):,.0f}, TRL "
            f"{tokens / median(trl):,.0f}.",
            "",
            "| Part of a step | | mean seconds | share |",
            "| --- | --- | ---: | ---: |",
            *phase_rows("ours", [one.ours for one in rounds]),
            *phase_rows("TRL", [one.trl for one in rounds]),
            "",
            "Ours is `mgrpo train` with everything on: Ray actors, a vLLM engine, reward "
            "processes, DeepSpeed, checksums and a probe after each broadcast. TRL samples with "
            "transformers; its vLLM modes need a GPU. What is compared, and how: "
            "[benchmarks/README.md](../../benchmarks/README.md).",
            "",
            *fact_rows(rounds, facts),
            "",
        ]
    )


def spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def phase_means(runs: Sequence[Steps]) -> dict[str, float]:
    """Mean seconds of each part of a step. They add up to the mean step: the rest is "other"."""
    means = {
        name: fmean(value for run in runs for value in run.phases[name]) for name in runs[0].phases
    }
    whole = fmean(value for run in runs for value in run.seconds)
    return {**means, "other": whole - sum(means.values())}


def phase_rows(system: str, runs: Sequence[Steps]) -> list[str]:
    means = phase_means(runs)
    whole = sum(means.values())
    names = PHASE_NAMES | {"other": "other" if system == "ours" else "rewards, update, other"}
    return [
        f"| {names[name]} | {system} | {seconds:.2f} | {seconds / whole:.0%} |"
        for name, seconds in means.items()
    ]


def fact_rows(rounds: Sequence[Round], facts: Mapping[str, Any]) -> list[str]:
    """What the numbers hold for."""
    trl = facts["trl"]
    loads = (f"{run.load_before:.1f}" for one in rounds for run in (one.ours, one.trl))
    rows = {
        "Machine": f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB",
        "Load average before each run": ", ".join(loads),
        "Ours": versions({"mgrpo": facts["mgrpo"], **facts["packages"]}),
        "TRL": f"{versions(trl['versions'])}; {trl['batch_size']} completions per forward and "
        f"backward, {trl['threads']} threads",
        "Python": facts["python"],
        "Date, commit": f"{facts['date']}, {facts['commit']}",
        "Command": f"`{facts['command']}`",
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
