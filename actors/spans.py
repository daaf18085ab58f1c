"""Converts character ranges of a completion's text to token ranges.

Methods that treat parts of a completion differently (steps of reasoning, an analysis and the
solution after it) find them in the text; the learner works on tokens. Nothing is tokenised
again: a token's place is how much of the text the tokens before it decode to. Pure Python.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal

from mgrpo.records.token_columns import TokenIds, as_list

Decode = Callable[[list[int]], str]
Span = tuple[int, int]  # half-open: [start, end)
StepSplit = Literal["newline", "sentence", "numbered"]

# What ends a sentence: its sign, with quotes and brackets that close behind it, before white
# space (so 3.5 is whole); a full-width sign, which no space follows; an empty line. Possessive,
# so that a policy that writes ten thousand full stops costs no more than that.
SENTENCE_END = re.compile(
    r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]*]*+(?=\s)"
    r"|[\u3002\uff01\uff1f]++[\u300d\u300f\u201d\u2019\uff09]*+"
    r"|(?<=\S)(?=\s*\n\s*\n)"
)
LIST_MARK = re.compile(r"[(*#\s]*+(?:\d++|[A-Za-z])[.)]\**+")
NUMBERED_LINE = re.compile(
    r"^[ \t>#*-]*+(?:step[ \t]*+\(?\d+\b|\(?\d++[.):](?=[\s*]|$))", re.IGNORECASE | re.MULTILINE
)


def token_ranges(
    decode: Decode, token_ids: Sequence[int] | TokenIds, char_ranges: Sequence[Span]
) -> list[Span]:
    """The tokens of each character range of the decoded text.

    A token belongs to the range in which its first character lies; one that holds a later part
    of a character (bytes of one sign spread over tokens) counts as lying at that character.
    Tokens behind the last character, such as the end of sequence where `decode` leaves it out,
    belong to the range that ends the text. Ranges that tile the text give ranges that tile the
    tokens; a range that lies inside one token, behind its first character, is empty.

    Args:
        decode: token ids to text. A beginning of the ids decodes to a beginning of the text,
            except for signs that are cut in the middle. Called about log2(tokens) times per
            boundary.
        token_ids: [T] of the completion.
        char_ranges: [start, end) in characters of `decode(token_ids)`.

    Returns:
        Per range [start, end) in tokens, 0 <= start <= end <= T.

    Raises:
        ValueError: a range does not lie in the text.
    """
    ids = as_list(token_ids)
    text = decode(ids)

    @functools.cache
    def chars_before(token: int) -> int:
        """Whole characters of the text that the tokens before this one hold."""
        return len_common_prefix(decode(ids[:token]), text)

    def first_token_from(char: int) -> int:
        return bisect_left(range(len(ids)), char, key=chars_before)

    ranges = []
    for start, end in char_ranges:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"characters {start} to {end} of a text that has {len(text)}")
        first = first_token_from(start) if start < len(text) else len(ids) * (start > 0)
        last = first_token_from(end) if end < len(text) else len(ids)
        ranges.append((first, last))
    return ranges


def len_common_prefix(one: str, other: str) -> int:
    """How many leading characters two texts share."""
    if other.startswith(one):  # the usual case, at the speed of C
        return len(one)
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def split_steps(text: str, how: StepSplit) -> list[Span]:
    """The character ranges of a text's reasoning steps.

    The ranges tile the text. White space before a step belongs to it, except that the line
    break belongs to the line it ends; parts that hold nothing but white space are merged into
    the step before them. There is always at least one step, so that means over steps exist: a
    text without any content is one.

    Args:
        text: of a completion.
        how: newline: a step per line. sentence: a step per sentence, which ends at . ! or ?
            before white space, at their full-width forms, or before an empty line; a list
            mark ("2.") stays with the sentence it opens. numbered: a step per line that opens
            with a number ("2.", "2)", "(2)", "Step 2", "**Step 2:**"); what stands before the
            first is a step of its own.
    """
    boundaries = {"newline": line_ends, "sentence": sentence_ends, "numbered": numbered_starts}
    places = sorted({place for place in boundaries[how](text) if 0 < place < len(text)})
    steps: list[Span] = []
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        is_blank = not text[start:end].strip()
        before_is_blank = bool(steps) and not text[slice(*steps[-1])].strip()
        if steps and (is_blank or before_is_blank):
            steps[-1] = (steps[-1][0], end)
        else:
            steps.append((start, end))
    return steps


def line_ends(text: str) -> list[int]:
    return [match.end() for match in re.finditer("\n", text)]


def sentence_ends(text: str) -> list[int]:
    ends: list[int] = []
    for match in SENTENCE_END.finditer(text):
        begun = ends[-1] if ends else 0
        if LIST_MARK.fullmatch(text, begun, match.end()) is None:
            ends.append(match.end())
    return ends


def numbered_starts(text: str) -> list[int]:
    return [match.start() for match in NUMBERED_LINE.finditer(text)]


def section(text: str, opening: str, closing: str) -> Span | None:
    """The characters from the first `opening`, which is included, up to the `closing` after it.

    None where either marker is missing, or where `closing` stands only before `opening`.

    Example:
        section("Analysis: sign. Corrected solution: 4", "Analysis:", "Corrected solution:")
        is (0, 16).

    Raises:
        ValueError: a marker is empty.
    """
    if not opening or not closing:
        raise ValueError(f"markers must not be empty: {opening!r}, {closing!r}")
    start = text.find(opening)
    if start < 0:
        return None
    end = text.find(closing, start + len(opening))
    return None if end < 0 else (start, end)
