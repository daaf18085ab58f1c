"""Sizes of the sets of completions that begin alike."""

from mgrpo.methods.lambda_grpo.process_sets import prefix_set_sizes


def test_the_worked_group_has_a_tree_of_three_completions():
    assert prefix_set_sizes([[5, 6, 7], [5, 6, 8, 9], [5, 4]]) == [
        [3, 2, 1],
        [3, 2, 1, 1],
        [3, 1],
    ]


def test_different_first_tokens_share_nothing():
    assert prefix_set_sizes([[1, 5], [2, 5], [3]]) == [[1, 1], [1, 1], [1]]


def test_equal_completions_are_in_the_same_sets_to_the_end():
    assert prefix_set_sizes([[1, 2], [1, 2], [1, 2, 3]]) == [[3, 3], [3, 3], [3, 3, 1]]


def test_the_same_token_after_different_beginnings_is_another_state():
    assert prefix_set_sizes([[1, 9], [2, 9]]) == [[1, 1], [1, 1]]


def test_a_completion_without_tokens_is_in_no_set():
    assert prefix_set_sizes([[], [4]]) == [[], [1]]
