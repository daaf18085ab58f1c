"""What became of the answers: accuracy per layer, and the moves from attempt to correction.

Definitions follow SCoRe (arXiv 2409.12917) and MGRPO (arXiv 2506.04746). Over any set of
(attempt, correction) pairs the identity holds exactly:

    accuracy(corrections) - accuracy(their attempts) = wrong_to_right - right_to_wrong
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mgrpo.types import Completion

Sums = dict[str, tuple[float, float]]
KINDS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


@dataclass(frozen=True, slots=True)
class Transitions:
    """The 2x2 counts over pairs whose two checks both worked, and how many kept the answer."""

    wrong_to_right: int = 0
    right_to_wrong: int = 0
    right_to_right: int = 0
    wrong_to_wrong: int = 0
    num_copies: int = 0  # the correction's final answer is the attempt's

    @property
    def num_pairs(self) -> int:
        return self.wrong_to_right + self.right_to_wrong + self.right_to_right + self.wrong_to_wrong

    @property
    def delta(self) -> float:
        """Accuracy after minus accuracy before, over the pairs."""
        return (self.wrong_to_right - self.right_to_wrong) / max(1, self.num_pairs)

    def fractions(self) -> dict[str, float]:
        """Each count as a share of all pairs."""
        total = max(1, self.num_pairs)
        return {kind: getattr(self, kind) / total for kind in KINDS}


def count_transitions(pairs: Iterable[tuple[Completion, Completion]]) -> Transitions:
    """Count (attempt, correction) pairs; a pair with a failed check is left out."""
    counts = dict.fromkeys((*KINDS, "num_copies"), 0)
    for attempt, correction in pairs:
        if not (is_usable(attempt) and is_usable(correction)):
            continue
        before = "right" if attempt.is_correct else "wrong"
        after = "right" if correction.is_correct else "wrong"
        counts[f"{before}_to_{after}"] += 1
        counts["num_copies"] += final_answer(attempt) == final_answer(correction)
    return Transitions(**counts)


def pairs_of(completions: Sequence[Completion], layer: int) -> list[tuple[Completion, Completion]]:
    """(attempt, correction) for every correction of one layer."""
    by_id = {completion.completion_id: completion for completion in completions}
    return [
        (by_id[completion.parent_id], completion)
        for completion in completions
        if completion.layer == layer and completion.parent_id in by_id
    ]


def rollout_metrics(completions: Sequence[Completion], num_layers: int) -> Sums:
    """A step's rollout in numbers, as name -> (sum, count)."""
    sums: Sums = {}
    for layer in range(1, num_layers + 1):
        here = [completion for completion in completions if completion.layer == layer]
        usable = [completion for completion in here if is_usable(completion)]
        name = f"layer{layer}"
        sums[f"{name}/accuracy"] = (sum(c.is_correct for c in usable), len(usable))
        sums[f"{name}/reward_mean"] = (sum(reward_value(c) for c in usable), len(usable))
        tokens = sum(len(c.token_ids) for c in here)
        sums[f"{name}/completion_tokens_mean"] = (tokens, len(here))
        prompt_tokens = sum(len(c.prompt_token_ids) for c in here)
        sums[f"{name}/prompt_tokens_mean"] = (prompt_tokens, len(here))
        sums[f"{name}/truncated_fraction"] = (sum(c.is_truncated for c in here), len(here))
        sums[f"{name}/completions"] = (len(here), 1)
        if layer > 1:
            sums |= transition_metrics(count_transitions(pairs_of(completions, layer)), layer)
    statuses = [c.reward.status for c in completions if c.reward is not None]
    for status in ("scored", "unparsable", "timeout", "error"):
        sums[f"rewards/{status}"] = (statuses.count(status), len(statuses))
    sums["tokens/generated"] = (sum(len(c.token_ids) for c in completions), 1)
    return sums


def transition_metrics(transitions: Transitions, layer: int) -> Sums:
    name = f"transition/layer{layer}"
    total = transitions.num_pairs
    sums: Sums = {}
    for kind in KINDS:
        count = getattr(transitions, kind)
        sums[f"{name}/{kind}"] = (count, total)
        sums[f"{name}/{kind}_count"] = (count, 1)
    sums[f"{name}/copy_fraction"] = (transitions.num_copies, total)
    return sums


def is_usable(completion: Completion) -> bool:
    return completion.reward is not None and completion.reward.is_usable


def reward_value(completion: Completion) -> float:
    return completion.reward.value if completion.reward is not None else 0.0


def final_answer(completion: Completion) -> str | None:
    return completion.reward.extracted_answer if completion.reward is not None else None
