"""Checks that problems are readable, sufficient and disjoint from the held-out ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from actors.templates import PromptBuilder
from mgrpo.config import DataConfig, DataSource, LayerConfig, MixtureSource
from mgrpo.data.problems import (
    LoadedData,
    drop_long_prompts,
    enforce_max_dropped,
    load_problems,
    source_name,
)
from mgrpo.data.store import JoinedProblems
from mgrpo.errors import DataError
from mgrpo.findings import CheckLine, counted
from mgrpo.types import Problem

MAX_SHARED_FRACTION = (
    0.01  # of the held-out questions; above this, held-out accuracy is not meaningful
)
SAMPLE_CHARACTERS = 100
MAX_FITTING_PROMPTS = 4000  # a second of tokenising; the run measures all


def source_lines(
    name: str, source: DataSource, max_dropped_fraction: float
) -> tuple[list[CheckLine], LoadedData]:
    """The content of a source, with its first problem.

    Raises:
        DataError: it has no usable problem, or too few.
    """
    data = load_problems(source)
    enforce_max_dropped(data, max_dropped_fraction, source)
    first = data.problems[0]
    question = " ".join(first.question.split())
    if len(question) > SAMPLE_CHARACTERS:
        question = question[: SAMPLE_CHARACTERS - 3] + "..."
    answer = repr(first.answer[:SAMPLE_CHARACTERS]) if first.answer else "no answer"
    detail = (
        f"{counted(len(data.problems), 'problem')} from {source_name(source)}; "
        f"the first: {question!r} -> {answer}"
    )
    if first.earlier_turns:
        roles = ", ".join(turn["role"] for turn in first.earlier_turns)
        detail += f"; turns before it: {roles}"
    lines = [CheckLine("ok", name, detail)]
    if data.num_dropped:
        lines.append(CheckLine("warn", name, f"left out: {data.describe_dropped()}"))
    return lines, data


def problems_in(loaded: Mapping[str, LoadedData]) -> Sequence[Problem]:
    return JoinedProblems(*(data.problems for data in loaded.values()))


def fit_lines(
    config: DataConfig, layer: LayerConfig, builder: PromptBuilder, loaded: dict[str, LoadedData]
) -> list[CheckLine]:
    """Remove problems without a valid prompt from `loaded`, as the run will, and report them."""
    lines: list[CheckLine] = []
    sources = {"data.train": config.train, "data.heldout": config.heldout}
    for name, data in list(loaded.items()):
        kept = drop_long_prompts(
            data,
            builder,
            layer,
            config.max_prompt_tokens,
            max_fitting=MAX_FITTING_PROMPTS,
        )
        newly = LoadedData(num_dropped=kept.num_dropped - data.num_dropped, examples=kept.examples)
        if newly.num_dropped:
            lines.append(CheckLine("warn", name, f"left out: {newly.describe_dropped()}"))
        loaded[name] = kept
        source = sources[name]
        assert source is not None, name
        try:
            enforce_max_dropped(kept, config.max_dropped_fraction, source)
        except DataError as error:
            lines.append(CheckLine("fail", name, str(error)))
    return lines


def size_lines(
    num_steps: int, prompts_per_step: int, loaded: Mapping[str, LoadedData]
) -> list[CheckLine]:
    """The problems of a step must differ: two groups of one problem have the same key."""
    train = loaded.get("data.train")
    if train is None or not train.problems:
        return []  # its own line says why
    if prompts_per_step <= len(train.problems):
        epochs = num_steps * prompts_per_step / len(train.problems)
        return [
            CheckLine(
                "ok",
                "steps",
                f"{num_steps:,} x {prompts_per_step} prompts: {epochs:.2g} epochs",
            )
        ]
    return [
        CheckLine(
            "fail",
            "steps",
            f"prompts_per_step is {prompts_per_step} and data.train has only "
            f"{counted(len(train.problems), 'problem')}. Nearest valid value: "
            f"{len(train.problems)}.",
        )
    ]


def share_lines(
    config: DataConfig, num_steps: int, prompts_per_step: int, loaded: Mapping[str, LoadedData]
) -> list[CheckLine]:
    """How often a run goes through each of several sources, and whether a step repeats problems."""
    source, data = config.train, loaded.get("data.train")
    if data is None or not isinstance(source, MixtureSource) or source.weights is None:
        return []
    counts = Counter(problem.source for problem in data.problems)
    lines, parts = [], []
    for name, weight in source.weights.items():
        share = weight / sum(source.weights.values())
        most = math.ceil(share * prompts_per_step)
        if most > counts[name]:
            detail = f"{name} has only {counted(counts[name], 'problem')}, and a step draws {most}"
            lines.append(CheckLine("fail", "sources", f"{detail} of it. Lower its weight."))
            continue
        epochs = share * num_steps * prompts_per_step / counts[name]
        parts.append(f"{name} {share:.0%}: {epochs:.2g} epochs")
    return [*lines, CheckLine("ok", "sources", ", ".join(parts))] if parts else lines


def disjoint_lines(loaded: Mapping[str, LoadedData]) -> list[CheckLine]:
    """Held-out questions that are also in the training data."""
    train, heldout = loaded.get("data.train"), loaded.get("data.heldout")
    if train is None or heldout is None:
        return []
    asked = {words(problem) for problem in heldout.problems}
    trained = {text for problem in train.problems if (text := words(problem)) in asked}
    shared = [problem for problem in heldout.problems if words(problem) in trained]
    if not shared:
        return [CheckLine("ok", "held-out", "no question is also in data.train")]
    fraction = len(shared) / len(heldout.problems)
    return [
        CheckLine(
            "fail" if fraction > MAX_SHARED_FRACTION else "warn",
            "held-out",
            f"{len(shared)} of {counted(len(heldout.problems), 'question')} are also in data.train "
            f"({shared[0].problem_id}: {' '.join(shared[0].question.split())[:60]!r}). Remove them "
            "from data.train; with reasoning_gym name the held-out source in "
            "data.train.exclude_questions_of.",
        )
    ]


def words(problem: Problem) -> str:
    """The question without differences in spacing."""
    return " ".join(problem.question.split())
