"""Evaluation on held-out problems: decoding, samples, guidance and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.engines import MIN_TEMPERATURE
from mgrpo.config.layers import LayerConfig, later_layers
from mgrpo.errors import ConfigFault, Faults, must_be

Guidance = Literal["all", "first", "random"] | list[NonNegativeInt]
GUIDANCE_WORDS = ("all", "first", "random")
GUIDANCE_KEYS = ("guidance", "guidance_during")
FEWEST_RESAMPLES = 100  # with fewer, a 95 % interval rests on two or three draws


class DecodeSelectConfig(StrictConfig):
    """A vote among the sufficiently likely samples (DeSel, after arXiv 2310.06374)."""

    ratio: NonNegativeFloat = 0.6
    """A sample votes at this share of the anchor's likelihood (per token) or more; 0: all vote."""
    anchor: Literal["greedy", "max_likelihood"] = "greedy"
    """greedy: one additional greedy answer for each problem, which also votes. max_likelihood:
    the likeliest sample, which costs nothing."""
    top_k: PositiveInt | None = None
    """Maximum number of voting samples, the likeliest; null: all."""


class EvaluationConfig(StrictConfig):
    """Evaluation of the held-out problems before, during and after training."""

    every_steps: NonNegativeInt = 0
    """Also evaluate every this many steps; 0: only before and after."""
    max_problems: PositiveInt | None = None
    decoding: Literal["greedy", "sampled"] = "greedy"
    temperature: float = Field(default=1.0, ge=MIN_TEMPERATURE)
    """For `decoding: sampled`."""
    samples_per_problem: PositiveInt = 1
    """First attempts per problem; accuracies are averaged over them. Needs `sampled` above 1."""
    guidance: Guidance = "all"
    """Which guidance phrases open a correction: all (mean and range are reported), first, random
    (one seeded draw per attempt), or a list of their numbers, counted from 0."""
    guidance_during: Guidance = "first"
    """The same for evaluations during training (`every_steps`), whose time is the run's: with all
    of seven phrases they sample four times as much as with one."""
    feedback: bool = True
    """Whether corrections read the feedback of the attempt's check where their layer asks for it
    (`guidance: {from: check}`). A phrase otherwise: what the policy does without a check."""
    pass_at: list[PositiveInt] | None = None
    """The k of pass@k and maj@k; None takes 1, 2, 4, ... up to samples_per_problem."""
    decode_select: DecodeSelectConfig | None = None
    """Null: maj@k counts every sample alike, and there is no vote of the likely ones alone."""
    bootstrap_resamples: int = Field(default=1000, ge=0)
    """Bootstrap resamples for the 95 % intervals; 0 leaves the intervals out."""

    @model_validator(mode="before")
    @classmethod
    def check_guidance(cls, values: object) -> object:
        # Pydantic would complain once for each half of the union, and never say what to write.
        given = values if isinstance(values, dict) else {}
        faults = [
            ConfigFault(
                key,
                repr(given[key]),
                "is not a choice of phrases.",
                f"Allowed: {', '.join(GUIDANCE_WORDS)}, or a list of different phrase numbers such "
                "as [0, 3].",
            )
            for key in GUIDANCE_KEYS
            if key in given and not is_choice(given[key])
        ]
        if faults:
            raise RelationError(faults)
        return values

    @model_validator(mode="after")
    def check_samples(self) -> EvaluationConfig:
        faults = []
        if self.decoding == "greedy" and self.samples_per_problem > 1:
            faults.append(
                ConfigFault(
                    "samples_per_problem",
                    str(self.samples_per_problem),
                    "greedy decoding gives the same completion each time.",
                    "Use decoding: sampled, or 1.",
                )
            )
        if self.pass_at is not None:
            faults += pass_at_faults(self.pass_at, self.samples_per_problem)
        if self.decode_select is not None:
            faults += select_faults(self)
        if 0 < self.bootstrap_resamples < FEWEST_RESAMPLES:
            faults.append(
                ConfigFault(
                    "bootstrap_resamples",
                    str(self.bootstrap_resamples),
                    "too few for a 95 % interval.",
                    f"Nearest valid value: {FEWEST_RESAMPLES}; 0 leaves the intervals out.",
                )
            )
        if faults:
            raise RelationError(faults)
        return self

    @property
    def ks(self) -> list[int]:
        """The k of pass@k and maj@k, ascending."""
        if self.pass_at is not None:
            return sorted(set(self.pass_at))
        return [2**power for power in range(self.samples_per_problem.bit_length())]


def is_choice(given: object) -> bool:
    """Is it one of the words, or a list of different numbers?"""
    if isinstance(given, str):
        return given in GUIDANCE_WORDS
    return (
        isinstance(given, list)
        and len(given) > 0
        and all(type(index) is int and index >= 0 for index in given)
        and len(set(given)) == len(given)
    )


def select_faults(settings: EvaluationConfig) -> Faults:
    """A vote needs several samples, and likelihoods are compared at one temperature."""
    if settings.samples_per_problem < 2:
        why = f"chooses among samples, and there is {settings.samples_per_problem} of each problem."
        hint = "Set samples_per_problem to 2 or more, with decoding: sampled; 10 is usual."
        yield ConfigFault("decode_select", "(given)", why, hint)
    why = "decode_select compares likelihoods, which are those of the policy at temperature 1."
    yield from must_be("temperature", settings.temperature, 1, why)


def pass_at_faults(pass_at: Sequence[int], num_samples: int) -> Faults:
    largest = max(pass_at, default=0)
    if not pass_at:
        yield ConfigFault("pass_at", "[]", "names no k.", "Remove the key for 1, 2, 4 and so on.")
    if largest > num_samples:
        there = f"there {'is' if num_samples == 1 else 'are'} {num_samples}"
        why = f"pass@{largest} needs {largest} samples of each problem, and {there}."
        hint = f"Set samples_per_problem to {largest} or more, with decoding: sampled."
        yield ConfigFault("pass_at", str(list(pass_at)), why, hint)


def guidance_faults(settings: EvaluationConfig, layers: Sequence[LayerConfig]) -> list[ConfigFault]:
    """Phrases of the evaluations that a later layer lacks."""
    return [
        fault
        for key in GUIDANCE_KEYS
        for fault in phrase_faults(f"evaluation.{key}", getattr(settings, key), layers)
    ]


def phrase_faults(path: str, chosen: Guidance, layers: Sequence[LayerConfig]) -> Faults:
    if not isinstance(chosen, list):
        return
    if len(layers) == 1:
        why = "the chain has one layer, so no correction is opened by a phrase."
        yield ConfigFault(path, str(chosen), why, "Remove the key.")
    for depth, layer in enumerate(later_layers(layers), start=1):
        count = len(layer.guidance.phrases)
        if max(chosen) >= count:
            phrases = f"{count} {'phrase' if count == 1 else 'phrases'}"
            why = f"layers.{depth} ({layer.name}) has only {phrases}, counted from 0."
            yield ConfigFault(path, str(chosen), why, f"Valid: 0 to {count - 1}.")
