"""Accuracy per layer, and transitions of correctness from attempt to correction.

Definitions follow SCoRe (arXiv 2409.12917) and MGRPO (arXiv 2506.04746). Over any set of
(attempt, correction) pairs the identity holds exactly, in whole numbers:

    right corrections - right attempts = wrong_to_right - right_to_wrong

Names are `layer2/accuracy`, `transition/layer2/wrong_to_right` for the step from one layer to
the next and, in chains of three or more, `transition/all/wrong_to_right` from the first attempt to
the last layer that answers. Verdicts answer nothing: of a verify layer there are
`verdict/layer2/...` (`mgrpo.metrics.verdicts`). If a step has problems of several domains,
accuracies and transitions are recorded for each:
`transition/layer2/domain/chain_sum/wrong_to_right`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mgrpo.metrics.verdicts import Verdicts, count_verdicts
from mgrpo.types import EARLIER_STEP, EXPERT, STORED_PAIR, Completion

Sums = dict[str, tuple[float, float]]
Pair = tuple[Completion, Completion]  # (attempt, correction)
KINDS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


@dataclass(frozen=True, slots=True)
class Transitions:
    """Counts over the pairs without failed checks.

    A copy is a correction whose final answer is the attempt's. Answers are known if the check
    extracts them, or reports that there is none; other pairs are not counted in the copy rates.
    """

    wrong_to_right: int = 0
    right_to_wrong: int = 0
    right_to_right: int = 0
    wrong_to_wrong: int = 0
    num_copies: int = 0
    num_copies_of_wrong: int = 0  # of them, those of a wrong attempt
    num_answers_known: int = 0
    num_answers_known_of_wrong: int = 0  # of them, pairs with a wrong attempt
    num_truncated_parents: int = 0  # the attempt ran out of tokens

    @property
    def num_pairs(self) -> int:
        return self.num_right_before + self.num_wrong_before

    @property
    def num_right_before(self) -> int:
        """Pairs with a right attempt."""
        return self.right_to_right + self.right_to_wrong

    @property
    def num_wrong_before(self) -> int:
        """Pairs with a wrong attempt."""
        return self.wrong_to_right + self.wrong_to_wrong

    @property
    def num_right_after(self) -> int:
        """Pairs with a right correction."""
        return self.right_to_right + self.wrong_to_right

    @property
    def num_gained(self) -> int:
        """Right corrections minus right attempts; negative if corrections do harm."""
        return self.wrong_to_right - self.right_to_wrong

    @property
    def delta(self) -> float:
        """Accuracy after minus accuracy before, over the pairs."""
        return self.num_gained / max(1, self.num_pairs)

    def fractions(self) -> dict[str, float]:
        """Each of the four counts as a share of all pairs."""
        total = max(1, self.num_pairs)
        return {kind: getattr(self, kind) / total for kind in KINDS}


def count_transitions(pairs: Iterable[Pair]) -> Transitions:
    """Count (attempt, correction) pairs; a pair with a failed check is left out."""
    counts = dict.fromkeys(Transitions.__dataclass_fields__, 0)
    for attempt, correction in pairs:
        if not (is_usable(attempt) and is_usable(correction)):
            continue
        before = "right" if attempt.is_correct else "wrong"
        after = "right" if correction.is_correct else "wrong"
        counts[f"{before}_to_{after}"] += 1
        counts["num_truncated_parents"] += attempt.is_truncated
        if is_answer_known(attempt) and is_answer_known(correction):
            is_copy = has_same_answer(attempt, correction)
            counts["num_answers_known"] += 1
            counts["num_copies"] += is_copy
            counts["num_answers_known_of_wrong"] += not attempt.is_correct
            counts["num_copies_of_wrong"] += is_copy and not attempt.is_correct
    return Transitions(**counts)


def pairs_of(completions: Sequence[Completion], layer: int) -> list[Pair]:
    """(attempt, correction) for every correction of one layer whose attempt is also given."""
    by_id = {completion.completion_id: completion for completion in completions}
    return [
        (by_id[completion.parent_id], completion)
        for completion in completions
        if completion.layer == layer and completion.parent_id in by_id
    ]


def whole_chain_pairs(completions: Sequence[Completion], last_layer: int) -> list[Pair]:
    """(first attempt, last correction) for every completion of the last layer.

    A completion with a missing ancestor is left out.
    """
    by_id = {completion.completion_id: completion for completion in completions}
    pairs = []
    for completion in completions:
        if completion.layer == last_layer:
            first = first_attempt(completion, by_id)
            if first is not None:
                pairs.append((first, completion))
    return pairs


def first_attempt(completion: Completion, by_id: Mapping[str, Completion]) -> Completion | None:
    """The layer-1 ancestor of a correction; None if an ancestor is missing."""
    ancestor = completion
    while ancestor.layer > 1:
        parent = by_id.get(ancestor.parent_id or "")
        if parent is None:
            return None
        ancestor = parent
    return ancestor


def rollout_metrics(
    completions: Sequence[Completion],
    num_layers: int,
    verify_layers: frozenset[int] = frozenset(),
) -> Sums:
    """A step's rollout in numbers, as name -> (sum, count).

    Attempts from the error pool only count as parents: this step did not sample them.
    Solutions that a plug-in added are left out, and so are preference pairs.
    """
    left_out = (EXPERT, STORED_PAIR)
    completions = [
        completion for completion in completions if completion.augmented_by not in left_out
    ]
    sums: Sums = {}
    own = sampled(completions)
    for layer in range(1, num_layers + 1):
        sums |= sampling_metrics(own, layer)
    sums |= moves(completions, num_layers, verify_layers=verify_layers)
    for layer in sorted(verify_layers):
        counted = count_verdicts(pairs_of(completions, layer))
        sums |= verdict_metrics(counted, f"verdict/layer{layer}")
    domains = sorted({completion.domain for completion in completions})
    if len(domains) > 1:
        for domain in domains:
            here = [c for c in completions if c.domain == domain]
            sums |= moves(here, num_layers, domain, verify_layers=verify_layers)
    statuses = [c.reward.status for c in own if c.reward is not None]
    for status in ("scored", "unparsable", "timeout", "error"):
        sums[f"rewards/{status}"] = (statuses.count(status), len(statuses))
    sums["tokens/generated"] = (sum(len(c.token_ids) for c in own), 1)
    return sums


def sampling_metrics(completions: Sequence[Completion], layer: int) -> Sums:
    """Rewards, lengths and numbers of one layer's completions."""
    here = [completion for completion in completions if completion.layer == layer]
    usable = [completion for completion in here if is_usable(completion)]
    tokens = sum(len(c.token_ids) for c in here)
    prompt_tokens = sum(len(c.prompt_token_ids) for c in here)
    name = f"layer{layer}"
    planned = sum(c.counts_as for c in here)
    saved = {f"{name}/saved_fraction": (planned - len(here), planned)}
    return (saved if planned != len(here) else {}) | {
        f"{name}/reward_mean": (sum(reward_value(c) for c in usable), len(usable)),
        f"{name}/completion_tokens_mean": (tokens, len(here)),
        f"{name}/prompt_tokens_mean": (prompt_tokens, len(here)),
        f"{name}/truncated_fraction": (sum(c.is_truncated for c in here), len(here)),
        f"{name}/completions": (len(here), 1),
        **part_metrics(usable, name),
        **feedback_metrics(here, name),
    }


def feedback_metrics(here: Sequence[Completion], name: str) -> Sums:
    """What corrections were told by the check of their attempt, where guidance asks for it."""
    lengths = [c.feedback_tokens for c in here if c.feedback is not None]
    told = [length for length in lengths if length]
    if not lengths:
        return {}
    return {
        f"{name}/feedback_fraction": (len(told), len(lengths)),
        f"{name}/feedback_tokens_mean": (sum(told), len(told)),
    }


def part_metrics(usable: Sequence[Completion], name: str) -> Sums:
    """The mean of each part of the reward over the completions that have it, where there are
    several parts."""
    values: dict[str, list[float]] = {}
    for completion in usable:
        for part, value in completion.reward.parts.items() if completion.reward else ():
            values.setdefault(part, []).append(value)
    if len(values) < 2:
        return {}
    return {
        f"{name}/reward_term/{in_a_name(part)}": (sum(found), len(found))
        for part, found in values.items()
    }


def in_a_name(part: str) -> str:
    """A part as it stands in a metric's name, which not every tracker lets have all characters:
    "./my.py:score#acc" is my.py_score_acc."""
    return re.sub(r"[^\w./ -]+", "_", part).lstrip("./")


def sampled(completions: Sequence[Completion]) -> list[Completion]:
    """Without attempts from the error pool."""
    return [completion for completion in completions if completion.augmented_by != EARLIER_STEP]


def moves(
    completions: Sequence[Completion],
    num_layers: int,
    domain: str | None = None,
    *,
    verify_layers: frozenset[int] = frozenset(),
) -> Sums:
    """Accuracy of every layer and the transitions between layers that answer.

    Args:
        completions: of a whole step, or of one domain of it.
        num_layers: layers of the chain.
        domain: part of the names; None for the whole step.
        verify_layers: those that give verdicts.
    """
    suffix = "" if domain is None else f"/domain/{domain}"
    sums: Sums = {}
    for layer in range(1, num_layers + 1):
        usable = [c for c in sampled(completions) if c.layer == layer and is_usable(c)]
        accuracy = (sum(c.is_correct for c in usable), len(usable))
        sums[f"layer{layer}{suffix}/accuracy"] = accuracy
        if layer > 1 and layer not in verify_layers:
            counted = count_transitions(pairs_of(completions, layer))
            sums |= transition_metrics(counted, f"transition/layer{layer}{suffix}")
    answering = [layer for layer in range(1, num_layers + 1) if layer not in verify_layers]
    if len(answering) > 2:
        counted = count_transitions(whole_chain_pairs(completions, answering[-1]))
        sums |= transition_metrics(counted, f"transition/all{suffix}")
    return sums


def transition_metrics(counted: Transitions, name: str) -> Sums:
    """Shares of pairs, and the conditional rates, as (sum, count)."""
    total = counted.num_pairs
    sums: Sums = {}
    for kind in KINDS:
        count = getattr(counted, kind)
        sums[f"{name}/{kind}"] = (count, total)
        sums[f"{name}/{kind}_count"] = (count, 1)
    sums[f"{name}/pairs"] = (total, 1)
    sums[f"{name}/accuracy_before"] = (counted.num_right_before, total)
    sums[f"{name}/accuracy_after"] = (counted.num_right_after, total)
    sums[f"{name}/delta"] = (counted.num_gained, total)
    sums[f"{name}/copy_fraction"] = (counted.num_copies, counted.num_answers_known)
    copies_of_wrong = (counted.num_copies_of_wrong, counted.num_answers_known_of_wrong)
    sums[f"{name}/copy_fraction_of_wrong"] = copies_of_wrong
    sums[f"{name}/confirmed_fraction"] = (counted.right_to_right, counted.num_right_before)
    sums[f"{name}/repaired_fraction"] = (counted.wrong_to_right, counted.num_wrong_before)
    sums[f"{name}/truncated_parents_fraction"] = (counted.num_truncated_parents, total)
    return sums


def verdict_metrics(counted: Verdicts, name: str) -> Sums:
    """As (sum, count); the accuracy is the layer's own."""
    return {f"{name}/{key}": ratio for key, ratio in counted.ratios.items() if key != "accuracy"}


def is_usable(completion: Completion) -> bool:
    return completion.reward is not None and completion.reward.is_usable


def reward_value(completion: Completion) -> float:
    return completion.reward.value if completion.reward is not None else 0.0


def final_answer(completion: Completion) -> str | None:
    return completion.reward.extracted_answer if completion.reward is not None else None


def is_answer_known(completion: Completion) -> bool:
    """Whether the check extracted the final answer, or found that there is none."""
    reward = completion.reward
    return reward is not None and (
        reward.extracted_answer is not None or reward.status == "unparsable"
    )


def has_same_answer(attempt: Completion, correction: Completion) -> bool:
    """Whether both have the same final answer as text. Two without an answer are no copies."""
    answer = final_answer(attempt)
    return answer is not None and answer == final_answer(correction)
