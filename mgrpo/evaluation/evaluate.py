"""Held-out accuracy of every turn: Acc@t1', Acc@t2, and the transitions between them.

Sampling only; `summary` computes the numbers. Every attempt gets a correction, right or wrong,
truncated or not, so the turns are compared on the same problems. With `parents: rejected` an
attempt that the policy's own verdict accepts has none, and stands as the answer of that turn.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Sequence

from actors.layers import (
    PromptRequest,
    correction_requests,
    rejected,
    solve_request,
    stable_seed,
)
from actors.programs import run_together
from actors.rollout import Rollout
from mgrpo.config import EvaluationConfig, LayerConfig
from mgrpo.config.layers import (
    LaterLayer,
    RejectedParents,
    later_layers,
    verify_layers,
    without_feedback,
)
from mgrpo.evaluation.summary import Evaluation
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion, CompletionId, Problem

GREEDY = "greedy"
"""Marks greedy answers in ids, beside sampled ones."""


def evaluate(
    rollout: Rollout, problems: Sequence[Problem], config: EvaluationConfig, *, key: str
) -> tuple[Evaluation, float]:
    """Score problems with the engines' current weights.

    Args:
        rollout: its engines, layers and scorer are used; sampling settings come from `config`.
        problems: the held-out problems.
        config: decoding and guidance.
        key: with the rollout's seed, seeds the sampling and the draws of guidance; the same key
            repeats them.

    Returns:
        The evaluation and its duration in seconds.
    """
    began = time.monotonic()
    greedy = config.decoding == "greedy"
    layers = (
        rollout.layers if config.feedback else [without_feedback(one) for one in rollout.layers]
    )
    examiner = dataclasses.replace(
        rollout,
        layers=layers,
        temperature=0.0 if greedy else config.temperature,
        clocks={},
        plugins=(),
    )
    work = examine_all(examiner, problems, config, key)
    completions = examiner.engines.run(work, counted=False)
    anchors: list[Completion] = []
    if config.decode_select is not None and config.decode_select.anchor == "greedy":
        decisive = dataclasses.replace(examiner, temperature=0.0, clocks={})
        once = config.model_copy(update={"samples_per_problem": 1})
        work = examine_all(decisive, problems, once, key, name=GREEDY)
        anchors = examiner.engines.run(work, counted=False)
    evaluation = Evaluation(
        completions,
        len(rollout.layers),
        config,
        seed=rollout.seed,
        anchors=anchors,
        verify_layers=verify_layers(rollout.layers),
    )
    return evaluation, time.monotonic() - began


async def examine_all(
    examiner: Rollout,
    problems: Sequence[Problem],
    config: EvaluationConfig,
    key: str,
    name: str = "",
) -> list[Completion]:
    return await run_together(
        examine(examiner, problem, config, evaluation_tree(key, index, name))
        for index, problem in enumerate(problems)
    )


def evaluation_tree(key: str, index: int, name: str) -> CompletionId:
    """Of a problem; `name` distinguishes repetitions of the same problem."""
    tree = CompletionId(0, index, label=f"{key}{index}")
    return tree.apart(name) if name else tree


async def examine(
    examiner: Rollout, problem: Problem, config: EvaluationConfig, tree: CompletionId
) -> list[Completion]:
    """One problem through all turns: one correction of each attempt per guidance phrase."""
    first = solve_request(examiner.builder, examiner.layers[0], problem, tree=tree)
    request = dataclasses.replace(first, num_samples=config.samples_per_problem)
    attempts = await examiner.sample_all(1, problem, [request])
    done = list(attempts)
    for number, layer in enumerate(later_layers(examiner.layers), start=2):
        requests: list[PromptRequest] = []
        if isinstance(layer.parents, RejectedParents):
            attempts = rejected(attempts)
        for attempt in attempts:
            phrases = phrases_for(layer, attempt, config, examiner.seed)
            requests += correction_requests(examiner.builder, layer, problem, attempt, phrases)
        attempts = await examiner.sample_all(number, problem, requests)
        done += attempts
    return done


def phrases_for(
    layer: LaterLayer, attempt: Completion, config: EvaluationConfig, seed: int
) -> list[int]:
    """The guidance phrases of an attempt's corrections.

    `random` draws one for every attempt. Otherwise a first attempt gets all chosen phrases, and
    then each chain keeps its own (or the layer's last one, if it has fewer).
    """
    count = len(layer.guidance.phrases)
    if config.guidance == "random":
        return [
            random.Random(stable_seed(seed, attempt.completion_id, "guidance")).randrange(count)
        ]
    if attempt.guidance_id is not None:
        return [min(attempt.guidance_id, count - 1)]
    if config.guidance == "all":
        return list(range(count))
    return [0] if config.guidance == "first" else list(config.guidance)


def evaluation_row(
    evaluation: Evaluation,
    *,
    step: int,
    label: str,
    seconds: float,
    layers: Sequence[LayerConfig],
) -> JsonObject:
    """A line of evaluation.jsonl."""
    settings = evaluation.settings
    summary = evaluation.summary()
    for phrase in summary["phrases"]:
        phrase["text"] = later_layers(layers)[0].guidance.phrases[phrase["index"]]
    return {
        "step": step,
        "label": label,
        "decoding": settings.decoding,
        "temperature": settings.temperature if settings.decoding == "sampled" else 0.0,
        "samples_per_problem": settings.samples_per_problem,
        "guidance": settings.guidance,
        "feedback": settings.feedback and any(one.feedback for one in evaluation.completions),
        "seed": evaluation.seed,
        **summary,
        "seconds": round(seconds, 2),
    }
