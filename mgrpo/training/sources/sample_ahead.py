"""Following steps are drawn and sampled while one trains (`pipeline.max_staleness_steps`: k).

Nothing that was drawn is lost or doubled: before a step trains, the k after it are drawn, in their
order, and what is drawn is part of the state, with its completions once all of a step are sampled.
A run that resumes samples the rest again and trains on all of them first. So each problem trains in
the step that it was drawn for, or is counted in `pipeline/dropped_problems`
(`pipeline.min_done_fraction`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from mgrpo.errors import LearnerError, RunDirectoryError
from mgrpo.metric_sums import MetricSums
from mgrpo.records.json_object import JsonObject
from mgrpo.training.sampling import Sampling
from mgrpo.training.sources.source import Work, Workers
from mgrpo.training.sources.stack import SourceStack
from mgrpo.training.step_orders import StepWorkers
from mgrpo.types import Completion, Problem, Replayed

FILE = "ahead.jsonl"
"""In a checkpoint: the completions of the drawn steps, one in a line."""
STATE = "ahead"
READY, PARENT, REPLAYED = "ready", "parent", "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The work of a step before it trains."""

    step: int
    work: Work | None  # None: the step leaves the policy as it is
    sampling: Sampling | None = None  # of what the work asks for, once it is begun


class WorkState(TypedDict):
    """A work without its completions, in a checkpoint."""

    problems: list[str]  # their ids
    slots: list[int] | None
    layers: tuple[int, int] | None  # the first, and the one after the last


class DrawnState(TypedDict):
    """A drawn step in a checkpoint."""

    step: int
    work: WorkState | None


class SampleAhead:
    """Sources that are asked for some steps more than the one that trains.

    Args:
        sources: the recipe's own.
        problems: that states name by their ids.
        num_ahead: steps that are drawn before one trains.
        num_steps: of the whole run; nothing is drawn beyond it.
    """

    def __init__(
        self,
        sources: SourceStack,
        problems: Sequence[Problem],
        *,
        num_ahead: int,
        num_steps: int,
    ) -> None:
        self.sources, self.num_ahead, self.num_steps = sources, num_ahead, num_steps
        self.problems = problems
        self.drawn: deque[Drawn] = deque()  # the steps after this one, in their order
        self.here: Sampling | None = None  # of this step
        self.max_age = num_ahead  # more where a run is resumed with a lower bound

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        """What was drawn before for this step, or else the sources' own."""
        if not self.drawn:
            return self.sources.next(step, workers, sums)
        drawn = self.drawn.popleft()
        self.here = drawn.sampling
        return drawn.work

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.sources.observe(step, completions, sums)

    def overlapped_step(
        self, workers: StepWorkers, step: int, work: Work, sums: MetricSums
    ) -> list[Completion]:
        """One update, while the steps drawn ahead are sampled (a `StepOrder`)."""
        here, self.here = self.here or begun(workers, step, work), None
        self.begin_sampling(workers)
        if here is not None:
            work = sampled(work, workers.finish(here, sums))
        check_ages(work.ready, step, workers.policy_version, sums, max_age=self.max_age)
        last = self.drawn[-1].step if self.drawn else step
        for coming in range(last + 1, min(step + self.num_ahead, self.num_steps - 1) + 1):
            self.drawn.append(Drawn(step=coming, work=self.sources.next(coming, workers, sums)))
        self.begin_sampling(workers)
        done = workers.update_beside(step, work, sums)
        workers.broadcast_beside([one.sampling for one in self.drawn if one.sampling], sums)
        return done

    def begin_sampling(self, workers: StepWorkers) -> None:
        """Begin what is drawn and not yet begun."""
        for place, one in enumerate(self.drawn):
            if one.work is not None and one.sampling is None:
                self.drawn[place] = replace(one, sampling=begun(workers, one.step, one.work))

    def cancel(self) -> None:
        """End the sampling of what is drawn: its steps are not taken."""
        for one in self.drawn:
            if one.sampling is not None:
                one.sampling.task.cancel()

    # --- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Plain values; the completions are in `write_completions`."""
        states, drawn = self.sources.state_dict(), self.collected()
        return states | {STATE: [plain(one) for one in drawn]} if drawn else states

    def collected(self) -> list[Drawn]:
        """The drawn steps, with their completions where all of a step are sampled."""
        return [collected(one) for one in self.drawn]

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        self.sources.load_state_dict(states)
        waiting = states.get(STATE, ())
        named = {name for state in waiting for name in (state["work"] or {}).get("problems", ())}
        by_id = {one.problem_id: one for one in self.problems if one.problem_id in named}
        self.drawn = deque(drawn_before(state, by_id) for state in waiting)
        self.max_age = max(self.num_ahead, len(self.drawn))


def drawn_before(state: DrawnState, by_id: Mapping[str, Problem]) -> Drawn:
    own = state["work"]
    if own is None:
        return Drawn(step=state["step"], work=None)
    work = Work(
        problems=[by_id[name] for name in own["problems"]],
        slots=own["slots"],
        layers=None if own["layers"] is None else range(*own["layers"]),
    )
    return Drawn(step=state["step"], work=work)


def begun(workers: StepWorkers, step: int, work: Work) -> Sampling | None:
    """The sampling that the work asks for, begun; None where it asks for none."""
    return workers.begin(step, work) if work.problems else None


def sampled(work: Work, completions: Sequence[Completion]) -> Work:
    """The work with what it asked for."""
    return replace(work, problems=(), slots=None, ready=[*work.ready, *completions])


def collected(drawn: Drawn) -> Drawn:
    """With its completions, if its sampling is done.

    Not with those that an engine spoilt: their update fails, and would fail again after every
    resume. They are sampled once more.
    """
    if drawn.work is None or drawn.sampling is None or not drawn.sampling.is_done:
        return drawn
    completions = drawn.sampling.completions()
    if not all(np.isfinite(one.rollout_logprobs).all() for one in completions):
        return drawn
    return Drawn(step=drawn.step, work=sampled(drawn.work, completions))


def check_ages(
    completions: Sequence[Completion],
    step: int,
    policy_version: int,
    sums: MetricSums,
    *,
    max_age: int,
) -> None:
    """Measures how old the policy is that a step's completions were sampled by.

    Raises:
        LearnerError: older than the recipe allows.
    """
    ages = [policy_version - one.oldest_version for one in completions if one.id.step == step]
    if not ages:
        return
    sums.add("pipeline/staleness_mean", sum(ages), len(ages))
    sums.add("pipeline/staleness_max", max(ages))
    if max(ages) > max_age:
        raise LearnerError(
            f"Step {step} has completions that were sampled {max(ages)} updates ago, and "
            f"pipeline.max_staleness_steps is {max_age}. This is an error of mgrpo, not of the "
            "recipe."
        )


def plain(drawn: Drawn) -> DrawnState:
    """Of a drawn step what fits JSON, without completions."""
    work = drawn.work
    return {
        "step": drawn.step,
        "work": None
        if work is None
        else {
            "problems": [one.problem_id for one in work.problems],
            "slots": None if work.slots is None else list(work.slots),
            "layers": None if work.layers is None else (work.layers.start, work.layers.stop),
        },
    }


def lines_of(drawn: Drawn) -> Iterator[str]:
    """The completions of a drawn step, as lines of JSON."""
    work = drawn.work or Work()
    for one in work.ready:
        yield json.dumps({"for": drawn.step, "role": READY, **one.to_json()})
    for one in work.parents:
        yield json.dumps({"for": drawn.step, "role": PARENT, **one.to_json()})
    for again in work.replayed:
        then = {"advantage": again.advantage, "weight": again.weight}
        own = again.completion.to_json()
        yield json.dumps({"for": drawn.step, "role": REPLAYED, "then": then, **own})


def with_lines(drawn: Iterable[Drawn], lines: Iterable[str]) -> list[Drawn]:
    """Drawn steps with the completions of `lines_of`.

    Raises:
        RunDirectoryError: a line cannot be read.
    """
    works = {one.step: Found([], [], []) for one in drawn}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            works[row.pop("for")].add(row.pop("role"), row.pop("then", {}), row)
        except (ValueError, KeyError, TypeError) as error:
            raise RunDirectoryError(f"Line {number} of {FILE} cannot be read: {error}.") from error
    return [
        one if one.work is None else replace(one, work=works[one.step].into(one.work))
        for one in drawn
    ]


@dataclass(frozen=True, slots=True)
class Found:
    """The completions of one step in a file."""

    ready: list[Completion]
    parents: list[Completion]
    replayed: list[Replayed]

    def add(self, role: str, then: Mapping[str, float], row: JsonObject) -> None:
        one = Completion.from_json(row)
        if role == REPLAYED:
            self.replayed.append(Replayed(completion=one, **then))
        else:
            {READY: self.ready, PARENT: self.parents}[role].append(one)

    def into(self, work: Work) -> Work:
        return replace(work, ready=self.ready, parents=self.parents, replayed=self.replayed)


def write_completions(drawn: Sequence[Drawn], folder: Path) -> None:
    """Beside the state of a checkpoint."""
    if not drawn:
        return
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for one in drawn for line in lines_of(one))


def read_completions(drawn: Sequence[Drawn], folder: Path) -> list[Drawn]:
    """The drawn steps of a checkpoint, with their completions."""
    if not (folder / FILE).is_file():
        return list(drawn)
    with (folder / FILE).open(encoding="utf-8") as file:
        return with_lines(drawn, file)
