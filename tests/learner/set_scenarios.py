"""Scenarios of `rank_worker` whose losses are of sets of rows, or of rows beside the step's own."""

from __future__ import annotations

import dataclasses
from typing import Any

from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.methods.veripo.preference_cycle import pair_rows
from mgrpo.methods.veripo.preference_pairs import PreferencePair
from mgrpo.types import Completion, CompletionId
from tests.learner.builders import layer, random_completions, solve_layer

BETA, KAPPA = 0.5, 0.3
OFFSETS = (2.0, -1.0, 0.5, 0.25, -3.0, 1.0)
"""How far the reference's log-probabilities of both sides of three pairs are from the policy's."""
PLAIN = {"importance": "none"}


def sides_of_pairs(logprobs: Any = None) -> list[Completion]:
    """Two attempts at each of three problems, as a step on pairs gets them."""
    by_id = {one.completion_id: one for one in random_completions()}
    known = iter(logprobs or [0.0] * 6)
    rows = []
    for number in range(3):
        pair = PreferencePair(
            kind="penalty", chosen=by_id[f"p{number}/1"], rejected=by_id[f"p{number}/2"]
        )
        rows += pair_rows(pair, CompletionId(0, number), [next(known), next(known)])
    return rows


def pairs(ranks: Any, make: Any, zero_stage: int, **settings: Any) -> Any:
    """The reference's log-probabilities, and the gradient of one step on pairs."""
    learner = ranks.learner(
        make,
        learner={"zero_stage": zero_stage, **settings},
        plugins=[{"use": "dpo", "settings": {"beta": BETA}}],
        source="preferences",
    )
    measured = learner.sequence_logprobs(sides_of_pairs(), step=0)
    known = [value + offset for value, offset in zip(measured, OFFSETS, strict=True)]
    before = dict(learner_weights(learner))
    result = learner.update(sides_of_pairs(known))
    after = dict(learner_weights(learner))
    learner.close()
    rate = settings["learning_rate"]
    return {
        "measured": measured,
        "known": known,
        "gradient": {name: (before[name] - after[name]) / rate for name in before},
        "metrics": None if result is None else result.metrics,
    }


def attempts_in_context() -> list[Completion]:
    """Four attempts at each of three problems, with what shows them to each other."""
    attempts = [one for one in random_completions() if one.layer == 1]
    made = []
    for number in range(3):
        group = [one for one in attempts if one.problem_id == f"p{number}"]
        contexts = AnswerContexts(
            opening=[60, 61],
            separator=[62],
            bridge=[59],
            closing=[58],
            max_answer_tokens=5,
            answers={one.completion_id: one.token_ids.tolist() for one in group},
            integrated=[[7, 8, 9], [10, 11]],
        )
        metadata = {"answer_contexts": dataclasses.asdict(contexts), "context_samples": []}
        made += [dataclasses.replace(one, metadata=metadata) for one in group]
    return made


def in_contexts(ranks: Any, make: Any, zero_stage: int, **settings: Any) -> Any:
    """The gradient of one step of GCPO."""
    learner = ranks.learner(
        make,
        learner={"zero_stage": zero_stage, **settings},
        layers=[solve_layer()],
        plugins=[
            {"use": "integrated_answers"},
            {"use": "gcpo", "settings": {"kappa": KAPPA}},
        ],
        objective=PLAIN,
    )
    before = dict(learner_weights(learner))
    result = learner.update(attempts_in_context())
    after = dict(learner_weights(learner))
    learner.close()
    rate = settings["learning_rate"]
    return {
        "gradient": {name: (before[name] - after[name]) / rate for name in before},
        "metrics": None if result is None else result.metrics,
    }


DISTILLED = 0.7
"""Weight of corrections as answers to the problem alone."""


def distilled(ranks: Any, make: Any, zero_stage: int, **settings: Any) -> Any:
    """The gradient of one step with corrections as answers to the problem alone: of the whole step,
    and of its trees one by one."""
    found = {}
    for name in ("whole", "streamed"):
        learner = ranks.learner(
            make,
            learner={"zero_stage": zero_stage, **settings},
            layers=[solve_layer(), layer(select="none")],
            plugins=[{"use": "self_distillation", "settings": {"weight": DISTILLED}}],
            objective=PLAIN,
        )
        before = dict(learner_weights(learner))
        completions = random_completions()
        if name == "whole":
            learner.update(completions)
        else:
            learner.begin_update()
            for number in range(3):
                learner.add_trees([one for one in completions if one.problem_id == f"p{number}"])
            learner.finish_update()
        after = dict(learner_weights(learner))
        learner.close()
        rate = settings["learning_rate"]
        found[name] = {key: (before[key] - after[key]) / rate for key in before}
    return found


def learner_weights(learner: Any) -> Any:
    return [(name, tensor.clone()) for name, tensor in learner.iter_weights()]
