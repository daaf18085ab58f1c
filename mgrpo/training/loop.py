"""The training loop. Read this file first: it refers to all other parts.

problems -> layer-1 engines -> checks -> layer-2 engines -> checks -> learner
    engines <- verified weights <-------------------------------------- |

Four parts, each its own file, none of which knows a method by name:

- a *source* provides a step's problems and completions, and keeps its own state
  (sources/source.py);
- the *workers* sample, update and broadcast: engines and learner (workers.py);
- the *order* is the program of a step over these verbs (step_orders.py);
- *hooks* measure, write, warn, evaluate and save after each step (hooks.py, checkpoints.py).

What is sampled for one problem is in actors/rollout.py. `run.py` puts the parts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgrpo.metric_sums import MetricSums
from mgrpo.storage.policies import EarlyEnd
from mgrpo.training.hooks import Hook, StepDone
from mgrpo.training.sources.sample_ahead import SampleAhead
from mgrpo.training.step_orders import StepOrder, StepWorkers
from mgrpo.training.workers import timed
from mgrpo.types import Completion


@dataclass(frozen=True, kw_only=True)
class Run:
    """The interface of a run for the loop."""

    first_step: int  # above 0 in a resumed run
    num_steps: int  # of the whole run
    source: SampleAhead
    workers: StepWorkers
    order: StepOrder
    hooks: Sequence[Hook]
    stop_because: str = ""  # a resumed run that was ending


def train(run: Run) -> EarlyEnd | None:
    """Improve the policy until `num_steps` steps are done, or a hook ends the run.

    Returns:
        The hook's end; None: all steps are done.
    """
    num_done, stop_because = run.first_step, run.stop_because
    for hook in run.hooks:
        hook.before_run(run.first_step)
    while num_done < run.num_steps and not stop_because:
        step = num_done
        sums = MetricSums()
        with timed(sums, "seconds/step"):
            completions = take_step(run, step, sums)
        done = StepDone(step, completions, run.workers.policy_version, sums)
        for hook in run.hooks:
            hook.measure(done)
        for hook in run.hooks:
            hook.after_step(done)
        num_done, stop_because = done.num_done, done.stop_because
        if stop_because:
            run.source.cancel()
    for hook in run.hooks:
        hook.after_run(num_done)
    return EarlyEnd(num_done, stop_because) if stop_because else None


def take_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """One step; returns what it sampled or trained on, after the parents of that."""
    work = run.source.next(step, run.workers, sums)
    if work is None:
        return []
    completions = run.order(run.workers, step, work, sums)
    run.source.observe(step, completions, sums)
    return [*work.parents, *completions]
