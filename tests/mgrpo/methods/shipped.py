"""What a recipe as it ships makes of completions: samples, advantages, rows and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from actors.plugin import RolloutPlugin
from actors.rollout import Rollout
from learner.batch import TrainingBatch, build_batch
from learner.plugin import LearnerPlugin
from learner.rows import TrainingRow
from mgrpo.config import MethodView
from mgrpo.config.load import load_recipe
from mgrpo.plugin import load_plugins
from mgrpo.types import Completion
from tests.actors.plugins.scripted_rollout import PROBLEM, TOKENIZER, rollout, sampled
from tests.learner.exact import exact_loss, floats

ROLLOUT_LOGPROB = -1.0
"""Of every token of `tests.learner.builders`' completions."""


def shipped(name: str, *overrides: str) -> MethodView:
    """A method's recipe."""
    return load_recipe(f"methods/{name}", list(overrides)).method_view


def built(
    method: MethodView,
    completions: Sequence[Completion],
    *,
    context: Sequence[Completion] = (),
    measurements: dict[str, Tensor] | None = None,
) -> TrainingBatch:
    """The update that the recipe makes of a step."""
    return build_batch(
        completions,
        method.layers,
        method.objective,
        context=context,
        plugins=load_plugins(method, LearnerPlugin),
        measurements=measurements,
    )


def advantages_of(batch: TrainingBatch) -> dict[str, float]:
    """Of every completion, whether it trains or not; the mean over its tokens."""
    return {one.completion_id: one.advantage for one in batch.selections}


def selected_in(batch: TrainingBatch, layer: int = 1) -> list[str]:
    """The completions of a layer that train; "q/1/2" is of layer 2."""
    names = [one.completion_id for one in batch.selections if one.selected]
    return [name for name in names if name.count("/") == layer]


def loss_and_gradient(
    method: MethodView,
    rows: Sequence[TrainingRow],
    ratios: Sequence[float],
    *,
    old: float = ROLLOUT_LOGPROB,
    ref_gap: float | None = None,
    entropies: Sequence[float] | None = None,
) -> tuple[float, list[float]]:
    """The loss of the rows' tokens, and its gradient by their log-probabilities: [M].

    Args:
        ratios: [M] p / p_old of each token.
        old: log p_old, the learner's own.
        ref_gap: log p - log p_ref; None: there is no reference.
        entropies: [M] nats; 0 unless given.
    """
    start = floats(*[old] * len(ratios))
    logprobs = (start + floats(*ratios).log()).requires_grad_()
    loss = exact_loss(
        rows,
        logprobs,
        start,
        plugins=load_plugins(method, LearnerPlugin),
        objective=method.objective,
        ref=None if ref_gap is None else logprobs.detach() - ref_gap,
        entropies=None if entropies is None else floats(*entropies),
    )
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad.tolist()


def chain(method: MethodView, script: Callable[[str, int], str], *, seed: int = 0) -> Rollout:
    """The recipe's layers on an engine that answers from a script, by a prompt's text and the
    sample's number; an answer is right if it ends with 7."""
    sizes = [layer.group_size for layer in method.layers]
    parts = rollout(script, load_plugins(method, RolloutPlugin), group_sizes=sizes, seed=seed)
    parts.layers = method.layers
    return parts


def samples(
    method: MethodView, script: Callable[[str, int], str], *, seed: int = 0
) -> dict[int, list[Completion]]:
    """What the recipe samples of one problem, "3+4?", by layer."""
    found: dict[int, list[Completion]] = {n: [] for n in range(1, len(method.layers) + 1)}
    for one in sampled(chain(method, script, seed=seed), PROBLEM):
        found[one.layer].append(one)
    return found


def prompt_of(one: Completion) -> str:
    """The text that a completion answers."""
    return TOKENIZER.decode(one.prompt_token_ids.tolist())


def children_of(parent: Completion, completions: Sequence[Completion]) -> list[Completion]:
    """Those that correct or verify it."""
    return [one for one in completions if one.parent_id == parent.completion_id]
