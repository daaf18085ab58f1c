"""Drafts of what a policy writes next, looked up in what it has read and written so far.

A correction repeats much of the attempt that stands in its prompt. No vLLM here.
"""

from __future__ import annotations

from collections.abc import Iterable

SPECULATION = "speculation"
"""The key of a request's `extra_args` in vLLM that holds its layer's; without it: no drafts."""


class PromptLookup:
    """Follows one sequence, and drafts its next tokens from the passage that it repeats.

    The passage is the last one that began with the sequence's newest tokens. It is followed as
    long as the sequence goes on as it did, and looked up again where the two part (prompt lookup
    decoding, as vLLM's n-gram method, with an index in place of a search). A draft is shorter than
    what the two have had in common: after a few tokens they part soon, after many they seldom do
    (as suffix decoding has it, arXiv 2411.04975).

    Args:
        token_ids: of the prompt.
        match_tokens: newest tokens that a passage must begin with.
    """

    def __init__(self, token_ids: Iterable[int], *, match_tokens: int) -> None:
        self.match_tokens = match_tokens
        self.token_ids: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}  # the index after the last such tokens
        self.next: int | None = None  # the index of what is expected to come
        self.num_common = 0  # newest tokens that are those before it
        self.extend(token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Take in what the sequence went on with."""
        known = self.token_ids
        for token in token_ids:
            goes_on = self.next is not None and known[self.next] == token
            known.append(token)
            newest = tuple(known[-self.match_tokens :])
            if self.next is not None and goes_on:
                self.next, self.num_common = self.next + 1, self.num_common + 1
            else:
                self.next, self.num_common = self.after.get(newest), self.match_tokens
            self.after[newest] = len(known)

    def draft(self, max_tokens: int) -> list[int]:
        """[at most max_tokens] what followed the passage; nothing where none is repeated."""
        num_tokens = min(max_tokens, self.num_common - 1)
        if self.next is None or num_tokens <= 0:
            return []
        return self.token_ids[self.next : self.next + num_tokens]
