"""Which completions are paired, and which problems are held out."""

from __future__ import annotations

import pytest

from mgrpo.errors import DataError
from mgrpo.methods.ws_grpo.scorer_pairs import Pair, make_pairs, split_by_problem
from tests.learner.builders import completion, with_status


def attempt(problem: str, number: int, reward: float | None, token: int | None = None, **changes):
    tokens = [10 + number if token is None else token]
    return completion(f"{problem}/{number}", reward, token_ids=tokens, **changes)


def made(completions, *, max_per_problem=64, seed=0):
    return make_pairs(completions, max_per_problem=max_per_problem, seed=seed)


def test_every_right_one_meets_every_wrong_one_of_its_problem():
    completions = [attempt("q", number, reward) for number, reward in enumerate([1, 0, 0, 1])]
    completions += [attempt("r", 4, 1), attempt("r", 5, 0), attempt("s", 6, 1)]
    assert {(p.problem, p.right, p.wrong) for p in made(completions)} == {
        ("q", (1, 2, 10), (1, 2, 11)),
        ("q", (1, 2, 10), (1, 2, 12)),
        ("q", (1, 2, 13), (1, 2, 11)),
        ("q", (1, 2, 13), (1, 2, 12)),
        ("r", (1, 2, 14), (1, 2, 15)),
    }


def test_a_pair_knows_where_its_prompt_ends():
    completions = [attempt("q", n, n, prompt=[7, 8, 9]) for n in (0, 1)]
    assert made(completions) == [Pair("q", (7, 8, 9, 11), (7, 8, 9, 10), 3)]


def test_a_text_sampled_twice_makes_one_pair():
    completions = [attempt("q", 0, 1), attempt("q", 1, 0), attempt("q", 2, 0, token=11)]
    assert len(made(completions)) == 1


def test_different_prompts_of_one_problem_are_not_compared():
    completions = [
        attempt("q", 0, 1),
        attempt("q", 1, 0, prompt=[9]),
        attempt("q", 2, 1, prompt=[9]),
    ]
    assert [(pair.right, pair.wrong) for pair in made(completions)] == [((9, 12), (9, 11))]


def test_a_problem_has_at_most_so_many_pairs_drawn_by_the_seed():
    completions = [attempt("q", number, number % 2) for number in range(20)]  # 10 x 10
    drawn = made(completions, max_per_problem=30)
    assert len(set(drawn)) == len(drawn) == 30
    assert drawn == made(completions, max_per_problem=30)
    assert drawn != made(completions, max_per_problem=30, seed=1)


def test_corrections_and_failed_checks_are_no_pairs_and_the_message_counts_them():
    completions = [
        attempt("q", 0, 1),
        with_status(attempt("q", 1, 0), "timeout"),
        attempt("q", 2, None),
        completion("q/0/1", 0),
        attempt("r", 3, 0),
    ]
    with pytest.raises(DataError) as failure:
        made(completions)
    message = str(failure.value)
    assert "1 right and 1 wrong first attempts at 2 problems, 2 without a usable check" in message
    assert "1 completions of later layers" in message
    assert "output.rollouts_per_step" in message


def test_an_answer_that_could_not_be_read_is_a_wrong_one():
    completions = [attempt("q", 0, 1), with_status(attempt("q", 1, 0), "unparsable")]
    assert len(made(completions)) == 1


def pairs_of(counts: dict[str, int]) -> list[Pair]:
    return [
        Pair(name, (1, number), (2, number), 1)
        for name, count in counts.items()
        for number in range(count)
    ]


def test_whole_problems_are_held_out():
    pairs = pairs_of({f"q{number}": 1 + number % 3 for number in range(20)})
    train, held_out = split_by_problem(pairs, holdout=0.1, seed=0)
    problems = [{pair.problem for pair in part} for part in (train, held_out)]
    assert [len(part) for part in problems] == [18, 2]
    assert not problems[0] & problems[1]
    assert sorted(map(str, train + held_out)) == sorted(map(str, pairs))
    assert (train, held_out) == split_by_problem(pairs, holdout=0.1, seed=0)
    assert held_out != split_by_problem(pairs, holdout=0.1, seed=1)[1]


@pytest.mark.parametrize("holdout", [0.01, 0.99])
def test_either_side_has_a_problem(holdout):
    train, held_out = split_by_problem(pairs_of({"q": 2, "r": 3}), holdout=holdout, seed=0)
    assert {len(train), len(held_out)} == {2, 3}


def test_nothing_is_held_out_where_nothing_is_asked_for():
    pairs = pairs_of({"q": 2})
    assert split_by_problem(pairs, holdout=0, seed=0) == (pairs, [])


def test_one_problem_cannot_be_split():
    with pytest.raises(DataError, match="All 2 pairs are of one problem"):
        split_by_problem(pairs_of({"q": 2}), holdout=0.5, seed=0)
