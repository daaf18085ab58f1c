"""Comparisons of step times as a page and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    tokens: list[float]  # that were sampled in each
    phases: dict[str, list[float]]  # named parts of each step, in seconds
    load_before: float  # load average of the last minute as the process was started

    def __add__(self, other: Steps) -> Steps:
        """Steps of which each does this one's work and the other's, one after the other."""
        return Steps(
            seconds=sums(self.seconds, other.seconds),
            tokens=sums(self.tokens, other.tokens),
            phases={name: sums(self.phases[name], other.phases[name]) for name in self.phases},
            load_before=self.load_before,
        )

    @property
    def seconds_per_token(self) -> float:
        """Of the median step, by the mean number of tokens."""
        return median(self.seconds) / fmean(self.tokens)


def sums(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True)
class Round:
    """Both systems once."""

    ours: Steps
    trl: Steps

    @property
    def ratio(self) -> float:
        """Our seconds a sampled token over TRL's: below 1, ours is faster."""
        return self.ours.seconds_per_token / self.trl.seconds_per_token


@dataclass(frozen=True)
class Work:
    """One work, and its rounds."""

    name: str
    profile: Profile
    rounds: list[Round]

    @property
    def ratio(self) -> float:
        """The median of the rounds'."""
        return median(one.ratio for one in self.rounds)


def result_of(name: str, works: Sequence[Work], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every measured step, and what the numbers hold for."""
    return {
        "benchmark": name,
        "ratios_to_trl": {work.name: work.ratio for work in works},
        **facts,
        "works": {
            work.name: {
                "profile": asdict(work.profile),
                "rounds": [asdict(one) | {"ratio": one.ratio} for one in work.rounds],
            }
            for work in works
        },
    }


def describe(works: Sequence[Work], facts: Mapping[str, Any], *, num_warm_up: int) -> str:
    """The page: a table for each work with its rounds and where the time goes, then the machine."""
    return "\n".join(
        [
            "Ours is `mgrpo train` with everything on: Ray actors, vLLM engines, reward "
            "processes, DeepSpeed, checksums and a probe after each broadcast. TRL samples with "
            "transformers; its vLLM modes need a GPU. A step is one update, without a KL term. "
            "Seconds per step: median (lowest to highest) of the steps after the first "
            f"{num_warm_up}. Ratios are of seconds a sampled token. What is compared, and how: "
            "[benchmarks/README.md](../../benchmarks/README.md).",
            *(line for work in works for line in work_lines(work)),
            "",
            *fact_rows([one for work in works for one in work.rounds], facts),
        ]
    )


def work_lines(work: Work) -> Iterator[str]:
    profile, rounds = work.profile, work.rounds
    yield ""
    yield f"## {profile.words}"
    yield ""
    yield (
        f"Trained in {profile.dtype}; a Llama of {profile.num_layers} layers and hidden size "
        f"{profile.hidden_size} with random weights."
    )
    if profile.num_corrections:
        yield (
            "TRL has one layer: its step is one of a trainer with the attempts and one of a "
            "trainer with the corrections, whose prompts are as long as ours."
        )
    yield ""
    yield "| Round | ours | TRL | ours / TRL |"
    yield "| --- | ---: | ---: | ---: |"
    for number, one in enumerate(rounds):
        both = f"{spread(one.ours.seconds)} | {spread(one.trl.seconds)}"
        yield f"| {number} | {both} | {one.ratio:.2f} |"
    ours = [seconds for one in rounds for seconds in one.ours.seconds]
    trl = [seconds for one in rounds for seconds in one.trl.seconds]
    yield f"| all | {spread(ours)} | {spread(trl)} | {work.ratio:.2f} |"
    yield ""
    rates = [
        1 / median(steps.seconds_per_token for steps in system)
        for system in ([one.ours for one in rounds], [one.trl for one in rounds])
    ]
    yield f"Sampled tokens per second of step: ours {rates[0]:,.0f}, TRL {rates[1]:,.0f}."
    yield ""
    yield "| Part of a step | | mean seconds | share |"
    yield "| --- | --- | ---: | ---: |"
    yield from phase_rows("ours", [one.ours for one in rounds])
    yield from phase_rows("TRL", [one.trl for one in rounds])


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
