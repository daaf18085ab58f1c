"""What a judge says of labelled completions, from a real server."""

import json

import pytest

from mgrpo.check.agreement import accuracy, agreement_lines, cohens_kappa
from mgrpo.check.rewards import on_a_line, right_answer, unreachable_line
from mgrpo.config import RewardsConfig
from mgrpo.types import Problem
from tests.rewards.services.loopback import chat_reply, says, serving

ROWS = [
    {"question": f"{n} + 1?", "answer": str(n + 1), "completion": f"{n + off}", "correct": off == 1}
    for n, off in enumerate([1, 1, 1, 2, 3, 1, 4, 1])
]


async def arithmetic(request, asked):
    """A judge that is right but for sums above 6."""
    question, completion = asked["messages"][-1]["content"].split("|")
    value = int(question.split()[0]) + 1
    score = 10 if value > 6 else 10 * (int(completion.split()[0]) == value)
    return await says(chat_reply(json.dumps({"score": score})))(request, asked)


@pytest.fixture
def check(tmp_path):
    with serving(arithmetic) as server:

        def run(at_least, rows=ROWS, **agreement):
            path = tmp_path / "labelled.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            term = {
                "judge": "big",
                "url": f"{server.url}/v1",
                "prompt": "{question}|{completion}",
                "critique": False,
                "correct_at": 0.7,
                "max_retries": 0,
                "agreement": {"path": str(path), "at_least": at_least, **agreement},
            }
            config = RewardsConfig.model_validate({"terms": [term], "start_deadline_s": 240})
            (line,) = agreement_lines(config)
            return line

        run.server = server
        yield run


def test_agreement_is_reported_and_its_bound_kept(check):
    line = check(0.8)
    assert line.status == "ok"
    assert "judge agrees with 7 of 8 labels" in line.detail
    assert "accuracy 0.875, Cohen's kappa 0.714" in line.detail
    assert "took 1 wrong ones for right and 0 right ones for wrong" in line.detail
    line = check(0.8, measure="kappa")
    assert line.status == "fail"
    assert "asks for kappa 0.8" in line.detail


def test_no_verdict_is_a_failure(check):
    check.server.reply = says(chat_reply("who knows"))
    line = check(0.0)
    assert line.status == "fail"
    assert "scored all but 8 of 8" in line.detail and "who knows" in line.detail


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (ROWS[:2], "all 2 labels are equal"),
        ([{**ROWS[0], "correct": "perhaps"}], "'perhaps' in the column correct"),
        ([{"question": "a", "answer": "b", "correct": True}], "no text in the column completion"),
        ([{"answer": "b"}], "has no column 'question'"),
        ([ROWS[0], {**ROWS[3], "question": ""}], "unusable rows"),
    ],
)
def test_rows_that_say_nothing_are_refused(check, rows, why):
    line = check(0.0, rows=rows)
    assert line.status == "fail" and why in line.detail


def test_kappa_takes_chance_away():
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert accuracy(pairs) == 0.7
    assert cohens_kappa(pairs) == pytest.approx(0.4)  # expected by chance: 0.5
    always = [(True, True)] * 9 + [(False, True)]
    assert accuracy(always) == 0.9
    assert cohens_kappa(always) == pytest.approx(0.0)
    assert cohens_kappa([(True, True), (False, False)]) == 1.0
    assert cohens_kappa([(True, False), (False, True)]) == -1.0


def test_services_are_not_asked_from_a_machine_that_is_not_the_driver_s():
    terms = [{"http": "http://10.1.2.3/"}, {"check": "math_answer"}]
    line = unreachable_line(RewardsConfig.model_validate({"terms": terms}))
    assert line is not None and line.status == "warn"
    assert "not tried from here: http is asked by the job" in line.detail
    assert unreachable_line(RewardsConfig()) is None


def test_the_reference_answer_is_tried_in_the_form_that_the_checks_read() -> None:
    problem = Problem(problem_id="p", question="?", answer="```python\nx = 1\n```")
    assert right_answer(problem, {"code_answer"}) == problem.answer
    for functions in ({"math_answer"}, {"./mine.py:exact"}, {"code_answer", "format"}):
        assert right_answer(problem, functions) == f"The result is \\boxed{{{problem.answer}}}"


def test_a_completion_is_shown_on_one_line() -> None:
    assert on_a_line("```python\nx = 1\n```") == "```python\\nx = 1\\n```"
    assert on_a_line("y" * 150) == "y" * 100 + "..."
