"""The next step is sampled while this one trains (`pipeline.max_staleness_steps: 1`).

Nothing that was drawn is lost or doubled: what is drawn for the next step is part of the state,
with its completions as far as they are sampled, so a run that resumes trains on them first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from mgrpo.errors import RunDirectoryError
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import Work, Workers
from mgrpo.training.sources.stack import SourceStack
from mgrpo.training.step_orders import StepWorkers
from mgrpo.types import Completion, Problem, Replayed

FILE = "ahead.jsonl"
"""In a checkpoint: the completions of the next step, one in a line."""
STATE = "ahead"
READY, PARENT, REPLAYED = "ready", "parent", "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The work of a step before it trains."""

    step: int
    work: Work | None  # None: the step leaves the policy as it is
    is_sampled: bool  # then `work.ready` holds everything that trains


class WorkState(TypedDict):
    """A work without its completions, in a checkpoint."""

    problems: list[str]  # their ids
    slots: list[int] | None
    layers: tuple[int, int] | None  # the first, and the one after the last


class DrawnState(TypedDict):
    """A drawn step in a checkpoint."""

    step: int
    is_sampled: bool
    work: WorkState | None


class SampleAhead:
    """Sources that are asked for one step more than trains.

    Args:
        sources: the recipe's own.
        problems: that states name by their ids.
        num_steps: of the whole run; nothing is drawn beyond it.
    """

    def __init__(
        self, sources: SourceStack, problems: Sequence[Problem], *, num_steps: int
    ) -> None:
        self.sources, self.num_steps = sources, num_steps
        self.by_id = {one.problem_id: one for one in problems}
        self.following: Drawn | None = None

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        """What was drawn before for this step, or else the sources' own."""
        drawn, self.following = self.following, None
        if drawn is None:
            return self.sources.next(step, workers, sums)
        return drawn.work

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.sources.observe(step, completions, sums)

    def overlapped_step(
        self, workers: StepWorkers, step: int, work: Work, sums: MetricSums
    ) -> list[Completion]:
        """One update of a step that is sampled, while the next is (a `StepOrder`)."""
        here = sampled_work(workers, step, work, sums)
        following = None
        if step + 1 < self.num_steps:
            following = Drawn(
                step=step + 1, work=self.sources.next(step + 1, workers, sums), is_sampled=False
            )
        self.following = following
        beside = None if following is None else following.work
        done, sampled = workers.update_beside(step, here, beside, sums)
        if beside is not None and sampled is not None:
            ready = replace(beside, problems=(), ready=[*beside.ready, *sampled])
            self.following = Drawn(step=step + 1, work=ready, is_sampled=True)
        workers.broadcast(sums)
        return done

    # --- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Plain values; the completions are in `write_completions`."""
        states = self.sources.state_dict()
        if self.following is None:
            return states
        return states | {STATE: plain(self.following)}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        self.sources.load_state_dict(states)
        state = states.get(STATE)
        self.following = None if state is None else self.drawn(state)

    def drawn(self, state: DrawnState) -> Drawn:
        own = state["work"]
        if own is None:
            return Drawn(step=state["step"], work=None, is_sampled=False)
        work = Work(
            problems=[self.by_id[name] for name in own["problems"]],
            slots=own["slots"],
            layers=None if own["layers"] is None else range(*own["layers"]),
        )
        return Drawn(step=state["step"], work=work, is_sampled=state["is_sampled"])


def sampled_work(workers: StepWorkers, step: int, work: Work, sums: MetricSums) -> Work:
    """The work with everything sampled that it asks for."""
    if not work.problems:
        return work
    sampled = workers.sample(
        step,
        work.problems,
        sums,
        layers=work.layers,
        attempts=[*work.ready, *work.parents],
        slots=work.slots,
    )
    return replace(work, problems=(), ready=[*work.ready, *sampled])


def plain(drawn: Drawn) -> DrawnState:
    """Of a drawn step what fits JSON, without completions."""
    work = drawn.work
    return {
        "step": drawn.step,
        "is_sampled": drawn.is_sampled,
        "work": None
        if work is None
        else {
            "problems": [one.problem_id for one in work.problems],
            "slots": None if work.slots is None else list(work.slots),
            "layers": None if work.layers is None else (work.layers.start, work.layers.stop),
        },
    }


def lines_of(work: Work) -> Iterator[str]:
    """The completions of a work, as lines of JSON."""
    for one in work.ready:
        yield json.dumps({"role": READY, **one.to_json()})
    for one in work.parents:
        yield json.dumps({"role": PARENT, **one.to_json()})
    for again in work.replayed:
        then = {"advantage": again.advantage, "weight": again.weight}
        yield json.dumps({"role": REPLAYED, "then": then, **again.completion.to_json()})


def with_lines(work: Work, lines: Iterator[str]) -> Work:
    """A work with the completions of `lines_of`.

    Raises:
        RunDirectoryError: a line cannot be read.
    """
    ready: list[Completion] = []
    parents: list[Completion] = []
    replayed: list[Replayed] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            role, then = row.pop("role"), row.pop("then", {})
            one = Completion.from_json(row)
        except (ValueError, KeyError, TypeError) as error:
            raise RunDirectoryError(f"Line {number} of {FILE} cannot be read: {error}.") from error
        if role == REPLAYED:
            replayed.append(Replayed(completion=one, **then))
        else:
            (ready if role == READY else parents).append(one)
    return replace(work, ready=ready, parents=parents, replayed=replayed)


def write_completions(drawn: Drawn | None, folder: Path) -> None:
    """Beside the state of a checkpoint."""
    if drawn is None or drawn.work is None:
        return
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines_of(drawn.work))


def read_completions(drawn: Drawn | None, folder: Path) -> Drawn | None:
    """The drawn step of a checkpoint, with its completions."""
    if drawn is None or drawn.work is None or not (folder / FILE).is_file():
        return drawn
    with (folder / FILE).open(encoding="utf-8") as file:
        return replace(drawn, work=with_lines(drawn.work, file))
