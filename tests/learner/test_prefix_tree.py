import random

import pytest

from learner.prefix_tree import (
    MAX_ATTENTION_SHARE,
    build_tree,
    plan_merged,
    similar_lengths,
    sorted_with_prefixes,
)


def random_rows(seed, count=40, vocab=3, longest=12):
    """Few token values, so that prefixes of all lengths are shared and some rows repeat."""
    rng = random.Random(seed)
    return [[rng.randrange(vocab) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def num_distinct(rows):
    return len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})


def test_a_tree_by_hand():
    # 1 2 -> 3 -> 4, 1 2 -> 5, and 7 alone.
    tree, paths = build_tree([[1, 2, 5], [7], [1, 2, 3, 4]])
    assert tree.token_ids.tolist() == [1, 2, 3, 4, 5, 7]
    assert tree.depths.tolist() == [0, 1, 2, 3, 2, 0]
    assert [path.tolist() for path in paths] == [[0, 1, 4], [5], [0, 1, 2, 3]]
    # 3 of 4 tokens is similar enough for one bucket, 1 of 4 is not.
    assert [bucket.tolist() for bucket in tree.buckets] == [[[0, 1, 2, 3], [0, 1, 4, 0]], [[5]]]


def test_large_token_ids_are_ordered_as_numbers():
    order, shared = sorted_with_prefixes([[256], [3], [70_000, 1], [70_000]])
    assert order == [1, 0, 3, 2]
    assert shared == [0, 0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_every_distinct_prefix_is_one_node(seed):
    rows = random_rows(seed)
    tree, paths = build_tree(rows)
    assert len(tree.token_ids) == num_distinct(rows)
    nodes = {}
    for row, path in zip(rows, paths, strict=True):
        assert tree.token_ids[path].tolist() == row
        assert tree.depths[path].tolist() == list(range(len(row)))
        for end, node in enumerate(path, start=1):
            assert nodes.setdefault(tuple(row[:end]), node) == node


@pytest.mark.parametrize("seed", range(5))
def test_each_node_is_found_where_a_row_has_it_never_in_padding(seed):
    tree, paths = build_tree(random_rows(seed))
    real = []
    lengths = sorted((len(path) for path in paths), reverse=True)
    for bucket in tree.buckets:
        for row in bucket.tolist():
            length = lengths.pop(0)
            real += [*row[:length], *[None] * (len(row) - length)]
    assert [real[place] for place in tree.found_at.tolist()] == list(range(len(tree.token_ids)))


def test_rows_of_a_bucket_are_of_similar_length():
    paths = [[0] * length for length in (4, 16, 3, 12, 11)]
    assert [[len(path) for path in group] for group in similar_lengths(paths)] == [
        [16, 12],
        [11],
        [4, 3],
    ]


def test_rows_that_share_a_prefix_go_together():
    rows = [[1, 1, 1, 2], [5, 5, 5, 5], [1, 1, 1, 3], [5, 5, 5, 6]]
    assert plan_merged(rows, num_ranks=1, budget_tokens=5) == [[[0, 2], [1, 3]]]
    assert plan_merged(rows, num_ranks=2, budget_tokens=100) == [[[0, 2]], [[1, 3]]]


@pytest.mark.parametrize("num_ranks", [1, 3])
@pytest.mark.parametrize("budget", [12, 20, 1000])
def test_microbatches_hold_the_budget_of_distinct_tokens(budget, num_ranks):
    rows = random_rows(7, count=200)
    plans = plan_merged(rows, num_ranks=num_ranks, budget_tokens=budget)
    for plan in plans:
        for indices in plan:
            members = [rows[index] for index in indices]
            assert num_distinct(members) <= budget
            assert sum(map(len, members)) <= MAX_ATTENTION_SHARE * budget
    work = [sum(num_distinct([rows[i] for i in part]) for part in plan) for plan in plans]
    assert budget < 1000 or max(work) - min(work) < 40


def test_a_row_longer_than_the_budget_goes_alone():
    assert plan_merged([[1] * 9, [2], [3]], num_ranks=1, budget_tokens=4) == [[[0], [1, 2]]]
