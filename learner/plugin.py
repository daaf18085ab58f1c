"""The hooks of a plug-in that changes what is learned, in the order in which they are called.

    added_completions       completions that train beside the step's, in all of what follows
    measurements            measured by the learner, because `requires` names them
    measure                 measurements of the plug-in's own
    filter_rows             which completions are compared, and which of these train
    read_policy             measurements of the plug-in's own that take forward passes
    shape_rewards           [N] rewards, before selection and advantages
      ... selection, advantages and denominators of the layers ...
    estimate_advantages     [N] advantages (AdvantageEstimator: the slot layers.N.advantage)
    transform_advantages    [M] advantages
    weigh_tokens            [M] factors on whole token losses, KL included
    weigh_entropy           [M] factors on token entropies, added to the loss
    token_columns           [M] anything that the last two need
    added_rows              further rows that train, for added_loss
      ... before every optimizer step but the first on one rollout ...
    refresh_columns         [M] columns under the weights as they are by then
      ... for every micro-batch, with gradient ...
    policy_objective        [n] what is maximised (PolicyLoss: the slot objective.loss)
    added_loss              [n] what is added to the loss

Within a hook, plug-ins work in the order of the recipe. Each hook is called for the whole step
(see `StepBatch` for [N] and [M]) and its result is used on the plug-in's own layers alone; the last
two get one micro-batch (`ObjectiveTokens`) of all layers. What has `estimate_advantages` or
`policy_objective` fills a slot, of which a layer or a recipe has one.

Every rank calls the hooks. [N] are all completions of the step and must become the same numbers on
every rank; [M] are the tokens of the completions that the rank holds. What other ranks hold is
reached by the collectives of `StepBatch`, which all ranks call in the same order, also a rank that
holds nothing. Selection moves completions to the ranks that train them, so [M] are others before
and after it; measurements that are [M] move too. Hooks are pure; only `measure`, which is called
once per update, may change what a plug-in remembers, and that goes into checkpoints by
`state_dict`.

Set-level losses fit by row coefficients: compute them in `transform_advantages` or
`token_columns` from [N] columns, and make the objective linear in its rows. Groups may then be cut
across micro-batches and ranks. Where several optimizer steps are taken on a rollout
(objective.minibatches, updates_per_rollout), compute them again in `refresh_columns`. Denominators
of a plug-in's own are those of the row's optimizer step (`StepBatch.minibatch_sums`).

Measurements that many want are named in `requires` and measured once for all of them. What only one
method needs it reads itself, in `read_policy`, from a `learner.policy_reader.PolicyReader`:
log-probabilities of any texts (`logprobs`), the hidden state at their end (`last_states`), and the
hidden state and distribution of each of their tokens (`visit`), which pass by a few tokens at a
time so that nothing of a whole batch is ever held. Prefixes that texts share are read once, and
weights may be sharded: neither shows. Times are in the metrics as `measurements/NAME_s`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.objective_tokens import ObjectiveTokens
from learner.policy_reader import PolicyReader
from learner.rows import TrainingRow
from mgrpo.config import MethodView
from mgrpo.errors import Faults, must_be
from mgrpo.plugin import Plugin
from mgrpo.registry import Kind
from mgrpo.sources import is_on_policy
from mgrpo.types import Completion

TokenMeasurement = Literal["entropies", "policy_logprobs", "ref_logprobs", "ema_logprobs"]
StateMeasurement = Literal["hidden_last", "hidden_prompt"]
Measurement = TokenMeasurement | StateMeasurement
"""What the learner can measure with forward passes of its own, under the weights before an update.

A `TokenMeasurement` is [M], in nats, at the sampling temperature: the entropy of the distribution
that each token was sampled from, and the token's log-probability; ref_logprobs under the frozen
reference policy, which is then loaded; ema_logprobs under the running average of the policy
(`LearnerPlugin.ema`).

A `StateMeasurement` is [N, D] float32: the last layer's state of one token, normalised as the
output layer gets it. hidden_last is that of a completion's last token, hidden_prompt of its
prompt's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaSchedule:
    """A running average of the policy's weights: average <- decay * average + (1 - decay) * policy,
    after every `every_updates` updates. It begins as the policy that the run begins with."""

    decay: float
    every_updates: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """What a plug-in says of every completion."""

    is_kept: Tensor  # [N] bool: false leaves it out of its group's statistics and of the loss
    is_trained: Tensor  # [N] bool: false leaves it out of the loss alone
    reason: str  # for people: why those that are left out are


class Movable(Protocol):
    """A model, or what holds one."""

    def to(self, device: torch.device, /) -> Any: ...


class LearnerPlugin(Plugin):
    """Base class; override what you need."""

    requires: ClassVar[frozenset[Measurement]] = frozenset()
    """What must be in `batch.measurements`. It costs a forward pass over the step."""
    token_measurements: ClassVar[frozenset[str]] = frozenset()
    """Names of the measurements of its own that are [M]."""
    by_tree: ClassVar[bool] = False
    """Every hook treats each tree, all completions of one problem, by itself, and nothing is
    remembered from step to step: trees may then train as they come (`learner.streamed_update`).
    False for a plug-in that compares different problems, or divides by what the whole step has."""
    needs_reference: ClassVar[bool] = False
    """Load the reference policy, so that `ObjectiveTokens.ref_logprobs` is there without a KL
    weight in the recipe."""

    def wanted_measurements(self) -> frozenset[Measurement]:
        """`requires`, or fewer where the settings make some of them unneeded."""
        return self.requires

    def works_by_tree(self) -> bool:
        """`by_tree`, where the settings do not make a difference."""
        return self.by_tree

    def ema(self) -> EmaSchedule | None:
        """The average that ema_logprobs are measured with. A recipe keeps one average, so its
        plug-ins must want the same."""
        return None

    def start(self, device: torch.device) -> None:
        """Load what is needed for working; called once, before the first step."""

    def models(self) -> Sequence[Movable]:
        """What `start` put on the device. It leaves while engines have the learner's GPU."""
        return ()

    def state_dict(self) -> dict[str, object]:
        """What an exact resume needs of a plug-in that remembers earlier steps: plain values and
        tensors. The same on every rank."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`. Called after `start`."""

    def added_completions(
        self, completions: Sequence[Completion], parents: Mapping[str, Completion]
    ) -> list[Completion]:
        """Completions that train beside those of the step, as if they had been sampled too: its
        corrections under the problem's own prompt, say (`learner.other_prompts`).

        All ranks must make the same ones. Their ids are new, their layers those of the chain, and
        their groups within one tree.

        Args:
            completions: of the step, scored.
            parents: by completion_id; holds `completions` too.
        """
        return []

    def measure(self, batch: StepBatch) -> Mapping[str, object]:
        """More measurements by name: [N] or a list of N tensors, the same on every rank, or [M] of
        those named in `token_measurements`."""
        return {}

    def filter_rows(self, batch: StepBatch) -> RowFilter | None:
        """Leave completions out of groups or of the loss. Filter on `batch.is_correct` or
        `batch.rewards`, which are as checked, never on shaped rewards."""
        return None

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> Mapping[str, object]:
        """More measurements by name, as for `measure`, from forward passes of the plug-in's own.

        Each rank reads texts of the completions that it holds. Passes are collectives: every rank
        must call the reader alike, also without texts. Rows that are not `batch.is_usable`, those
        that were just left out among them, count for nothing, so they need not be read.
        """
        return {}

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        """[N] -> [N]. `batch.rewards` are those of the checks, `rewards` shaped so far."""
        return rewards

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """[M] -> [M]. They multiply the policy term, not the KL term."""
        return advantages

    def weigh_tokens(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """[M] factors on each token's whole loss."""
        return torch.ones_like(advantages)

    def weigh_entropy(self, batch: StepBatch, advantages: Tensor, token_weights: Tensor) -> Tensor:
        """[M] factors c of an added loss: the sum of c times each token's entropy.

        Tokens that must carry no loss (`train_mask`) get 0, whatever is returned for them.

        Args:
            advantages: [M] as transformed.
            token_weights: [M] factors on each token loss, denominators included.
        """
        return torch.zeros_like(advantages)

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        """[M] columns that travel with the rows into `ObjectiveTokens.columns`."""
        return {}

    def added_rows(self, batch: StepBatch, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Rows that this rank trains beside its own of one optimizer step, such as completions of
        other prompts.

        Their loss is what `added_loss` makes of their columns: with token_weights and advantages
        of 0 they have no other.

        Args:
            rows: the optimizer step's own rows that this rank trains, of all layers.
        """
        return []

    def refresh_columns(
        self,
        batch: StepBatch,
        advantages: Tensor,
        token_weights: Tensor,
        policy_logprobs: Tensor,
        old_logprobs: Tensor,
    ) -> dict[str, Tensor]:
        """New values of columns, before every optimizer step but the first on one rollout.

        It costs a forward pass over the rows for each of these steps.

        Args:
            batch: holds the completions that train in this step; no token measurements.
            advantages: [M] as transformed.
            token_weights: [M] factors on each token loss, denominators included.
            policy_logprobs: [M] float64, under the weights now.
            old_logprobs: [M] the same before the first optimizer step.

        Returns:
            By name, [M]. Columns that are not named stay as they are.
        """
        return {}

    def added_loss(self, tokens: ObjectiveTokens) -> Tensor | None:
        """[n] values that are summed into the loss as they are: denominators are yours."""
        return None


class AdvantageEstimator(LearnerPlugin):
    """Fills the slot `layers.N.advantage`; further hooks may go with it."""

    kind: ClassVar[Kind] = "ADVANTAGES"

    @abstractmethod
    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        """[N] advantages, of which those of its own layers are used.

        Args:
            rewards: [N] as shaped. Rows that are not `batch.is_usable` must not count.
        """


class PolicyLoss(LearnerPlugin):
    """Fills the slot `objective.loss`, for all layers; further hooks may go with it."""

    kind: ClassVar[Kind] = "LOSSES"
    whole_completion: ClassVar[bool] = False
    """One value stands for a whole completion, so completions must weigh the same."""
    on_policy: ClassVar[str] = ""
    """What it is, or does, where every ratio is 1, if that is worth a warning."""
    off_policy: ClassVar[str] = ""
    """The same where ratios differ."""

    @abstractmethod
    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        """[n] objective per token, maximised, advantages included. It is multiplied by the
        importance weights and by `token_weights`, and summed."""

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        name = method.objective.loss.type
        for number, layer in enumerate(method.layers):
            if layer.loss_weight == 0:
                continue
            if cls.whole_completion:
                why = f"{name} has one value per completion: completions must weigh the same."
                path, own = f"(layers.{number}.aggregation)", layer.aggregation.type
                yield from must_be(path, own, "seq_mean", why)
            if issubclass(cls, AdvantageEstimator):
                why, path = f"{name} has coefficients of its own.", f"(layers.{number}.advantage)"
                yield from must_be(path, layer.advantage.type, "none", why)

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Iterable[str]:
        if is_on_policy(method) and cls.on_policy:
            yield (
                "with one optimizer step per rollout (objective.minibatches: 1, "
                f"objective.updates_per_rollout: 1), where every ratio is 1, {cls.on_policy}."
            )
        if cls.off_policy and not is_on_policy(method):
            yield f"{cls.off_policy}."


class ImportanceCorrection(LearnerPlugin):
    """Fills the slot `objective.importance`, for all layers, by the hooks of a plug-in."""

    kind: ClassVar[Kind] = "IMPORTANCE"
