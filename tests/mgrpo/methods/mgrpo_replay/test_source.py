"""Which corrections a step replays, and from when on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.methods.mgrpo_replay.source import ReplayedCorrections
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import Work
from mgrpo.types import Completion
from tests.mgrpo.methods.mgrpo_replay.test_correction_buffer import correction
from tests.mgrpo.training.sources.standing import standing


class Below:
    """The source below: gives work, or none, and notes what it observes."""

    def __init__(self, work: Work | None) -> None:
        self.work = work
        self.observed: list[Completion] = []

    def next(self, step: int, workers: Any, sums: MetricSums) -> Work | None:
        return self.work

    def observe(self, step: int, completions: list[Completion], sums: MetricSums) -> None:
        self.observed += completions


def source(tree: dict[str, Any], below: Below, **buffer: Any) -> ReplayedCorrections:
    return standing(ReplayedCorrections, RunConfig.model_validate(tree), below, **buffer)


def at_version(policy_version: int) -> Any:
    return SimpleNamespace(policy_version=policy_version)


def names(work: Work | None) -> list[str]:
    assert work is not None
    return sorted(one.completion.completion_id for one in work.replayed)


def test_good_corrections_are_added_to_the_work_of_later_steps(tree):
    below, sums = Below(Work(ready=[correction("x")])), MetricSums()
    part = source(tree, below)
    assert names(part.next(0, at_version(0), sums)) == []
    part.observe(0, [correction("a"), correction("b")], sums)
    work = part.next(1, at_version(1), sums)
    assert names(work) == ["a", "b"] and work is not None and work.ready == below.work.ready
    assert sums.means() == {"correction_buffer/replayed": 1.0, "correction_buffer/size": 2.0}
    assert [one.completion_id for one in below.observed] == ["a", "b"]


def test_corrections_of_policies_that_are_too_old_are_not_replayed(tree):
    part = source(tree, Below(Work()), max_age=2)
    part.observe(0, [correction("a", version_spans=((0, 3),))], MetricSums())
    assert names(part.next(1, at_version(5), MetricSums())) == ["a"]
    assert names(part.next(2, at_version(6), MetricSums())) == []


def test_a_step_without_work_replays_nothing(tree):
    part = source(tree, Below(None))
    part.observe(0, [correction("a")], MetricSums())
    assert part.next(1, at_version(1), MetricSums()) is None


def test_it_goes_on_where_another_stood(tree):
    part, other = source(tree, Below(Work())), source(tree, Below(Work()))
    part.observe(0, [correction("a"), correction("b")], MetricSums())
    other.load_state_dict(json.loads(json.dumps(part.state_dict())))
    assert names(other.next(4, at_version(0), MetricSums())) == ["a", "b"]
