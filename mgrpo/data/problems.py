"""Problems to train on and to evaluate on: loaded, measured, and sampled in order.

Unusable rows are counted by reason and never silently dropped: the run does not start if they
exceed `data.max_dropped_fraction` of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from actors.templates import PromptBuilder, system_of
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
from mgrpo.data.kept import KeptData, key_of
from mgrpo.data.lengths import LongestPrompts, characters_of
from mgrpo.data.progress import Note, noting, silent
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.data.store import StoredProblems, selected
from mgrpo.errors import DataError, ModelError
from mgrpo.storage.checkpoints import fingerprint
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


def load_problems(source: DataSource, note: Note = silent) -> LoadedData:
    """Read or generate a source's problems. The same source gives the same problems.

    An answer with "####" in it, as GSM8K has, is the text after the last one. Problems of a mixture
    name their source, also in their ids. Those of a source on disk are read once (`kept.py`).

    Args:
        note: gets the progress, from time to time.

    Raises:
        DataError: a source has no usable problem; the message has advice.
    """
    kept = KeptData.of(source)
    if kept is None:
        return read_problems(source, [], note)
    return kept.read_or(lambda into: read_problems(source, into, note), note)


def read_problems(
    source: DataSource, into: list[Problem] | StoredProblems, note: Note
) -> LoadedData:
    """Like `load_problems`, into a list or a file."""
    match source:
        case RowsSource():
            is_whole = isinstance(into, StoredProblems) or not source.on_disk
            return load_rows(source, into if is_whole else StoredProblems(), note)
        case ReasoningGymSource():
            return load_generated(source)
        case MixtureSource():
            parts = {name_of(one): read_problems(one, [], note) for one in source.sources}
            return joined(parts, into)


def joined(parts: Mapping[str, LoadedData], into: list[Problem] | StoredProblems) -> LoadedData:
    """The data of several sources, by their names, one after the other.

    Args:
        into: what they are put into; if one of them is in a file, a file.
    """
    is_stored = any(isinstance(data.problems, StoredProblems) for data in parts.values())
    is_whole = isinstance(into, StoredProblems) or not is_stored
    whole = LoadedData(problems=into if is_whole else StoredProblems())
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
    source: DataSource,
    config: DataConfig,
    builder: PromptBuilder,
    layer: LayerConfig,
    note: Note = silent,
) -> LoadedData:
    """A source's problems whose layer-1 prompts fit, or DataError if too many do not."""
    data = fitting_data(source, config.max_prompt_tokens, builder, layer, note)
    enforce_max_dropped(data, config.max_dropped_fraction, source)
    return data


def fitting_data(
    source: DataSource,
    max_prompt_tokens: int,
    builder: PromptBuilder,
    layer: LayerConfig,
    note: Note,
) -> LoadedData:
    """A source's problems whose layer-1 prompts fit; those on disk are measured once for a
    tokenizer and a prompt."""
    kept = KeptData.of(source)
    prompts = "" if kept is None else prompts_key(builder, layer, max_prompt_tokens)
    if kept is not None and prompts and (found := kept.load(prompts)):
        note(f"{len(found.problems):,} problems as they were measured before ({kept.folder})")
        return found
    loaded = load_problems(source, note)
    data = drop_long_prompts(loaded, builder, layer, max_prompt_tokens, note=note)
    if kept is not None and prompts:
        kept.save(prompts, data, fingerprint(data.problems))
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
    note: Note = silent,
) -> LoadedData:
    """The data without problems with too long layer-1 prompts, which are counted.

    Args:
        max_fitting: measure from the longest text down, and stop after that many consecutive
        fitting prompts; None measures all, and says which are the longest.
        note: gets the progress, from time to time.
    """
    kept = LoadedData(
        num_dropped=Counter(data.num_dropped),
        examples={reason: list(where) for reason, where in data.examples.items()},
    )
    problems = data.problems
    max_characters = characters_of(builder.tokenizer, max_prompt_tokens)
    order = range(len(problems)) if max_fitting is None else longest_first(problems)
    longest = LongestPrompts()
    faults: dict[int, tuple[str, str]] = {}
    num_fitting = 0
    for index in noting(order, note, f"{{}} of {len(problems):,} prompts measured"):
        problem = problems[index]
        tokens = prompt_tokens(problem, builder, layer, max_prompt_tokens, max_characters)
        if not isinstance(tokens, int):
            faults[index] = tokens
            num_fitting = 0
            continue
        longest.add(tokens, problem)
        num_fitting += 1
        if num_fitting == max_fitting:
            break
    for index in sorted(faults):
        reason, measured = faults[index]
        kept.drop(reason, f"{problems[index].problem_id}: {measured}")
    kept.problems = selected(problems, (n for n in range(len(problems)) if n not in faults))
    if max_fitting is None:
        kept.longest = longest.found()
    return kept


def longest_first(problems: Sequence[Problem]) -> Iterator[int]:
    """The places of problems, those with the longest texts first."""
    sizes = np.fromiter((one.num_characters for one in problems), np.int32, len(problems))
    return map(int, np.argsort(-sizes, kind="stable"))


def prompt_tokens(
    problem: Problem,
    builder: PromptBuilder,
    layer: LayerConfig,
    max_tokens: int,
    max_characters: float,
) -> int | tuple[str, str]:
    """Tokens of a problem's layer-1 prompt, or (reason, measurement) if it has no valid one."""
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
    return (TOO_LONG, f"{tokens} tokens") if tokens > max_tokens else tokens


def prompts_key(builder: PromptBuilder, layer: LayerConfig, max_tokens: int) -> str:
    """Changes with the tokenizer and with what stands around a question; "" if the tokenizer does
    not say what it is."""
    backend = getattr(builder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ""
    template = [getattr(builder.tokenizer, "chat_template", None), builder.template_kwargs]
    around = [system_of(layer), layer.user_template]
    return key_of([backend.to_str(), template, around, max_tokens])


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
