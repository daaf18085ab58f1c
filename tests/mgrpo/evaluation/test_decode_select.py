"""DeSel at evaluation: who may vote, who wins, and what is reported of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.fleet.leases import FixedEngines
from mgrpo.config import EvaluationConfig
from mgrpo.config.evaluation import DecodeSelectConfig
from mgrpo.evaluation.decode_select import likelihood, likely_enough, selected_vote
from mgrpo.evaluation.evaluate import evaluate, evaluation_row
from mgrpo.evaluation.summary import vote
from mgrpo.evaluation.tables import evaluation_note, evaluation_tables
from mgrpo.records.turns import Prompt
from mgrpo.report.words import percent
from mgrpo.types import Completion, Generation
from tests.learner.builders import run_config
from tests.mgrpo.evaluation.test_evaluate import PROBLEMS, TOKENIZER, rollout
from tests.mgrpo.evaluation.test_summary import completion

WORKED = [-0.4, -0.9, -1.5]
LIKELIHOODS = [math.exp(value) for value in WORKED]
ANCHOR = math.exp(-0.5)


def answer(number: int, text: str | None, mean_logprob: float, length: int = 2) -> Completion:
    one = completion("p0", str(number), text)
    return dataclasses.replace(
        one, token_ids=[2] * length, rollout_logprobs=[mean_logprob] * length
    )


def test_the_worked_samples():
    """exp(-.5) = .606531 times .6 is .363918, which the third, at .223130, does not reach."""
    assert pytest.approx([0.670320, 0.406570, 0.223130], abs=1e-6) == LIKELIHOODS
    assert pytest.approx(0.363918, abs=1e-6) == 0.6 * ANCHOR
    assert likely_enough(LIKELIHOODS, ANCHOR, ratio=0.6) == [True, True, False]


def test_a_ratio_of_nothing_keeps_everything():
    assert likely_enough(LIKELIHOODS, ANCHOR, ratio=0.0) == [True] * 3


def test_of_the_likely_ones_the_likeliest_may_be_all_that_vote():
    assert likely_enough([0.5, 0.9, 0.9, 0.1], 0.5, ratio=0.6, top_k=1) == [
        *(False, True, False, False)
    ]
    assert likely_enough([0.5, 0.9, 0.1], 0.5, ratio=0.6, top_k=3) == [True, True, False]


def test_likelihood_is_per_token():
    assert likelihood(answer(0, "7", -0.4, length=7)) == pytest.approx(LIKELIHOODS[0])
    nothing = dataclasses.replace(answer(0, "7", 0.0), token_ids=[], rollout_logprobs=[])
    assert likelihood(nothing) == 0.0


def test_unlikely_samples_do_not_outvote_the_greedy_answer():
    samples = [answer(0, "8", -1.5), answer(1, "8", -1.5), answer(2, "7", -0.9)]
    anchor = answer(9, "7", -0.5)
    found = selected_vote(samples, anchor, DecodeSelectConfig(), vote)
    assert (found.is_right, found.num_kept, found.num_samples) == (True, 1, 3)
    everyone = selected_vote(samples, anchor, DecodeSelectConfig(ratio=0.0), vote)
    assert everyone.num_kept == 3 and everyone.is_right  # 2 : 2, and the greedy answer came first
    without = selected_vote(samples[:2], None, DecodeSelectConfig(anchor="max_likelihood"), vote)
    assert (without.is_right, without.num_kept) == (False, 2)


def test_answers_that_cannot_be_read_do_not_vote():
    samples = [answer(0, None, -0.1), answer(1, None, -0.1), answer(2, "7", -0.1)]
    assert selected_vote(samples, answer(9, None, -0.1), DecodeSelectConfig(), vote).is_right
    nobody = selected_vote(samples[:2], None, DecodeSelectConfig(anchor="max_likelihood"), vote)
    assert not nobody.is_right


# --- in an evaluation ---


class Loud:
    """Every third sampled answer is yes, and likely; the others are no. Greedy says yes."""

    name, num_inflight = "loud", 0

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    async def generate(
        self, prompt: Prompt, *, num_samples: int, temperature: float, **_: Any
    ) -> list[Generation]:
        self.asked.append((num_samples, temperature))
        right = [temperature == 0 or index % 3 == 1 for index in range(num_samples)]
        return [
            Generation(
                token_ids=TOKENIZER.encode("yes" if is_right else "no"),
                logprobs=[-0.5 if is_right else -2.0] * 3,
                finish_reason="stop",
                version_spans=((0, 0),),
                text="yes" if is_right else "no",
            )
            for is_right in right
        ]


def evaluated(num_layers: int = 1, **select: Any) -> tuple[Any, Loud]:
    parts = rollout(num_layers)
    engine = Loud()
    parts.engines = FixedEngines({number: [engine] for number in range(1, num_layers + 1)})
    settings = EvaluationConfig(
        decoding="sampled", samples_per_problem=6, decode_select=select or {}
    )
    found, _ = evaluate(parts, PROBLEMS, settings, key="e")
    return found, engine


@pytest.mark.parametrize("anchor", ["greedy", "max_likelihood"])
def test_the_vote_of_the_likely_is_reported_beside_the_majority(anchor: str):
    found, engine = evaluated(anchor=anchor, ratio=0.6)
    summary = found.summary()
    assert summary["maj_at"]["4"] == [0.0]
    assert summary["selected"] == {
        "ratio": 0.6,
        "anchor": anchor,
        "top_k": None,
        "acc": [1.0],
        "kept_fraction": [pytest.approx(1 / 3)],
    }
    greedy = [(1, 0.0)] * len(PROBLEMS) if anchor == "greedy" else []
    assert engine.asked == [(6, 1.0)] * len(PROBLEMS) + greedy


def test_every_turn_and_phrase_has_an_anchor_of_its_own():
    found, _ = evaluated(2, ratio=0.6)
    ids = [one.completion_id for one in (*found.completions, *found.anchors)]
    assert len(set(ids)) == len(ids)
    assert len([one for one in found.anchors if one.layer == 2]) == 2 * len(PROBLEMS)
    selected = found.summary()["selected"]
    # Each sampled correction is the first of its prompt, a no; the greedy ones vote alone.
    assert selected["acc"] == [1.0, 1.0] and found.summary()["acc"][1] == 0.0
    assert selected["kept_fraction"] == [pytest.approx(1 / 3), 0.0]


def test_a_problem_whose_greedy_check_failed_is_left_out():
    found, _ = evaluated(ratio=0.0)
    failed = dataclasses.replace(
        found.anchors[0], reward=dataclasses.replace(found.anchors[0].reward, status="timeout")
    )
    partly = dataclasses.replace(found, anchors=[failed, *found.anchors[1:]])
    assert partly.summary()["selected"]["acc"] == found.summary()["selected"]["acc"]
    none = dataclasses.replace(found, anchors=[])
    assert none.summary()["selected"]["acc"] == [None]


def test_it_stands_in_the_table_and_in_the_note():
    found, _ = evaluated(ratio=0.6)
    row = evaluation_row(found, step=0, label="eval", seconds=1.0, layers=run_config().layers)
    table = evaluation_tables(row, "model")[0]
    assert table.columns[-1] == "sel@6" and table.rows[0][-1] == percent(1.0)
    assert "the greedy answer and the samples at least 0.6 times as likely" in evaluation_note(row)
    assert percent(1 / 3) in evaluation_note(row)


def test_without_it_nothing_is_asked_or_shown():
    parts = rollout(1)
    settings = EvaluationConfig(decoding="sampled", samples_per_problem=2)
    found, _ = evaluate(parts, PROBLEMS, settings, key="e")
    assert found.anchors == [] and "selected" not in found.summary()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decode_select": {}}, "there is 1 of each"),
        (
            {
                "decode_select": {},
                "decoding": "sampled",
                "samples_per_problem": 4,
                "temperature": 0.7,
            },
            "Use temperature: 1",
        ),
        ({"decode_select": {"ratio": -1}}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate(settings)
