"""Which completions of a prompt are the shortest, before the others are finished.

Of n + m completions that are begun, the first n to finish would depend on how an engine batches
them. Sequences of one engine grow by a token at a time, so these are the n shortest, or nearly; the
n shortest are the same on every run, and a running one that cannot be among them can be aborted at
the token that decides it. Completions are numbered in the order in which they were begun, which
decides between equal lengths.
"""

from __future__ import annotations

from collections.abc import Mapping

from mgrpo.types import Generation


def shortest(lengths: Mapping[int, int], num_kept: int) -> list[int]:
    """The numbers of the shortest completions, rising; of all where there are fewer.

    Args:
        lengths: by number, tokens of completions that are finished.
    """
    return sorted(sorted(lengths, key=lambda number: (lengths[number], number))[:num_kept])


def too_long(finished: Mapping[int, int], running: Mapping[int, int], num_kept: int) -> list[int]:
    """The numbers of running completions that cannot be among the shortest.

    Args:
        finished, running: by number, tokens so far; a running one gets at least one more.
    """
    if len(finished) < num_kept:
        return []
    length, last = max((finished[number], number) for number in shortest(finished, num_kept))
    return [number for number, own in running.items() if (own + 1, number) > (length, last)]


def kept_first(generations: Mapping[int, Generation], num_kept: int) -> list[Generation]:
    """Completions by number -> the shortest in their order, and after them the aborted ones."""
    whole = {
        number: len(one.token_ids)
        for number, one in generations.items()
        if one.finish_reason != "aborted"
    }
    kept = shortest(whole, num_kept)
    others = [number for number in sorted(generations) if number not in kept]
    return [generations[number] for number in [*kept, *others]]
