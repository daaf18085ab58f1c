"""What a scale asks of GPUs, before one is used: memory and hours, by `mgrpo plan`'s simulation."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.second_look.design import ARMS, Trial, trials_at
from benchmarks.second_look.page import table, title
from benchmarks.second_look.scales import Scale
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.plan.build import make_plan
from mgrpo.plan.hardware import Hardware, named_hardware
from mgrpo.plan.layout import laid_out
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.shape import ModelShape

START_S = 120.0
"""Guess for a command's imports, weights and CUDA graphs, until its first completion."""
SCORED_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One trial, simulated."""

    trial: Trial
    step_s: float
    scoring_s: float
    fault: str  # "": it fits

    @property
    def hours(self) -> float:
        training = self.trial.scale.steps * self.step_s
        return (2 * START_S + training + self.scoring_s) / 3600


def plan_text(scale: Scale, gpus: str, shape: ModelShape) -> str:
    """A row for each arm and family with one seed, and how long all of them take."""
    found = planned(scale, named_hardware(gpus, 1), shape)
    rows = [
        [
            *(one.trial.family, title(one.trial.arm), f"{one.step_s:.0f}", f"{one.scoring_s:.0f}"),
            *(f"{60 * one.hours:.0f}", one.fault or "fits"),
        ]
        for one in found
    ]
    head = ("Family", "Arm", "s a step", "s of scoring", "min in all", "memory")
    hours, seeds = sum(one.hours for one in found), scale.num_seeds["confirming"]
    return (
        f"{table(head, rows)}\n\n{hours:.1f} hours for a seed of each arm and family, "
        f"{seeds * hours:.0f} for all {seeds} seeds: simulated by the data sheet of {gpus}, with "
        f"completions of half the maximum length and {START_S:.0f} s for each start. Trials go "
        "seed by seed; a command that was stopped goes on where it was."
    )


def planned(scale: Scale, hardware: Hardware, shape: ModelShape) -> list[PlannedTrial]:
    """The first seed of every arm and family."""
    return [
        planned_trial(trials_at("confirming", family, arm, scale.rates[0])[0], hardware, shape)
        for family in scale.families
        for arm in ARMS
    ]


def planned_trial(trial: Trial, hardware: Hardware, shape: ModelShape) -> PlannedTrial:
    """
    Raises:
        ConfigError: the hardware's speed is not known.
    """
    training, scoring = trial.configs()
    config, layout = laid_out(training, hardware.gpu_count(hardware.nodes))
    plan = make_plan(plan_recipe(config), shape, hardware, layout=layout)
    if plan.own is None:
        raise ConfigError([ConfigFault("--plan", hardware.description, "its speed is unknown.")])
    num_scored = trial.problems.num_scored * scoring.evaluation.samples_per_problem * SCORED_TURNS
    return PlannedTrial(
        trial=trial,
        step_s=plan.own.outcome.seconds_per_step,
        # At the rate of training, which has updates, too: an upper bound.
        scoring_s=num_scored * trial.problems.max_tokens / 2 / plan.own.tokens_per_s,
        fault="; ".join(line.detail for line in plan.lines if line.status == "fail"),
    )
