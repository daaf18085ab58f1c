"""Evaluation on a scripted engine: which attempts are given back, under which phrases."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from actors.plugin import RolloutPlugin, RolloutTools
from actors.rollout import Rollout
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder
from cluster.fleet.leases import FixedEngines
from mgrpo.config import CorrectLayer, EvaluationConfig, SolveLayer, VerifyLayer
from mgrpo.config.base import StrictConfig
from mgrpo.config.load import load_recipe
from mgrpo.evaluation.evaluate import evaluate, evaluation_row
from mgrpo.evaluation.tables import evaluation_tables
from mgrpo.types import Completion, Problem, Reward
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()
PROBLEMS = [
    Problem(problem_id=f"p{i}", question=f"q{i}", answer="yes", domain="ab"[i % 2])
    for i in range(4)
]
PHRASES = ["Sure?", "Really?"]


class ExactScorer:
    async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
        return [
            Reward(
                value=float(text == problem.answer),
                correct=text == problem.answer,
                extracted_answer=text,
            )
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


def rollout(num_layers: int = 2, phrases: list[str] = PHRASES, *, seed: int = 0) -> Rollout:
    engine = ScriptedEngine(script, encode=TOKENIZER.encode, end_id=END)
    layers = [SolveLayer(name="solve", group_size=8)] + [
        CorrectLayer.model_validate(
            {"name": f"correct{n}", "group_size": 4, "guidance": {"phrases": phrases}}
        )
        for n in range(2, num_layers + 1)
    ]
    return Rollout(
        engines=FixedEngines({number: [engine] for number in range(1, num_layers + 1)}),
        scorer=ExactScorer(),
        builder=PromptBuilder(TOKENIZER),
        layers=layers,
        temperature=1.0,
        seed=seed,
    )


def summary_of(rollout: Rollout, **settings: Any) -> dict[str, Any]:
    evaluation, _ = evaluate(rollout, PROBLEMS, EvaluationConfig(**settings), key="e")
    return evaluation.summary()


def phrases_drawn(rollout: Rollout, problems: list[Problem]) -> list[int | None]:
    config = EvaluationConfig(guidance="random")
    evaluation, _ = evaluate(rollout, problems, config, key="e")
    return [c.guidance_id for c in evaluation.completions if c.layer == 2]


class Spoil(RolloutPlugin):
    """Would make every completion wrong."""

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        return dataclasses.replace(completion, reward=Reward(value=0.0))


def test_plugins_leave_evaluations_alone() -> None:
    plain, with_plugin = rollout(), rollout()
    with_plugin.plugins = [Spoil(StrictConfig(), frozenset({1, 2}))]
    assert summary_of(with_plugin) == summary_of(plain)
    assert len(with_plugin.plugins) == 1  # training goes on with it


def test_a_first_turn_reads_the_bare_problem_and_no_attempt() -> None:
    evaluation, _ = evaluate(rollout(), PROBLEMS, EvaluationConfig(), key="e")
    firsts = [one for one in evaluation.completions if one.layer == 1]
    for one in firsts:
        text = TOKENIZER.decode(one.prompt_token_ids)
        assert not any(phrase in text for phrase in PHRASES) and "yes" not in text


def test_accuracies_ranges_and_transitions_over_all_phrases() -> None:
    summary = summary_of(rollout())
    assert summary["num_problems"] == 4
    # Turn 2: right are q0 and q1 and q2 under "Sure?", q1 under "Really?".
    assert summary["acc"] == [0.5, 0.5]
    assert summary["acc_range"] == [[0.5, 0.5], [0.25, 0.75]]
    assert summary["phrases"] == [
        {"index": 0, "acc": [0.5, 0.75]},
        {"index": 1, "acc": [0.5, 0.25]},
    ]
    [moves] = summary["transitions"]
    assert moves["counts"]["wrong_to_right"] == 1 and moves["counts"]["right_to_wrong"] == 1
    assert summary["delta"] == moves["delta"] == 0.0
    # Domain a is q0 and q2: right at turn 2 under "Sure?" only.
    assert summary["domains"]["a"]["acc"] == [0.5, 0.5]
    assert summary["domains"]["a"]["transitions"][0]["wrong_to_right"] == 0.25


def test_first_guidance_uses_one_phrase() -> None:
    summary = summary_of(rollout(), guidance="first")
    assert summary["acc"] == [0.5, 0.75]
    assert summary["transitions"][0]["counts"]["wrong_to_right"] == 1
    assert summary["acc_range"] == [[0.5, 0.5], [0.75, 0.75]]


def test_chosen_phrases_are_the_only_ones_used() -> None:
    many = [*PHRASES, "Truly?"]
    assert summary_of(rollout(phrases=many), guidance=[1])["acc"] == [0.5, 0.25]
    summary = summary_of(rollout(phrases=many), guidance=[0, 1])
    assert [phrase["index"] for phrase in summary["phrases"]] == [0, 1]
    assert summary["acc"] == [0.5, 0.5]


def test_random_guidance_is_one_seeded_draw_for_each_attempt() -> None:
    problems = [PROBLEMS[i % 4] for i in range(60)]
    drawn = phrases_drawn(rollout(seed=3), problems)
    assert len(drawn) == 60
    assert 15 <= drawn.count(0) <= 45  # a fair coin stays in there all but once in 10 000 times
    assert drawn == phrases_drawn(rollout(seed=3), problems)
    assert drawn != phrases_drawn(rollout(seed=4), problems)


def test_random_guidance_reports_no_range_over_phrases() -> None:
    summary = summary_of(rollout(), guidance="random")
    assert summary["phrases"] == []
    low, high = summary["acc_range"][1]
    assert low == high == summary["acc"][1]


def test_random_guidance_is_drawn_anew_at_every_turn() -> None:
    problems = [PROBLEMS[i % 4] for i in range(40)]
    config = EvaluationConfig(guidance="random")
    evaluation, _ = evaluate(rollout(3), problems, config, key="e")
    turns = [[c.guidance_id for c in evaluation.completions if c.layer == n] for n in (2, 3)]
    assert len(turns[0]) == len(turns[1]) == 40
    assert turns[0] != turns[1]


def test_a_chain_of_three_keeps_its_phrase_and_does_not_branch_again() -> None:
    evaluation, _ = evaluate(rollout(3), PROBLEMS, EvaluationConfig(), key="e")
    assert [sum(c.layer == n for c in evaluation.completions) for n in (1, 2, 3)] == [4, 8, 8]
    assert all(
        chain.turns[1].guidance_id == chain.turns[2].guidance_id for chain in evaluation.chains
    )


def test_sampled_evaluation_takes_several_attempts() -> None:
    config = EvaluationConfig(decoding="sampled", samples_per_problem=3)
    evaluation, _ = evaluate(rollout(), PROBLEMS, config, key="e")
    assert [sum(c.layer == n for c in evaluation.completions) for n in (1, 2)] == [12, 24]
    summary = evaluation.summary()
    # The script answers all samples of a prompt alike, so any number of tries does as well as one.
    assert summary["pass_at"] == {"1": [0.5, 0.5], "2": [0.5, 0.5]}
    assert summary["maj_at"] == {"1": [0.5, 0.5], "2": [0.5, 0.5]}


def test_a_row_names_its_settings_and_phrases() -> None:
    recipe = load_recipe("quickstart")
    config = EvaluationConfig(guidance=[1], bootstrap_resamples=0)
    evaluation, seconds = evaluate(rollout(seed=5), PROBLEMS, config, key="e")
    row = evaluation_row(evaluation, step=7, label="during", seconds=seconds, layers=recipe.layers)
    assert (row["step"], row["label"], row["decoding"]) == (7, "during", "greedy")
    assert (row["seed"], row["guidance"], row["temperature"]) == (5, [1], 0.0)
    [phrase] = row["phrases"]
    assert phrase["text"] == recipe.layers[1].guidance.phrases[1]
    assert "ci" not in row and "pass_at" not in row


def test_one_turn_has_no_gain() -> None:
    summary = summary_of(rollout(1))
    assert summary["acc"] == [0.5]
    assert summary["delta"] is None and summary["transitions"] == []
    assert summary["ci"]["delta"] is None


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_intervals_hold_the_accuracies(num_layers: int) -> None:
    summary = summary_of(rollout(num_layers))
    assert len(summary["ci"]["acc"]) == num_layers
    for accuracy, (low, high) in zip(summary["acc"], summary["ci"]["acc"], strict=True):
        assert 0.0 <= low <= accuracy <= high <= 1.0


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [({"decoding": "greedy"}, 0.0), ({"decoding": "sampled", "temperature": 0.4}, 0.4)],
)
def test_an_evaluation_samples_at_its_own_temperature(
    settings: dict[str, Any], temperature: float
) -> None:
    parts = rollout()
    summary_of(parts, **settings)
    engine = parts.engines.by_layer[1][0]
    assert {one["temperature"] for one in engine.asked} == {temperature}
    assert parts.temperature == 1.0, "training's is left alone"


class Tells:
    """Says of every wrong text that it is wrong."""

    async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
        return [
            Reward(value=float(text == "yes"), correct=text == "yes", feedback="Not so.")
            for text in texts
        ]


@pytest.mark.parametrize(("feedback", "accuracies"), [(True, [0.5, 1.0]), (False, [0.5, 0.5])])
def test_evaluation_with_and_without_feedback(feedback: bool, accuracies: list[float]) -> None:
    def script(prompt: list[int], index: int) -> str:
        text = TOKENIZER.decode(prompt)
        return "yes" if "Not so." in text or "q0" in text or "q1" in text else "no"

    examined = rollout()
    layer = {"name": "correct2", "group_size": 4, "guidance": {"from": "check", "phrases": ["Hm."]}}
    examined.layers = [examined.layers[0], CorrectLayer.model_validate(layer)]
    engine = ScriptedEngine(script, encode=TOKENIZER.encode, end_id=END)
    examined.engines = FixedEngines({1: [engine], 2: [engine]})
    examined.scorer = Tells()
    settings = EvaluationConfig(feedback=feedback, bootstrap_resamples=0)
    evaluation, seconds = evaluate(examined, PROBLEMS, settings, key="e")
    row = evaluation_row(evaluation, step=0, label="after", seconds=seconds, layers=examined.layers)
    assert (row["acc"], row["feedback"]) == (accuracies, feedback)


def verifying(prompt: list[int], index: int) -> str:
    """First attempts are right on q0 and q1. The verdict accepts q0 and q2; revisions say yes."""
    text = TOKENIZER.decode(prompt)
    if text.endswith("Again:"):
        return "yes"
    if "check this solution" in text:
        accepts = "q0" in text or "q2" in text
        return f"The answer is {'correct' if accepts else 'wrong'}"
    return "yes" if "q0" in text or "q1" in text else "no"


def test_only_what_the_policy_s_own_verdict_rejects_is_revised() -> None:
    parts = rollout(3)
    engine = ScriptedEngine(verifying, encode=TOKENIZER.encode, end_id=END)
    parts.engines = FixedEngines({number: [engine] for number in (1, 2, 3)})
    revise = {"parents": "rejected", "layout": "self_continue", "guidance": {"phrases": ["Again:"]}}
    parts.layers = [
        parts.layers[0],
        VerifyLayer(name="verify", group_size=4),
        CorrectLayer.model_validate({"name": "revise", "group_size": 4, **revise}),
    ]
    found = summary_of(parts)
    # q0 is accepted and right, q1 rejected and right, q2 accepted and wrong, q3 rejected and wrong.
    assert found["acc"] == [0.5, 0.5, 0.75]
    (moves,) = found["transitions"]
    assert (moves["layer"], moves["wrong_to_right"], moves["right_to_wrong"]) == (3, 0.25, 0.0)
    (verdicts,) = found["verdicts"]
    assert (verdicts["layer"], verdicts["accuracy"], verdicts["accepted_fraction"]) == (2, 0.5, 0.5)
    assert (verdicts["precision"], verdicts["recall"]) == (0.5, 0.5)
    assert found["delta"] == 0.25 and "whole_chain" not in found
    assert found["phrases"] == [{"index": 0, "acc": found["acc"]}]


def test_verdicts_alone_leave_the_answers_as_they_are() -> None:
    parts = rollout(2)
    engine = ScriptedEngine(verifying, encode=TOKENIZER.encode, end_id=END)
    parts.engines = FixedEngines({number: [engine] for number in (1, 2)})
    parts.layers = [parts.layers[0], VerifyLayer(name="verify", group_size=4)]
    found = summary_of(parts)
    assert found["acc"] == [0.5, 0.5] and found["transitions"] == [] and found["delta"] is None
    tables = evaluation_tables({**found, "samples_per_problem": 1}, "policy")
    assert [one.title for one in tables][1] == "Verdicts on attempts"
