"""Problems to train on and to evaluate on: loaded, measured, and sampled in order.

Unusable rows are counted by reason and never silently dropped: the run does not start if they
exceed `data.max_dropped_fraction` of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from actors.templates import PromptBuilder
from mgrpo.config import RewardsConfig
from mgrpo.config.data import (
    DataConfig,
    DataSource,
    MixtureSource,
    ReasoningGymSource,
    RowsSource,
    name_of,
)
from mgrpo.config.layers import LayerConfig
from mgrpo.data.formats.generated import load_generated
from mgrpo.data.formats.rows import LoadedData, load_rows
from mgrpo.data.lengths import characters_of
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.data.store import StoredProblems, selected
from mgrpo.errors import DataError, ModelError
from mgrpo.types import Problem
from rewards.task_answer import VERIFYING

__all__ = [
    "LoadedData",
    "ShufflingSampler",
    "drop_long_prompts",
    "enforce_max_dropped",
    "load_problems",
    "refuse_missing_answers",
    "source_name",
    "usable_data",
]

TOO_LONG = "longer than data.max_prompt_tokens"


def load_problems(source: DataSource) -> LoadedData:
    """Read or generate a source's problems. The same source gives the same problems.

    An answer with "####" in it, as GSM8K has, is the text after the last one. Problems of a mixture
    name their source, also in their ids.

    Raises:
        DataError: a source has no usable problem; the message has advice.
    """
    match source:
        case RowsSource():
            return load_rows(source)
        case ReasoningGymSource():
            return load_generated(source)
        case MixtureSource():
            return joined({name_of(one): load_problems(one) for one in source.sources})


def joined(parts: Mapping[str, LoadedData]) -> LoadedData:
    """The data of several sources, by their names, one after the other."""
    is_stored = any(isinstance(data.problems, StoredProblems) for data in parts.values())
    whole = LoadedData(problems=StoredProblems() if is_stored else [])
    for name, data in parts.items():
        for one in data.problems:
            problem_id = f"{name}/{one.problem_id}"
            domain = name if one.domain == "default" else one.domain
            whole.problems.append(replace(one, problem_id=problem_id, source=name, domain=domain))
        whole.num_dropped += data.num_dropped
        for reason, places in data.examples.items():
            examples = whole.examples.setdefault(reason, [])
            examples += [f"{name}: {place}" for place in places]
    return whole


def usable_data(
    source: DataSource, config: DataConfig, builder: PromptBuilder, layer: LayerConfig
) -> LoadedData:
    """A source's problems whose layer-1 prompts fit, or DataError if too many do not."""
    data = drop_long_prompts(load_problems(source), builder, layer, config.max_prompt_tokens)
    enforce_max_dropped(data, config.max_dropped_fraction, source)
    return data


def refuse_missing_answers(problems: Sequence[Problem], rewards: RewardsConfig) -> None:
    """Raise DataError if a check compares with answers that the data does not have."""
    comparing = [term for term in rewards.terms if term.function in VERIFYING]
    without = [
        one.problem_id
        for one in (problems if comparing else ())
        if not one.answer and any(term.scores(one.source) for term in comparing)
    ]
    if without:
        raise DataError(
            f"{comparing[0].function} compares with the reference answer, and {len(without)} of "
            f"{len(problems)} problems have none ({without[0]}). Use a check that needs none, or "
            "leave these rows out by needs_answer: true."
        )


def drop_long_prompts(
    data: LoadedData,
    builder: PromptBuilder,
    layer: LayerConfig,
    max_prompt_tokens: int,
    *,
    max_fitting: int | None = None,
) -> LoadedData:
    """The data without problems with too long layer-1 prompts, which are counted.

    Args:
        max_fitting: measure from the longest text down, and stop after that many consecutive
        fitting prompts; None measures all.
    """
    kept = LoadedData(
        num_dropped=Counter(data.num_dropped),
        examples={reason: list(where) for reason, where in data.examples.items()},
    )
    max_characters = characters_of(builder.tokenizer, max_prompt_tokens)
    sizes = [problem.num_characters for problem in data.problems]
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    faults: dict[int, tuple[str, str]] = {}
    num_fitting = 0
    for index in order:
        problem = data.problems[index]
        if fault := prompt_fault(problem, builder, layer, max_prompt_tokens, max_characters):
            faults[index] = fault
            num_fitting = 0
            continue
        num_fitting += 1
        if num_fitting == max_fitting:
            break
    for index in sorted(faults):
        reason, measured = faults[index]
        kept.drop(reason, f"{data.problems[index].problem_id}: {measured}")
    fitting = (index for index in range(len(data.problems)) if index not in faults)
    kept.problems = selected(data.problems, fitting)
    return kept


def prompt_fault(
    problem: Problem,
    builder: PromptBuilder,
    layer: LayerConfig,
    max_tokens: int,
    max_characters: float,
) -> tuple[str, str] | None:
    """(reason, measurement) if a problem has no valid layer-1 prompt; else None."""
    if problem.num_characters > max_characters:  # tokenising millions of them takes a minute
        return TOO_LONG, f"{problem.num_characters:,} characters"
    try:
        tokens = len(builder.solve_prompt(layer, problem))
    except ModelError as error:
        if not problem.earlier_turns:  # then it is the template's fault, not the row's
            raise
        return "with turns that the chat template cannot render", str(error)[:200]
    except (TypeError, ValueError, OverflowError) as error:
        return "refused by the tokenizer", f"{type(error).__name__}: {error}"[:100]
    return (TOO_LONG, f"{tokens} tokens") if tokens > max_tokens else None


def enforce_max_dropped(data: LoadedData, max_fraction: float, source: DataSource) -> None:
    """Raise DataError if more than `max_fraction` of the rows, or all, are unusable."""
    if data.problems and data.dropped_fraction <= max_fraction:
        return
    raise DataError(
        f"{source_name(source)}: {data.num_dropped.total()} of {data.num_rows} rows cannot be "
        f"used, and data.max_dropped_fraction allows a share of {max_fraction:g}: "
        f"{data.describe_dropped()}. Fix the data, or raise data.max_prompt_tokens or "
        "data.max_dropped_fraction."
    )


def source_name(source: DataSource) -> str:
    """The name of a source in messages."""
    if isinstance(source, ReasoningGymSource):
        return f"reasoning-gym ({', '.join(task.name for task in source.tasks)})"
    if isinstance(source, MixtureSource):
        return " + ".join(map(source_name, source.sources))
    return source.path
