"""Reward functions of TRL, verl and OpenRLHF, unmodified, and what is made of what they return."""

from dataclasses import replace

import pytest

from mgrpo.config.rewards import RewardsConfig
from mgrpo.errors import RewardError
from mgrpo.types import Problem
from rewards.conventions import Group, invocations
from rewards.pool import RewardPool
from rewards.registry import load_function
from rewards.worker import scored

HERE = "tests.rewards.functions_from_elsewhere"
OF_OPENRLHF = "tests.rewards.functions_of_openrlhf"
SEVEN = Problem(
    problem_id="seven",
    question="What is 3 + 4?",
    answer="7",
    domain="sums",
    metadata={"task": "algebra", "ground_truth": "7", "prompt": "not a column"},
)
RIGHT, WRONG, NOTHING = "so \\boxed{7}", "so it is \\boxed{8}", "who knows"
TEXTS = [RIGHT, WRONG, NOTHING]


def place_of(name):
    return f"{OF_OPENRLHF if name in ('reward_func', 'tensor_reward') else HERE}:{name}"


def config_of(*terms, **others):
    return RewardsConfig.model_validate({"terms": list(terms), "num_processes": 1, **others})


def outcomes(kind, name, texts=TEXTS, problem=SEVEN, token_ids=None, **keys):
    """What a term's function says of a group, called in this process."""
    own = {kind: place_of(name), "correct_at": 1.0, **keys}
    term = config_of(own, {"check": "math_answer"}).terms[0]
    calls = invocations(
        load_function(term), Group(problem=problem, texts=texts, token_ids=token_ids)
    )
    return [outcome for call in calls for outcome in scored(call)]


def values(found):
    return [None if one is None else one.value for one in found]


def test_trl_gets_the_columns_as_parallel_lists():
    found = outcomes("trl", "accuracy")
    assert values(found) == [1.0, 0.0, 0.0]
    assert [one.correct for one in found] == [True, False, False]


def test_trl_gets_token_ids_and_its_settings():
    ids = [[1] * 3, [1] * 10, [1]]
    found = outcomes("trl", "length_penalty", token_ids=ids, settings={"scale": 1.0})
    assert values(found) == [-3.0, -10.0, -1.0]


def test_a_reward_of_the_group_sees_the_group():
    assert values(outcomes("trl", "best_of_group")) == [0.0, 0.0, 1.0]


def test_trl_gets_messages_where_it_is_told_to():
    assert values(outcomes("trl", "chat_accuracy", messages=True)) == [1.0, 0.0, 0.0]


def test_trl_gets_messages_where_the_row_has_them():
    told = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    chat = replace(SEVEN, is_chat=True, earlier_turns=told)
    assert values(outcomes("trl", "chat_accuracy", problem=chat)) == [1.0, 0.0, 0.0]
    assert chat.chat == [*told, {"role": "user", "content": SEVEN.question}]


def test_none_leaves_the_term_out():
    assert values(outcomes("trl", "only_algebra")) == [1.0, 0.0, 0.0]
    history = Problem(problem_id="h", question="Who?", answer="7", metadata={"task": "history"})
    assert outcomes("trl", "only_algebra", problem=history) == [None, None, None]
    assert values(outcomes("batch", "differ", texts=["a", "b", "a"])) == [None, 1.0, None]


def test_what_trl_functions_log_is_kept_with_the_reward():
    first, _, last = outcomes("trl", "logs_more")
    mean = sum(map(len, TEXTS)) / 3
    assert first.parts == {"characters": len(RIGHT), "mean_length": mean}
    assert (first.detail, last.detail) == ("answer_read: 7", "answer_read: none")


def test_verl_s_dict_has_a_score_and_parts():
    right, wrong, _ = outcomes("verl", "compute_score")
    assert (right.value, right.correct, right.parts) == (1.0, True, {"acc": 1.0})
    assert (wrong.value, wrong.correct, wrong.detail) == (-1.0, False, "pred: 8")


def test_a_text_under_feedback_is_for_the_correction():
    right, wrong, _ = outcomes("verl", "score_with_feedback")
    assert (right.feedback, wrong.feedback) == ("", "Line 3: expected a semicolon.")
    assert (wrong.detail, wrong.parts) == ("", {})
    logged = outcomes("trl", "logs_feedback")
    assert [one.feedback for one in logged] == [f"{len(text)} characters" for text in TEXTS]


def test_feedback_comes_back_from_the_reward_process_with_that_of_other_terms():
    config = config_of(
        {"verl": f"{HERE}:score_with_feedback", "correct_at": 1.0}, {"check": "math_answer"}
    )
    with RewardPool(config, problems=[SEVEN]) as pool:
        right, wrong, _ = pool.score_blocking(SEVEN, TEXTS, [[1]] * 3)
    assert right.feedback == "The answer is right."
    assert wrong.feedback == "Line 3: expected a semicolon.\nThe answer is not the expected one."


def test_verl_reads_its_own_columns():
    row = Problem(
        problem_id="row",
        question="?",
        answer="8",
        metadata={
            "data_source": "openai/gsm8k",
            "reward_model": {"style": "rule", "ground_truth": "7"},
            "extra_info": {"index": 4},
        },
    )
    assert values(outcomes("verl", "by_source", problem=row)) == [1.4, 0.4, 0.4]
    failed = outcomes("verl", "by_source")[0]
    assert (failed.status, failed.value) == ("error", 0.0)
    assert "NotImplementedError: no score for sums (functions_from_elsewhere.py:" in failed.detail


def test_openrlhf_returns_tensors_and_dicts_of_them():
    right, wrong, _ = outcomes("openrlhf", "reward_func")
    assert (right.value, right.correct) == (1.0, True)
    assert right.parts == {"scores": 1.0, "length": float(len(RIGHT))}
    assert (wrong.value, wrong.correct) == (0.0, False)
    assert values(outcomes("openrlhf", "tensor_reward")) == [2.0, 0.0, 0.0]


def test_correct_at_is_the_functions_own_scale():
    found = outcomes("openrlhf", "tensor_reward", correct_at=2.5)
    assert [one.correct for one in found] == [False, False, False]
    assert not any(one.correct for one in outcomes("trl", "accuracy", correct_at=None))


@pytest.mark.parametrize(
    ("kind", "name", "statuses", "detail"),
    [
        ("trl", "too_few", ["error"] * 3, "returned 2 rewards for 3 completions"),
        ("trl", "one_number", ["error"] * 3, "1.0 of type float, expected a list of 3"),
        ("trl", "one_nan", ["error", "scored", "scored"], "nan, expected a finite value"),
        ("trl", "raises", ["error"] * 3, "KeyError: 'x' (functions_from_elsewhere.py:"),
        ("trl", "needs_a_column", ["error"] * 3, "it needs difficulty, and the row has answer"),
        ("verl", "nameless_score", ["error"] * 3, "has no score: {'acc': 1.0}"),
    ],
)
def test_what_goes_wrong_is_an_error_and_no_zero(kind, name, statuses, detail):
    found = outcomes(kind, name)
    assert [one.status for one in found] == statuses
    assert detail in found[0].detail


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        ("check", "accuracy", "write `trl: {name}` in place of `check: {name}`, with correct_at:"),
        ("check", "compute_score", "write `verl: {name}` in place of `check: {name}`, with"),
        ("check", "reward_func", "write `openrlhf: {name}` in place of `check: {name}`, with"),
        ("check", "differ", "write `batch: {name}` in place of `check: {name}`."),
        ("batch", "nicely", "write `check: {name}` in place of `batch: {name}`."),
        ("trl", "reward_func", "write `openrlhf: {name}` in place of `trl: {name}`"),
        ("trl", "nicely", "write `check: {name}` in place of `trl: {name}`."),
        ("verl", "accuracy", "write `trl: {name}` in place of `verl: {name}`"),
        ("openrlhf", "compute_score", "write `verl: {name}` in place of `openrlhf: {name}`"),
        (
            "trl",
            "needs_the_trainer",
            "trainer_state of TRL's trainer is not there: give it a default",
        ),
    ],
)
def test_a_function_of_another_kind_is_refused_with_the_term_to_write(kind, name, advice):
    target = place_of(name)
    (term,) = config_of({kind: target, "correct_at": 1.0}).terms
    with pytest.raises(RewardError) as caught:
        load_function(term)
    assert advice.replace("{name}", target) in str(caught.value)
    assert "Its signature is (" in str(caught.value)


@pytest.mark.parametrize("kind", ["verl", "openrlhf"])
def test_an_unknown_setting_is_refused(kind):
    name = {"verl": "by_source", "openrlhf": "reward_func"}[kind]
    config = config_of({kind: place_of(name), "correct_at": 1, "settings": {"sharpness": 2}})
    with pytest.raises(RewardError, match="sharpness"):
        load_function(config.terms[0])


# In reward processes, as in a run


def test_a_group_is_one_call_and_single_checks_are_divided():
    terms = [{"batch": f"{HERE}:whole_group", "weight": 0.01}, {"check": "math_answer"}]
    with RewardPool(config_of(*terms, num_processes=2)) as pool:
        rewards = pool.score_blocking(SEVEN, [RIGHT, WRONG] * 50)
    assert {reward.parts[f"{HERE}:whole_group"] for reward in rewards} == {100.0}
    assert [reward.value for reward in rewards] == pytest.approx([2.0, 1.0] * 50)
    assert [reward.correct for reward in rewards] == [True, False] * 50


def test_a_term_that_is_left_out_adds_nothing_and_decides_nothing():
    terms = [
        {"trl": f"{HERE}:only_algebra", "correct_at": 1.0},
        {"trl": f"{HERE}:think_format"},
        {"check": "math_answer", "weight": 0.0},
    ]
    algebra, history = (
        SEVEN,
        Problem(problem_id="h", question="?", answer="7", metadata={"task": "h"}),
    )
    texts = ["<think>3 + 4</think>\\boxed{7}", "\\boxed{8}"]
    with RewardPool(config_of(*terms)) as pool:
        scored, left_out = pool.score_blocking(algebra, texts), pool.score_blocking(history, texts)
    assert [(one.value, one.correct) for one in scored] == [(1.5, True), (0.0, False)]
    assert [(one.value, one.correct) for one in left_out] == [(0.5, True), (0.0, False)]
    assert f"{HERE}:only_algebra" not in left_out[0].parts
    assert {one.status for one in [*scored, *left_out]} == {"scored"}


def test_a_term_scores_the_problems_of_its_sources_alone():
    terms = [
        {"check": "math_answer", "sources": ["sums"]},
        {"trl": f"{HERE}:think_format", "weight": 0.5, "correct_at": 1.0, "sources": ["chats"]},
        {"batch": f"{HERE}:whole_group", "weight": 0.0},
    ]
    sums, chats = replace(SEVEN, source="sums"), replace(SEVEN, source="chats")
    texts = ["<think>3 + 4</think>\\boxed{7}", "\\boxed{7}"]
    with RewardPool(config_of(*terms)) as pool:
        of_sums, of_chats = (pool.score_blocking(one, texts) for one in (sums, chats))
    assert [(one.value, one.correct) for one in of_sums] == [(1.0, True), (1.0, True)]
    assert [(one.value, one.correct) for one in of_chats] == [(0.25, False), (0.0, False)]
    assert set(of_sums[0].parts) == {"math_answer", f"{HERE}:whole_group"}
    assert set(of_chats[0].parts) == {f"{HERE}:think_format", f"{HERE}:whole_group"}


def test_a_source_without_a_term_is_an_error_that_names_it():
    with (
        RewardPool(config_of({"check": "math_answer", "sources": ["sums"]})) as pool,
        pytest.raises(RewardError, match=r"No term .* problem seven of the source 'chats'"),
    ):
        pool.score_blocking(replace(SEVEN, source="chats"), [RIGHT])


def test_a_completion_that_no_term_scores_is_an_error():
    with RewardPool(config_of({"trl": f"{HERE}:never_scores", "correct_at": 1.0})) as pool:
        (reward,) = pool.score_blocking(SEVEN, [RIGHT])
    assert (reward.status, reward.value) == ("error", 0.0)
    assert "no term scores it" in reward.detail


def test_a_group_call_that_hangs_or_dies_costs_its_group():
    config = config_of({"batch": f"{HERE}:on_command", "correct_at": 1.0}, deadline_s=1.0)
    with RewardPool(config) as pool:
        hung = pool.score_blocking(SEVEN, ["fine", "hang"])
        died = pool.score_blocking(SEVEN, ["exit", "fine"])
        fine = pool.score_blocking(SEVEN, ["fine", "fine"])
    assert [one.status for one in hung] == ["timeout"] * 2
    assert "on_command: took longer than rewards.deadline_s = 1 s and was killed" in hung[0].detail
    assert [one.status for one in died] == ["error"] * 2
    assert "exit code 1" in died[0].detail
    assert [one.value for one in fine] == [1.0, 1.0]


def test_async_functions_share_a_loop_and_wait_at_the_same_time():
    term = {"verl": f"{HERE}:slow_score", "correct_at": 1.0, "settings": {"pause_s": 0.5}}
    with RewardPool(config_of(term, deadline_s=5.0)) as pool:
        rewards = pool.score_blocking(SEVEN, ["7"] * 100)  # one after the other: 50 s
        again = pool.score_blocking(SEVEN, ["8"])
    assert {reward.value for reward in rewards} == {1.0}
    assert len({one.parts[f"{HERE}:slow_score#loop"] for one in [*rewards, *again]}) == 1


def test_an_async_function_has_the_same_deadline_for_each_completion():
    term = {"verl": f"{HERE}:slow_score", "correct_at": 1.0}
    with RewardPool(config_of(term, deadline_s=1.0)) as pool:
        found = pool.score_blocking(SEVEN, ["7", "wait", "own timeout", "8"])
        blocked = pool.score_blocking(SEVEN, ["block", "7"])
    assert [one.status for one in found] == ["scored", "timeout", "error", "scored"]
    assert "and was cancelled" in found[1].detail
    assert "TimeoutError: the server" in found[2].detail
    assert [one.status for one in blocked] == ["timeout", "timeout"]


def test_every_kind_may_be_async():
    terms = [
        {"check": f"{HERE}:nicely"},
        {"trl": f"{HERE}:slow_accuracy", "weight": 0.5},
    ]
    with RewardPool(config_of(*terms)) as pool:
        rewards = pool.score_blocking(SEVEN, ["7", RIGHT])
    assert [one.value for one in rewards] == [1.0, 0.5]
    assert [one.correct for one in rewards] == [True, False]
