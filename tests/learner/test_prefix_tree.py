import random

import pytest

from learner import prefix_tree
from learner.prefix_tree import (
    MAX_ATTENTION_SHARE,
    build_tree,
    plan_merged,
    similar_rows,
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
    # 3 of 4 tokens is similar enough for one bucket, 1 of 4 is not. The second row asks again for
    # what it shares, and nobody takes it.
    assert [bucket.nodes.tolist() for bucket in tree.buckets] == [
        [[0, 1, 2, 3], [0, 1, 4, 0]],
        [[5]],
    ]
    assert [bucket.first_query for bucket in tree.buckets] == [0, 0]
    assert tree.found_at.tolist() == [0, 1, 2, 3, 6, 8]


def test_queries_of_a_bucket_begin_behind_what_its_rows_share():
    shared, more = list(range(100)), list(range(200, 230))
    tree, _ = build_tree([shared + more, shared + more, [*shared, *more[:5], 7, *more[6:]]])
    # The second row is the first again, and the third has 25 tokens of its own behind 105.
    assert [(len(one.nodes), one.first_query, one.num_queries) for one in tree.buckets] == [
        (1, 0, 130),
        (1, 105, 25),
    ]
    assert tree.found_at.tolist() == list(range(155))


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
@pytest.mark.parametrize("longest", [12, 80])
def test_each_node_asks_in_one_row_behind_all_that_comes_before_it(seed, longest):
    tree, paths = build_tree(random_rows(seed, longest=longest))
    before = {path[end]: list(path[:end]) for path in paths for end in range(len(path))}
    asked = []
    for bucket in tree.buckets:
        for row in bucket.nodes.tolist():
            asked += [(row[place], row[:place]) for place in range(bucket.first_query, len(row))]
    found = [asked[place] for place in tree.found_at.tolist()]
    assert found == [(node, before[node]) for node in range(len(tree.token_ids))]


def test_a_row_that_shares_little_is_asked_whole(monkeypatch):
    monkeypatch.setattr(prefix_tree, "SPARE_QUERIES", 0)
    shared = list(range(10))
    for length, first_query in ((30, 10), (31, 0)):
        rows = [[*shared, *range(100, 90 + length)], [*shared, *range(300, 290 + length)]]
        tree, _ = build_tree(rows)
        assert [bucket.first_query for bucket in tree.buckets] == ([0, 10] if first_query else [0])
        assert len(tree.found_at) == len(set(tree.found_at.tolist())) == 2 * length - 10


def test_rows_of_a_bucket_are_of_similar_length_and_have_as_many_new_tokens(monkeypatch):
    monkeypatch.setattr(prefix_tree, "SPARE_QUERIES", 0)
    monkeypatch.setattr(prefix_tree, "LEAST_SHARED", 0)
    rows = [
        (shared, [0] * length)
        for shared, length in [(0, 4), (0, 16), (0, 3), (3, 16), (0, 12), (5, 16), (7, 15), (0, 11)]
    ]
    groups = [[(shared, len(path)) for shared, path in group] for group in similar_rows(rows)]
    # 13 of 16 queries are similar, 11 of 16 and 8 of 11 are not, 9 of 11 would be.
    assert groups == [
        [(0, 16), (3, 16), (0, 12)],
        [(5, 16)],
        [(7, 15)],
        [(0, 11)],
        [(0, 4), (0, 3)],
    ]


def test_rows_that_share_a_prefix_go_together():
    rows = [[1, 1, 1, 2], [5, 5, 5, 5], [1, 1, 1, 3], [5, 5, 5, 6]]
    assert plan_merged(rows, 5) == [[0, 2], [1, 3]]
    assert plan_merged(rows, 100) == [[0, 2, 1, 3]]


@pytest.mark.parametrize("budget", [12, 20, 1000])
def test_microbatches_hold_the_budget_of_distinct_tokens(budget):
    rows = random_rows(7, count=200)
    plan = plan_merged(rows, budget)
    for indices in plan:
        members = [rows[index] for index in indices]
        assert num_distinct(members) <= budget
        assert sum(map(len, members)) <= MAX_ATTENTION_SHARE * budget
    assert sorted(index for indices in plan for index in indices) == list(range(200))


def test_a_row_longer_than_the_budget_goes_alone():
    assert plan_merged([[1] * 9, [2], [3]], 4) == [[0], [1, 2]]
    assert plan_merged([], 4) == []
