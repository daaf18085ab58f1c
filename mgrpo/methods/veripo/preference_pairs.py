"""A verifier by rules: which completion of a prompt is better than which (VerIPO).

The kinds of pairs are the paper's (https://arxiv.org/abs/2505.19000): penalty, consistency,
reflection. It does not give rules or thresholds; these are our reconstruction, and settings of
the source's `verifier`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mgrpo.config.own_code import import_own
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.methods.veripo.settings import PairKind, PreferenceSettings, VerifierSettings
from mgrpo.records.token_columns import TokenIds
from mgrpo.types import Completion
from rewards.answer_text import key, plain_number, tidy

ConsistencyCheck = Callable[[Completion], bool]

FINAL_ANSWER = re.compile(r"\\boxed|<answer>|####")
"""What a final answer begins with; the reasoning is what stands before the last of these."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The verifier's result for one completion."""

    correct: bool
    consistent: bool  # its reasoning leads to its answer
    repetitive: bool
    short: bool  # for its group
    reflective: bool  # it checks itself
    format_error: bool  # no answer could be read, or the format's check failed
    length: int  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two completions of one prompt, the first better than the second."""

    kind: PairKind
    chosen: Completion
    rejected: Completion


def pairs_of_group(
    group: Sequence[Completion], config: PreferenceSettings, is_consistent: ConsistencyCheck
) -> list[PreferencePair]:
    """At most one pair of each kind from the completions of one prompt.

    Of the admissible completions the longest is chosen and the shortest rejected (of equally long
    ones the first), so that length alone never wins.
    """
    usable = [one for one in group if is_own(one)]
    flags = flags_of(usable, config.verifier, is_consistent)
    pairs = []
    for kind in config.kinds:
        chosen, rejected = sides(flags, kind)
        if chosen is not None and rejected is not None:
            pairs.append(
                PreferencePair(kind=kind, chosen=usable[chosen], rejected=usable[rejected])
            )
    return pairs


def is_own(one: Completion) -> bool:
    """The policy wrote all of it, and its check worked."""
    is_usable = one.reward is not None and one.reward.is_usable
    return is_usable and not one.augmented_by and len(one.token_ids) > 0


def sides(flags: Sequence[Flags], kind: PairKind) -> tuple[int | None, int | None]:
    """Places of the chosen and of the rejected completion; None where none is admissible."""
    sound = [place for place, one in enumerate(flags) if one.correct and one.consistent]
    if kind == "consistency":
        inconsistent = [p for p, one in enumerate(flags) if one.correct and not one.consistent]
        return longest(flags, sound), shortest(flags, inconsistent)
    if kind == "reflection":
        good = [p for p in sound if flags[p].reflective and not flags[p].short]
        bad = [
            place
            for place, one in enumerate(flags)
            if not one.reflective and (one.short or not one.correct)
        ]
        return longest(flags, good), shortest(flags, bad)
    wrong = [place for place, one in enumerate(flags) if not one.correct]
    worst = [p for p in wrong if flags[p].repetitive or flags[p].format_error]
    fluent = [p for p in sound if not flags[p].repetitive]
    return longest(flags, fluent), shortest(flags, worst or wrong)


def longest(flags: Sequence[Flags], places: Sequence[int]) -> int | None:
    return max(places, key=lambda place: flags[place].length, default=None)


def shortest(flags: Sequence[Flags], places: Sequence[int]) -> int | None:
    return min(places, key=lambda place: flags[place].length, default=None)


def flags_of(
    group: Sequence[Completion], config: VerifierSettings, is_consistent: ConsistencyCheck
) -> list[Flags]:
    """The verifier's results for a group's completions."""
    lengths = [len(one.token_ids) for one in group]
    bound = percentile(lengths, config.short_percentile)
    phrases = [phrase.casefold() for phrase in config.self_check_phrases]
    return [
        Flags(
            correct=one.is_correct,
            # Only right answers are asked about, and the check may be a model.
            consistent=one.is_correct and is_consistent(one),
            repetitive=most_repeats(one.token_ids, config.ngram_tokens) > config.max_repeats,
            short=length < bound,
            reflective=any(phrase in one.text.casefold() for phrase in phrases),
            format_error=has_format_error(one),
            length=length,
        )
        for one, length in zip(group, lengths, strict=True)
    ]


def percentile(values: Sequence[int], percent: float) -> float:
    """Between the two nearest values, in proportion; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def most_repeats(token_ids: TokenIds, size: int) -> int:
    """How often the most frequent sequence of `size` tokens stands in a completion."""
    starts = range(len(token_ids) - size + 1)
    counts = Counter(token_ids[start : start + size].tobytes() for start in starts)
    return max(counts.values(), default=0)


def has_format_error(one: Completion) -> bool:
    assert one.reward is not None, "pairs are made of scored completions"
    return one.reward.status == "unparsable" or one.reward.parts.get("format", 1.0) <= 0


def make_consistency_check(config: VerifierSettings) -> ConsistencyCheck:
    """The rule that `consistency` names.

    Raises:
        ConfigError: the recipe's own check cannot be imported or called.
    """
    if config.consistency == "off":
        return lambda one: True
    if config.consistency == "last_number":
        return reasoning_leads_to_answer
    module_name, _, attribute = config.consistency.partition(":")
    reason = "is not callable."
    try:
        is_consistent = getattr(import_own(module_name), attribute)
    except Exception as error:  # a user's module raises what it likes when it is imported
        is_consistent, reason = None, f"cannot be imported: {type(error).__name__}: {error}."
    if callable(is_consistent):
        return lambda one: bool(is_consistent(one))
    raise ConfigError([ConfigFault("verifier.consistency", config.consistency, reason)])


def reasoning_leads_to_answer(one: Completion) -> bool:
    """The last number before the final answer is that answer; where the answer is no number, it
    stands in the reasoning. A completion without any reasoning is not consistent."""
    assert one.reward is not None, "pairs are made of scored completions"
    answer = one.reward.extracted_answer
    marks = list(FINAL_ANSWER.finditer(one.text))
    if answer is None or not marks:
        return False
    reasoning = one.text[: marks[-1].start()]
    value = plain_number(tidy(answer))
    if value is None:
        return key(tidy(answer)) in key(tidy(reasoning))
    numbers = NUMBER.findall(reasoning)
    return bool(numbers) and plain_number(tidy(numbers[-1])) == value
