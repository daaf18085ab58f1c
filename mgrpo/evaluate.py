"""Held-out accuracy of every turn: Acc@t1', Acc@t2, and the moves between them.

Turn k's accuracy is the mean over all problems, samples and guidance phrases. Every attempt is
given back, truncated or not, so the turns are compared on the same problems.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.layers import PromptRequest, correction_requests, solve_request
from actors.rollout import Rollout, place_key, run_together
from mgrpo.config import EvaluationConfig, RunConfig
from mgrpo.config.layers import LayerConfig
from mgrpo.transitions import (
    Transitions,
    count_transitions,
    is_usable,
    pairs_of,
)
from mgrpo.types import Completion, Problem


@dataclass(frozen=True)
class Evaluation:
    """All completions of one evaluation; `summary` turns them into numbers."""

    completions: list[Completion]
    num_layers: int
    phrases: list[int]  # guidance ids that were used

    def layer(self, number: int, domain: str | None = None) -> list[Completion]:
        return [
            c
            for c in self.completions
            if c.layer == number and is_usable(c) and domain in (None, c.domain)
        ]

    def accuracy(self, number: int, *, domain: str | None = None) -> float:
        """Share of right answers of one turn."""
        return fraction_correct(self.layer(number, domain))

    def accuracy_range(self, number: int) -> tuple[float, float]:
        """Lowest and highest accuracy of one turn over the guidance phrases."""
        if number == 1:
            return (self.accuracy(1), self.accuracy(1))
        here = self.layer(number)
        by_phrase = [
            fraction_correct([c for c in here if c.guidance_id == phrase])
            for phrase in self.phrases
        ]
        return (min(by_phrase), max(by_phrase))

    def transitions(self, number: int) -> Transitions:
        return count_transitions(pairs_of(self.completions, number))

    def summary(self) -> dict[str, Any]:
        """The form of a line of evaluation.jsonl, less the step, label and decoding."""
        turns = range(1, self.num_layers + 1)
        domains = sorted({c.domain for c in self.completions})
        accuracies = [self.accuracy(turn) for turn in turns]
        return {
            "num_problems": num_problems(self.completions),
            "acc": accuracies,
            "acc_range": [list(self.accuracy_range(turn)) for turn in turns],
            "delta": accuracies[-1] - accuracies[0],
            "transitions": [
                transition_summary(turn, self.transitions(turn)) for turn in turns if turn > 1
            ],
            "domains": {
                domain: {
                    "num_problems": num_problems(
                        [c for c in self.completions if c.domain == domain]
                    ),
                    "acc": [self.accuracy(turn, domain=domain) for turn in turns],
                }
                for domain in domains
            },
            "num_failed_checks": sum(not is_usable(c) for c in self.completions),
        }


def transition_summary(layer: int, transitions: Transitions) -> dict[str, Any]:
    counts = dataclasses.asdict(transitions)
    return {
        "layer": layer,
        **transitions.fractions(),
        "copy_fraction": transitions.num_copies / max(1, transitions.num_pairs),
        "counts": counts,
    }


def num_problems(completions: Sequence[Completion]) -> int:
    return len({place_key(completion) for completion in completions})


def fraction_correct(completions: Sequence[Completion]) -> float:
    return sum(c.is_correct for c in completions) / max(1, len(completions))


def evaluate(
    rollout: Rollout, problems: Sequence[Problem], config: EvaluationConfig, *, key: str
) -> tuple[Evaluation, float]:
    """Score problems with the engines' current weights.

    Args:
        rollout: whose engines, layers and scorer are used; sampling settings come from `config`.
        problems: the held-out problems.
        config: decoding and guidance.
        key: seeds the sampling; the same key repeats it.

    Returns:
        The evaluation, and the seconds that it took.
    """
    began = time.monotonic()
    greedy = config.decoding == "greedy"
    examiner = dataclasses.replace(
        rollout, temperature=0.0 if greedy else config.temperature, clocks={}
    )
    num_phrases = max((len(layer.guidance.phrases) for layer in rollout.layers[1:]), default=1)
    phrases = list(range(num_phrases)) if config.guidance == "all" else [0]
    completions = asyncio.run(examine_all(examiner, problems, config, phrases, key))
    return Evaluation(completions, len(rollout.layers), phrases), time.monotonic() - began


async def examine_all(
    examiner: Rollout,
    problems: Sequence[Problem],
    config: EvaluationConfig,
    phrases: Sequence[int],
    key: str,
) -> list[Completion]:
    return await run_together(
        examine(examiner, problem, config, phrases, f"{key}{index}")
        for index, problem in enumerate(problems)
    )


async def examine(
    examiner: Rollout,
    problem: Problem,
    config: EvaluationConfig,
    phrases: Sequence[int],
    key: str,
) -> list[Completion]:
    """One problem through all turns: each attempt once under each phrase."""
    first = solve_request(examiner.builder, examiner.layers[0], problem, key=key)
    request = dataclasses.replace(first, num_samples=config.samples_per_problem)
    attempts = await examiner.sample_all(1, problem, [request])
    done = list(attempts)
    for number, layer in enumerate(examiner.layers[1:], start=2):
        requests: list[PromptRequest] = []
        for attempt in attempts:
            requests += correction_requests(
                examiner.builder, layer, problem, attempt, phrases_for(layer, attempt, phrases)
            )
        attempts = await examiner.sample_all(number, problem, requests)
        done += attempts
    return done


def phrases_for(layer: LayerConfig, attempt: Completion, phrases: Sequence[int]) -> list[int]:
    """Every phrase for a first attempt; from then on a chain keeps its own."""
    if attempt.guidance_id is None:
        return [phrase for phrase in phrases if phrase < len(layer.guidance.phrases)]
    return [min(attempt.guidance_id, len(layer.guidance.phrases) - 1)]


def evaluation_row(
    evaluation: Evaluation, *, step: int, label: str, seconds: float, config: RunConfig
) -> dict[str, Any]:
    """A line of evaluation.jsonl."""
    settings = config.evaluation
    return {
        "step": step,
        "label": label,
        "decoding": settings.decoding,
        "samples_per_problem": settings.samples_per_problem,
        "guidance": settings.guidance,
        **evaluation.summary(),
        "seconds": round(seconds, 2),
    }
