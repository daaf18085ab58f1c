"""Evaluation on a scripted engine: every attempt is given back under every phrase."""

from __future__ import annotations

import pytest

from actors.rollout import Rollout
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder
from mgrpo.config import EvaluationConfig, LayerConfig
from mgrpo.evaluate import evaluate
from mgrpo.types import Problem, Reward
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()
PROBLEMS = [
    Problem(problem_id=f"p{i}", question=f"q{i}", answer="yes", domain="ab"[i % 2])
    for i in range(4)
]
PHRASES = ["Sure?", "Really?"]


class ExactScorer:
    async def score(self, problem: Problem, texts: list[str]) -> list[Reward]:
        return [
            Reward(value=float(text == problem.answer), correct=text == problem.answer)
            for text in texts
        ]


def script(prompt: list[int], index: int) -> str:
    """First attempts are right on q0 and q1. "Sure?" mends q2, "Really?" spoils q0."""
    text = TOKENIZER.decode(prompt)
    if "Really?" in text and "q0" in text:
        return "no"
    if "Sure?" in text and "q2" in text:
        return "yes"
    return "yes" if "q0" in text or "q1" in text else "no"


def rollout() -> Rollout:
    engine = ScriptedEngine(script, encode=TOKENIZER.encode, end_id=END)
    layers = [
        LayerConfig(name="solve", group_size=8),
        LayerConfig.model_validate(
            {"name": "correct", "group_size": 4, "guidance": {"phrases": PHRASES}}
        ),
    ]
    return Rollout(
        engines={1: [engine], 2: [engine]},
        scorer=ExactScorer(),
        builder=PromptBuilder(TOKENIZER),
        layers=layers,
        temperature=1.0,
        seed=0,
    )


def test_accuracies_ranges_and_transitions_over_all_phrases() -> None:
    evaluation, _ = evaluate(rollout(), PROBLEMS, EvaluationConfig(), key="e")
    summary = evaluation.summary()
    assert summary["num_problems"] == 4
    # Turn 2: right are q0 and q1 and q2 under "Sure?", q1 under "Really?".
    assert summary["acc"] == [0.5, 0.5]
    assert summary["acc_range"] == [[0.5, 0.5], [0.25, 0.75]]
    [moves] = summary["transitions"]
    assert moves["counts"]["wrong_to_right"] == 1 and moves["counts"]["right_to_wrong"] == 1
    assert moves["wrong_to_right"] - moves["right_to_wrong"] == pytest.approx(summary["delta"])
    assert summary["domains"]["a"] == {"num_problems": 2, "acc": [0.5, 0.5]}


def test_first_guidance_uses_one_phrase() -> None:
    evaluation, _ = evaluate(rollout(), PROBLEMS, EvaluationConfig(guidance="first"), key="e")
    assert evaluation.summary()["acc"] == [0.5, 0.75]
    assert len(evaluation.layer(2)) == 4


def test_sampled_evaluation_takes_several_attempts() -> None:
    config = EvaluationConfig(decoding="sampled", samples_per_problem=3)
    evaluation, _ = evaluate(rollout(), PROBLEMS, config, key="e")
    assert len(evaluation.layer(1)) == 12 and len(evaluation.layer(2)) == 24
