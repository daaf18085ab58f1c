import dataclasses
import json

import pytest

from mgrpo.metrics.log import MetricsLog
from mgrpo.report.run_data import load_run
from mgrpo.report.shown_steps import clip, grade, load_shown_steps, spread_order, step_data
from mgrpo.types import Reward
from tests.mgrpo.metrics.test_log import a_completion
from tests.mgrpo.report.fake_run import make_run


def test_steps_are_taken_last_first_then_from_the_middles():
    assert spread_order([0, 5, 10, 15, 20]) == [20, 0, 10, 5, 15]
    assert spread_order([0, 7]) == [7, 0]
    assert spread_order([]) == []
    assert sorted(spread_order(list(range(37)))) == list(range(37))  # each once


@pytest.mark.parametrize(
    ("reward", "word"),
    [
        (Reward(value=1.0, correct=True), "right"),
        (Reward(value=0.0), "wrong"),
        (Reward(value=0.0, status="unparsable"), "unparsable"),
        (Reward(value=0.0, status="timeout"), "failed"),
        (Reward(value=0.0, status="error"), "failed"),
        (None, "unscored"),
    ],
)
def test_each_status_has_its_own_grade(reward, word):
    assert grade(a_completion(reward=reward)) == word


def test_the_question_is_that_of_the_first_attempt_whatever_the_order():
    attempt = a_completion(prompt_text="What is 3 + 4?", reference_answer="7")
    correction = a_completion("sum/3#2.0.0", layer=2, parent_id="sum/3#1.0", prompt_text="")
    (problem,) = step_data(0, [correction, attempt], {})["problems"]
    assert (problem["question"], problem["reference"]) == ("What is 3 + 4?", "7")


def test_guidance_is_shown_as_its_phrase():
    child = a_completion("sum/3#2.0.0", layer=2, parent_id="sum/3#1.0", guidance_id=1)
    data = step_data(3, [a_completion(), child], {2: ["Hm.", "Wait."]})
    (problem,) = data["problems"]
    assert [node.get("guidance") for node in problem["nodes"]] == [None, "Wait."]
    assert problem["nodes"][1]["parent"] == "sum/3#1.0"


def test_what_the_check_said_stands_with_the_attempt_and_with_what_read_it():
    said = a_completion(reward=Reward(value=0.0, feedback="It is too low."))
    child = a_completion("sum/3#2.0.0", layer=2, parent_id="sum/3#1.0", feedback="It is too")
    (problem,) = step_data(3, [said, child], {})["problems"]
    assert problem["nodes"][0]["feedback"] == "It is too low."
    assert problem["nodes"][1]["fed_back"] == "It is too"


def test_a_completion_shows_the_version_that_wrote_it_or_the_first_and_the_last():
    later = a_completion(version_spans=((0, 7), (1, 8)))
    (problem,) = step_data(3, [a_completion(), later], {})["problems"]
    assert [node["version"] for node in problem["nodes"]] == [7, "7 to 8"]


@pytest.mark.parametrize(
    ("advantage", "selected", "is_silent", "still"),
    [
        (0.5, True, False, None),
        (0.0, True, False, "its advantage is 0"),
        (0.5, True, True, "the step changed nothing"),
        (0.0, False, True, None),  # it says why it was not selected
    ],
)
def test_only_what_has_a_gradient_is_called_trained(advantage, selected, is_silent, still):
    one = a_completion(advantage=advantage, selected=selected)
    (problem,) = step_data(3, [one], {}, is_silent=is_silent)["problems"]
    assert problem["nodes"][0].get("still") == still


def test_a_step_without_an_update_is_known_from_the_metrics(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(0, {"learner/skipped_updates": 1.0})
        log.write_rollouts(0, [a_completion(advantage=0.5, selected=True)])
    (step,) = load_shown_steps(load_run(tmp_path)).steps
    assert step["problems"][0]["nodes"][0]["still"] == "the step changed nothing"


def test_long_texts_keep_their_head_and_tail():
    assert clip("abcdefghij", limit=4) == "ab\n[… 6 characters left out …]\nij"
    assert clip("abcd", limit=4) == "abcd"


def test_a_small_budget_keeps_the_last_step_and_counts_the_rest(tmp_path):
    run = load_run(make_run(tmp_path / "run", steps=12, rollouts_every=3))
    everything = load_shown_steps(run)
    assert [step["step"] for step in everything.steps] == [0, 3, 6, 9]
    assert everything.num_left_out == 0
    one_step = len(json.dumps(everything.steps[-1], separators=(",", ":")))
    few = load_shown_steps(run, max_bytes=one_step + 1000)
    assert [step["step"] for step in few.steps] == [9]
    assert few.num_left_out == 3


def test_corrections_without_their_attempt_are_kept(tmp_path):
    orphan = dataclasses.replace(a_completion(), layer=2, parent_id="pool/9#1.0")
    with MetricsLog(tmp_path) as log:
        log.write_rollouts(0, [orphan])
    (step,) = load_shown_steps(load_run(tmp_path)).steps
    assert step["problems"][0]["nodes"][0]["parent"] == "pool/9#1.0"


def test_held_out_completions_stand_before_the_steps(tmp_path):
    run = make_run(tmp_path / "run", steps=4, rollouts_every=2)
    with MetricsLog(run) as log:
        log.write_rollouts(0, [a_completion()], "heldout")
        log.write_rollouts(4, [a_completion()], "heldout")
    shown = load_shown_steps(load_run(run))
    assert [(one["step"], one.get("heldout", False)) for one in shown.steps] == [
        (0, True),
        (4, True),
        (0, False),
        (2, False),
    ]
    assert (shown.num_of_training, shown.num_left_out) == (2, 0)
