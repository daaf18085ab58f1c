"""How many completions of a group begin alike, token by token."""

from __future__ import annotations

from collections.abc import Sequence


def prefix_set_sizes(completions: Sequence[Sequence[int]]) -> list[list[int]]:
    """Sizes of the process sets of one group (https://arxiv.org/abs/2509.21154).

    The process set of a token holds every completion that agrees up to and including it. One
    pass over all tokens: a dictionary stands for the trie, (node, token) leads to the next node.

    Args:
        completions: token ids of each, all of one prompt.

    Returns:
        Per completion, [T] sizes, itself included: 1 if no other completion has the same prefix.
    """
    nodes: dict[tuple[int, int], int] = {}
    sizes = [0]  # of every node; the root is not asked for
    paths = []
    for token_ids in completions:
        node, path = 0, []
        for token in token_ids:
            node = nodes.setdefault((node, token), len(sizes))
            if node == len(sizes):
                sizes.append(0)
            sizes[node] += 1
            path.append(node)
        paths.append(path)
    return [[sizes[node] for node in path] for path in paths]
