import dataclasses
import json

import pytest

from mgrpo.metrics.log import MetricsLog
from mgrpo.report.run_data import load_run
from mgrpo.report.sample import (
    clip,
    load_sample,
    script_json,
    spread_order,
    step_data,
    strip_edges,
    template_edges,
    verdict,
)
from mgrpo.types import Reward
from tests.mgrpo.metrics.test_log import a_completion
from tests.mgrpo.report.fake_run import PROMPT, make_run


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
def test_each_status_has_its_own_verdict(reward, word):
    assert verdict(a_completion(reward=reward)) == word


def test_the_chat_template_is_cut_from_the_question():
    questions = ["What is 3 + 4?", "What is 5 + 1?"]
    prompts = [PROMPT.format(question=question) for question in questions]
    before, after = template_edges(prompts)
    assert [strip_edges(prompt, before, after) for prompt in prompts] == questions


def test_a_lone_prompt_and_one_without_a_template_stay_whole():
    assert template_edges([PROMPT.format(question="x")]) == (0, 0)
    assert template_edges(["3 + 4 =", "3 + 9 ="]) == (0, 0)
    assert template_edges(["a", "a<b"]) == (0, 0)


def test_guidance_is_shown_as_its_phrase():
    child = a_completion("sum/3#2.0.0", layer=2, parent_id="sum/3#1.0", guidance_id=1)
    data = step_data(3, [a_completion(), child], {2: ["Hm.", "Wait."]})
    (problem,) = data["problems"]
    assert [node.get("guidance") for node in problem["nodes"]] == [None, "Wait."]
    assert problem["nodes"][1]["parent"] == "sum/3#1.0"


def test_long_texts_keep_their_head_and_tail():
    assert clip("abcdefghij", limit=4) == "ab\n[… 6 characters left out …]\nij"
    assert clip("abcd", limit=4) == "abcd"


def test_no_text_can_end_the_script_element_that_holds_it():
    hostile = "</script><script>alert(1)</script><!-- \u2028 & "
    text = script_json({"text": hostile})
    assert "<" not in text and ">" not in text and "\u2028" not in text
    assert json.loads(text) == {"text": hostile}


def test_a_small_budget_keeps_the_last_step_and_counts_the_rest(tmp_path):
    run = load_run(make_run(tmp_path / "run", steps=12, rollouts_every=3))
    everything = load_sample(run)
    assert [step["step"] for step in everything.steps] == [0, 3, 6, 9]
    assert everything.num_left_out == 0
    one_step = len(script_json(everything.steps[-1]))
    few = load_sample(run, max_bytes=one_step + 10)
    assert [step["step"] for step in few.steps] == [9]
    assert few.num_left_out == 3


def test_corrections_without_their_attempt_are_kept(tmp_path):
    orphan = dataclasses.replace(a_completion(), layer=2, parent_id="pool/9#1.0")
    with MetricsLog(tmp_path) as log:
        log.write_rollouts(0, [orphan])
    (step,) = load_sample(load_run(tmp_path)).steps
    assert step["problems"][0]["nodes"][0]["parent"] == "pool/9#1.0"
