"""One update: from weighted rows to optimizer steps, on one rank of several.

Knows of the engine only that it can be called, `backward`ed through and `step`ped, so nothing
here depends on how weights and optimizer are sharded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from cluster.progress_board import ProgressBoard
from learner.batch import refreshed
from learner.columns import Metrics
from learner.gradient_sums import GradientSums, live_gradient
from learner.nonfinite import Suspects, Trace, explained, suspects, traced
from learner.objective import microbatch_loss, old_logprobs_of, token_measurements
from learner.packing import Microbatch
from learner.plugin import LearnerPlugin
from learner.policy_reader import PolicyReader, Weights, first_token_of, places_of
from learner.recipe import LearnerRecipe
from learner.rows import Minibatch, TrainingRow
from learner.schedule import learning_rate_at
from learner.shifted_logprobs import Shift, described, is_shifted, mean_shifts
from learner.update_metrics import UpdateSums, gap_metrics, merge
from learner.zero_parts import own_numbers
from mgrpo.config import ObjectiveConfig, StepConfig
from mgrpo.errors import LearnerError

logger = logging.getLogger(__name__)

MEASUREMENT_OF: dict[Weights, str] = {
    "policy": "policy_logprobs",
    "reference": "ref_logprobs",
    "ema": "ema_logprobs",
}
"""Under what name the time of a pass without gradient is counted."""
Found = TypeVar("Found")
NOTHING_TRAINED: Metrics = {
    "learner/skipped_updates": (1.0, 1.0),
    "learner/optimizer_steps": (0.0, 1.0),
}
MUST_BE_FINITE = {"loss": "loss", "gradient": "gradient_probe"}
"""By its name in messages, the sum that says it."""
ROLLOUT_TOTALS = ("learner/tokens", "learner/row_tokens", "learner/input_tokens")
"""Metrics that minibatches add up."""


class LaidOut:
    """A rank's micro-batches: each is laid out while the one before it computes.

    They are laid out anew for every pass, so that one or two of them are held, never all.
    """

    def __init__(
        self, reader: PolicyReader, rows: Sequence[TrainingRow], plan: list[list[int]]
    ) -> None:
        self.reader, self.rows, self.plan = reader, rows, plan

    def __iter__(self) -> Iterator[Microbatch]:
        with ThreadPoolExecutor(1, thread_name_prefix="lay-out") as thread:
            following = thread.submit(self.lay_out, 0)
            for number in range(len(self.plan)):
                here = following.result()
                if number + 1 < len(self.plan):
                    following = thread.submit(self.lay_out, number + 1)
                yield here

    def lay_out(self, number: int) -> Microbatch:
        return self.reader.collated([self.rows[place] for place in self.plan[number]])

    def in_order(self, values: Sequence[Tensor]) -> Tensor:
        """Values of each micro-batch's tokens -> [m] float64 of all rows' tokens end to end."""
        first_tokens = first_token_of(self.rows)
        found = torch.zeros(first_tokens[-1], dtype=torch.float64)
        for indices, part in zip(self.plan, values, strict=True):
            if indices:
                found[places_of(indices, first_tokens)] = part.cpu().double()
        return found


@dataclass
class Passed:
    """What the backward passes of one part of an update found, on this rank."""

    sums: UpdateSums
    gaps: list[Tensor] = field(default_factory=list)  # [n] each: |learner - rollout|, nats
    traces: list[Trace] = field(default_factory=list)  # of each micro-batch
    shifts: list[Tensor] = field(default_factory=list)  # [rows] likewise, nats a token


@dataclass
class OptimizerStep:
    """What one optimizer step trains on, and what was measured before the first of the rollout."""

    minibatch: Minibatch
    microbatches: LaidOut
    old_logprobs: list[Tensor] | None = None  # [n] of each micro-batch; None: the current ones
    ref_logprobs: list[Tensor] | None = None  # [n] of each micro-batch


class Trainer:
    """Runs the passes of an update; every rank holds one and calls it for its rows."""

    def __init__(
        self,
        *,
        recipe: LearnerRecipe,
        engine: Any,
        reference: Any,
        ema: Any = None,
        optimizer: torch.optim.Optimizer,
        plugins: Sequence[LearnerPlugin] = (),
        grad_norm: Callable[[], float],
        num_ranks: int,
        device: torch.device,
        board: ProgressBoard | None = None,
    ) -> None:
        """
        Args:
            engine: a DeepSpeed engine around a PolicyModel; averages gradients over ranks.
            reference: the frozen policy, called like the engine, or None where nothing needs it.
            ema: the policy's running average, likewise.
            plugins: those that may have an objective or a loss of their own.
            grad_norm: the whole gradient's norm, asked for after each step.
            board: is told of each pass.
        """
        self.recipe, self.settings = recipe, recipe.settings
        self.engine = engine
        models: dict[Weights, Any] = {"policy": engine, "reference": reference, "ema": ema}
        self.reader = PolicyReader(
            {name: model for name, model in models.items() if model is not None},
            settings=recipe.settings,
            temperature=recipe.method.sampling.temperature,
            merges_prefixes=engine.module.merges_prefixes,
            hidden_size=engine.module.hidden_size,
            device=device,
            num_ranks=num_ranks,
            board=board,
        )
        self.set_values(recipe.method.outside_phases)
        self.optimizer, self.grad_norm = optimizer, grad_norm
        self.plugins = plugins
        self.num_ranks, self.device = num_ranks, device
        self.warnings: list[str] = []  # of the update
        self._nonfinite_in_a_row = 0
        self._trained = {
            name.removeprefix("causal_lm."): one
            for name, one in engine.module.named_parameters()
            if one.requires_grad
        }
        self._gradient_probe = torch.zeros(len(self._trained), dtype=torch.float64, device=device)
        for number, parameter in enumerate(self._trained.values()):
            parameter.register_hook(partial(self._probe_gradient, number))

    def train(
        self,
        minibatches: Sequence[Minibatch],
        policy_version: int,
        values: StepConfig | None = None,
    ) -> Metrics:
        """Every optimizer step on one rollout: one for each minibatch, and all of them again for
        each further update. A minibatch without rows on any rank takes no step.

        Args:
            values: the sections of this step; None: those outside phases.

        Raises:
            LearnerError: too many losses or gradients in a row were not finite.
        """
        self.set_values(values or self.recipe.method.outside_phases)
        planned = [(one, plan) for one in minibatches if (plan := self.reader.plan(one.rows))]
        if not planned:
            return dict(NOTHING_TRAINED)
        learning_rate = self._set_learning_rate(policy_version)
        steps = [
            self._measured(
                one, plan, is_only=len(planned) * self.objective.updates_per_rollout == 1
            )
            for one, plan in planned
        ]
        metrics: Metrics = {}
        gaps: list[Tensor] = []
        for number in range(self.objective.updates_per_rollout):
            for place, step in enumerate(steps):
                if number + place > 0:
                    self._refresh(step)
                passed = self._nothing_passed()
                self._gradient_probe.zero_()
                self._accumulate(step.microbatches, step.old_logprobs, step.ref_logprobs, passed)
                merge(
                    metrics, self._step(passed, step.minibatch.rows, learning_rate, policy_version)
                )
                gaps += passed.gaps if number == 0 else []
        for name in ROLLOUT_TOTALS:
            total, count = metrics[name]
            metrics[name] = (total, count / len(steps))
        taken = len(steps) * self.objective.updates_per_rollout
        metrics["learner/optimizer_steps"] = (float(taken), 1.0)
        return metrics | gap_metrics(torch.cat(gaps), self.num_ranks)

    def _measured(
        self, minibatch: Minibatch, plan: list[list[int]], *, is_only: bool
    ) -> OptimizerStep:
        """What is measured before the first optimizer step on a rollout.

        Args:
            is_only: no other step is taken on the rollout.
        """
        step = OptimizerStep(minibatch, LaidOut(self.reader, minibatch.rows, plan))
        if not is_only:
            step.old_logprobs = self._logprobs("policy", step.microbatches)
        if "reference" in self.reader.models:
            step.ref_logprobs = self._logprobs("reference", step.microbatches)
        return step

    def _refresh(self, step: OptimizerStep) -> None:
        """Take the columns that plug-ins compute again under the weights now."""
        if step.minibatch.batch is None:
            return
        assert step.old_logprobs is not None, "this is not the only step"
        now = self._logprobs("policy", step.microbatches)
        step.microbatches.rows = refreshed(
            step.minibatch,
            self.plugins,
            step.microbatches.in_order(now),
            step.microbatches.in_order(step.old_logprobs),
        )

    # --- an update whose trees come one after the other ------------------------------------------

    def begin(self, values: StepConfig) -> None:
        """Begin an update of one optimizer step; forget one that was begun and not finished."""
        self.set_values(values)
        self._gradients = GradientSums(live_gradient(self.engine))
        self._gradients.drop()
        self._gradient_probe.zero_()
        self._parts: dict[int, Passed] = {}
        self._added: list[TrainingRow] = []

    def add(self, rows: Sequence[TrainingRow], part: int) -> None:
        """Forward and backward of rows; `finish` multiplies the gradient of each part.

        Args:
            rows: that this rank trains. Others may have none: every rank calls this alike.
        """
        plan = self.reader.plan(rows)
        if not plan:
            return
        microbatches = LaidOut(self.reader, rows, plan)
        ref_logprobs = None
        if "reference" in self.reader.models:
            ref_logprobs = self._logprobs("reference", microbatches)
        self._gradients.turn_to(part)
        if part not in self._parts:
            self._parts[part] = self._nothing_passed()
        self._accumulate(microbatches, None, ref_logprobs, self._parts[part])
        self._added += rows

    def finish(self, factors: Mapping[int, float], policy_version: int) -> Metrics:
        """The step along `sum of factor * gradient` over the parts.

        Raises:
            LearnerError: too many losses or gradients in a row were not finite.
        """
        if not self._parts:
            return dict(NOTHING_TRAINED)
        learning_rate = self._set_learning_rate(policy_version)
        whole = self._nothing_passed()
        for part, passed in self._parts.items():
            whole.sums.include(passed.sums, loss_factor=factors[part])
            whole.gaps += passed.gaps
            whole.traces += passed.traces
            whole.shifts += passed.shifts
        self._gradients.finish(factors)
        metrics = self._step(whole, self._added, learning_rate, policy_version)
        metrics["learner/optimizer_steps"] = (1.0, 1.0)
        self._gradients.begin()
        return metrics | gap_metrics(torch.cat(whole.gaps), self.num_ranks)

    def _nothing_passed(self) -> Passed:
        return Passed(UpdateSums(self.device), [torch.zeros(0, device=self.device)])

    def _step(
        self,
        passed: Passed,
        rows: Sequence[TrainingRow],
        learning_rate: float,
        policy_version: int,
    ) -> Metrics:
        """The optimizer step along the gradient that is in place, unless it is not finite."""
        passed.sums.add("gradient_probe", self._gradient_probe.sum())
        sums = passed.sums.reduce()
        num_shifted = sums.total("shifted_completions")
        if num_shifted:
            self._tell_of_shifts(passed, rows, policy_version)
        numbers = {name: sums.total(total) for name, total in MUST_BE_FINITE.items()}
        grad_norm = math.nan
        if all(map(math.isfinite, numbers.values())):
            self.reader.board.did("the optimizer's step")
            self.engine.step()
            grad_norm = numbers["gradient norm"] = self.grad_norm()
        else:
            live_gradient(self.engine).clear()
        is_finite = all(map(math.isfinite, numbers.values()))
        if is_finite:
            self._nonfinite_in_a_row = 0
        else:
            self._leave_out(numbers, passed.traces, rows, policy_version)
        limit = self.settings.skip_above_grad_norm
        is_skipped = not is_finite or (limit is not None and grad_norm > limit)
        metrics: Metrics = {
            **sums.means(),
            "learner/loss": (sums.total("loss"), 1.0),
            "learner/grad_norm": (grad_norm, 1.0),
            "learner/skipped_updates": (float(is_skipped), 1.0),
            "learner/learning_rate": (learning_rate, 1.0),
            "learner/tokens": (sums.total("trained_tokens"), 1.0),
            "learner/row_tokens": (sums.total("row_tokens"), 1.0),
            "learner/input_tokens": (sums.total("input_tokens"), 1.0),
        }
        if not is_finite:
            metrics["learner/nonfinite_updates"] = (1.0, 1.0)
        if num_shifted:
            metrics["mismatch/shifted_completions"] = (num_shifted, 1.0)
        return metrics

    def _leave_out(
        self,
        numbers: Mapping[str, float],
        traces: Sequence[Trace],
        rows: Sequence[TrainingRow],
        policy_version: int,
    ) -> None:
        """Say where a number that is not finite comes from. All ranks know the same numbers, so all
        of them come here.

        Raises:
            LearnerError: learner.max_nonfinite_updates in a row were left out before it.
        """
        what, value = next(
            (name, value) for name, value in numbers.items() if not math.isfinite(value)
        )
        every = self._of_all_ranks(self.suspects(rows, traces))
        said = (
            f"The {what} of update {policy_version + 1} is {value}; the weights were not changed. "
            f"{explained(every)}"
        )
        self._nonfinite_in_a_row += 1
        most = self.settings.max_nonfinite_updates
        if self._nonfinite_in_a_row > most:
            raise LearnerError(
                f"{said} To leave such updates out and go on, raise learner.max_nonfinite_updates "
                f"(it is {most}, in a row)."
            )
        self.warnings.append(
            f"{said} It is left out, {self._nonfinite_in_a_row} of {most} in a row."
        )

    def _tell_of_shifts(
        self, passed: Passed, rows: Sequence[TrainingRow], policy_version: int
    ) -> None:
        """Name the completions whose log-probabilities are off. All ranks know that there are some.

        Raises:
            LearnerError: learner.on_shifted_logprobs is stop.
        """
        bound, by_id = self.settings.max_logprob_shift, {row.completion_id: row for row in rows}
        assert bound is not None, "they are counted"
        own = [
            Shift(by_id[name].engine, by_id[name].layer, name, nats)
            for trace, shifts in zip(passed.traces, passed.shifts, strict=True)
            for name, nats, is_off in zip(
                trace.completion_ids, shifts.tolist(), is_shifted(shifts, bound), strict=True
            )
            if is_off
        ]
        every = [shift for rank in self._of_all_ranks(own) for shift in rank]
        said = f"Update {policy_version + 1}: {described(every, bound)}"
        if self.settings.on_shifted_logprobs == "stop":
            raise LearnerError(
                f"{said} The weights were not changed. Compare engines.dtype with learner.dtype, "
                "and look at what engines.extra_args change; learner.on_shifted_logprobs=warn goes "
                "on with such completions."
            )
        if said not in self.warnings:  # of an earlier pass over the same rollout
            self.warnings.append(said)

    def set_values(self, values: StepConfig) -> None:
        """Work by the values of one step."""
        self.objective: ObjectiveConfig = values.objective
        self.reader.temperature = values.sampling.temperature

    def _accumulate(
        self,
        microbatches: LaidOut,
        old_logprobs: Sequence[Tensor] | None,
        ref_logprobs: Sequence[Tensor] | None,
        passed: Passed,
    ) -> None:
        """Forward and backward of every micro-batch: the gradient is in place, no step taken.

        Args:
            passed: takes what is found.
        """
        sums = passed.sums
        for number, microbatch in enumerate(microbatches):
            logprobs, entropies = self.reader.call("policy", microbatch)
            # With one pass the old policy is the current one: the ratio is exactly 1.
            own = logprobs.detach() if old_logprobs is None else old_logprobs[number]
            old = old_logprobs_of(microbatch, own)
            ref = None if ref_logprobs is None else ref_logprobs[number]
            loss = microbatch_loss(
                microbatch, logprobs, old, ref, entropies, self.objective, self.plugins
            )
            self.reader.board.did("a backward pass")
            self.engine.backward(loss * self.num_ranks)
            if microbatch.is_empty:
                continue
            measured = token_measurements(
                microbatch,
                logprobs.detach(),
                old,
                ref,
                entropies.detach(),
                self.objective,
                self.plugins,
            )
            for name, values in measured.items():
                sums.add_tokens(name, values)
            passed.gaps.append(measured["mismatch/logprob_gap_mean"])
            passed.traces.append(traced(microbatch, loss, logprobs))
            passed.shifts.append(mean_shifts(microbatch, own))
            if (bound := self.settings.max_logprob_shift) is not None:
                sums.add("shifted_completions", is_shifted(passed.shifts[-1], bound).sum())
            sums.add("loss", loss)
            sums.add("trained_tokens", microbatch.num_trained_tokens)
            sums.add("input_tokens", microbatch.input_ids.numel())
            sums.add("row_tokens", microbatch.num_row_tokens)

    def _probe_gradient(self, number: int, gradient: Tensor) -> None:
        """A sum is finite only where every element is: one cheap check for all ZeRO stages."""
        self._gradient_probe[number] += gradient.sum()

    def suspects(self, rows: Sequence[TrainingRow] = (), traces: Sequence[Trace] = ()) -> Suspects:
        """What is not finite on this rank: weights, gradient, and what is given."""
        weights = {name: own_numbers(one) for name, one in self._trained.items()}
        gradients = dict(zip(self._trained, self._gradient_probe.tolist(), strict=True))
        return suspects(rows, traces, weights, gradients)

    def _of_all_ranks(self, own: Found) -> list[Found]:
        found = [own] * self.num_ranks
        if self.num_ranks > 1:
            dist.all_gather_object(found, own)
        return found

    def _set_learning_rate(self, policy_version: int) -> float:
        """Set and return the rate of this update, from the number of updates before it."""
        rate = learning_rate_at(
            policy_version,
            peak=self.settings.learning_rate,
            num_updates=self.recipe.num_updates,
            warmup_updates=self.settings.warmup_steps,
            schedule=self.settings.schedule,
        )
        rate *= self.objective.learning_rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _logprobs(self, weights: Weights, microbatches: LaidOut) -> list[Tensor]:
        """[n] of each micro-batch's tokens, without gradient."""
        with self.reader.timed(MEASUREMENT_OF[weights]):
            return [self.reader.call(weights, one, with_entropies=False)[0] for one in microbatches]
