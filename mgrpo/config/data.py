"""Sources of problems: where rows come from (`path`) and how their columns are read (`format`).

train: {path: sums.jsonl}                              # columns question and answer
train: {format: verl, path: "data/train-*.parquet"}    # another system's columns
train: {format: trl, path: trl-lib/DeepMath-103K}      # of the Hugging Face hub
train: [{path: sums.jsonl, weight: 3}, {path: words.csv, weight: 1}]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig, refuse
from mgrpo.config.sources import Sampler, Shuffle
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject

Format = Literal["rows", "trl", "verl", "openrlhf", "messages", "gpqa", "livecodebench"]

COLUMNS: Mapping[Format, Mapping[str, Any]] = MappingProxyType(
    {
        "rows": {},
        # TRL 1.16, "Dataset formats and types": prompt-only, standard or conversational. Its
        # reward functions get all other columns; its examples call the answer's by these names.
        "trl": {
            "question_field": "prompt",
            "answer_field": ["answer", "ground_truth", "solution"],
            "metadata_fields": "all",
        },
        # verl 0.9, "Prepare Data for Post-Training".
        "verl": {
            "question_field": "prompt",
            "answer_field": "reward_model.ground_truth",
            "domain_field": "data_source",
            "metadata_fields": "all",
        },
        # OpenRLHF 0.6, openrlhf/datasets/prompts_dataset.py, with --input_key input and
        # --label_key label.
        "openrlhf": {
            "question_field": "input",
            "answer_field": "label",
            "domain_field": "datasource",
            "metadata_fields": "all",
        },
        # Chats as OpenAI's fine-tuning and TRL's SFT have them.
        "messages": {
            "question_field": "messages",
            "answer_field": "answer",
            "metadata_fields": "all",
        },
        # Idavidrein/gpqa (arXiv 2311.12022), with the options in an order of their own per row.
        "gpqa": {"domain_field": "High-level domain"},
        # livecodebench/code_generation_lite (arXiv 2403.07974), releases 1 to 6.
        "livecodebench": {
            "needs_answer": False,
            "domain_field": "difficulty",
            "metadata_fields": ["tests"],
            "max_metadata_kib": 2**20,
        },
    }
)
"""What the keys of a source's columns are by default, by its format."""


WantedValues = Annotated[
    list[str | int | float | bool],
    BeforeValidator(lambda given: given if isinstance(given, list) else [given]),
    Field(min_length=1),
]


class SourceBase(StrictConfig):
    """Keys of every source."""

    name: str | None = Field(default=None, pattern=r"^[^#/\s][^#/]*$")
    """What the source is called among several. Its rows are of the domain of this name, unless
    `domain_field` gives another."""
    weight: PositiveFloat | None = None
    """Share of the draws, relative to the other sources of a list. Null for all of them: each
    problem has the same chance."""


class RowsSource(SourceBase):
    """Rows with named columns, of which one holds the question and one the answer.

    A column inside another is named with dots: reward_model.ground_truth. A question may be a
    chat (a list of turns with role and content) whose last turn is the user's: earlier turns (a
    system turn, worked examples) stand before the question in the prompts of every layer.
    """

    source: Literal["rows"] = "rows"
    format: Format = "rows"
    """The columns' defaults. rows: question and answer. trl, verl, openrlhf: those systems'.
    messages: the column messages, a chat that ends with the reference answer as an assistant's
    turn, unless there is a column answer. These four keep all columns in the problem's metadata.
    gpqa: a question with four options, whose answer is a letter. livecodebench: a programming task
    with its tests, for `code_answer`."""
    path: str
    """A file (JSON Lines, a JSON list, CSV, Parquet or Arrow; the text forms also compressed by
    gzip, bzip2 or xz), a folder of such files, a pattern ("data/*.parquet", "data/**/*.jsonl"), a
    data set saved by `datasets.save_to_disk`, or a name of the Hugging Face hub ("openai/gsm8k").
    Relative paths start at the current folder."""
    subset: str | None = None
    """Configuration name of a data set of the hub that has several."""
    split: str | None = None
    """Split of a data set of the hub or saved on disk; null: train. A folder of files is read as a
    whole without it, and with it as the `datasets` library divides it by names."""
    question_field: str = "question"
    """Column of the question; its default depends on the format."""
    answer_field: str | list[str] = Field(default="answer", min_length=1)
    """Column of the reference answer, or several: the first of them that a row has. Its default
    depends on the format."""
    needs_answer: bool = True
    """False keeps rows without an answer, or with one that is not text (a list of tests), for
    checks that need none; theirs is then empty, and checks that compare with it (math_answer) are
    refused. Otherwise such rows are left out."""
    domain_field: str | None = None
    """Column that names each row's domain; metrics are then kept per domain too."""
    solution_field: str | None = None
    """Column with a worked solution. Null: what stands before the "####" of the answer, if any."""
    metadata_fields: list[str] | Literal["all"] = Field(default_factory=list)
    """Further columns for checks and plug-ins, e.g. annotated entities; all: every column but the
    question's."""
    max_metadata_kib: PositiveInt = 64
    """Rows with more metadata are left out and counted, in KiB of JSON."""
    ignore_earlier_turns: bool = False
    """Of a chat take the last turn alone, without the system turn and the examples before it."""
    system_prompt: str | None = None
    """The system turn of rows that have none of their own."""
    user_template: str | None = Field(default=None, pattern=r"\{problem\}")
    """Makes the question of a row's: {problem} stands for it. (OpenRLHF's input_template, with
    {problem} in the place of {}.)"""
    on_disk: bool = False
    """Keep the problems in a file, from which each is read when it is drawn: for data larger than
    memory. Files of this machine are read once, and the problems kept in $MGRPO_CACHE/data, or
    ~/.cache/mgrpo/data; those of the hub are in a temporary file (TMPDIR, or /tmp)."""
    where: dict[str, WantedValues] = Field(default_factory=dict)
    """Columns and the values of the rows to take, one or a list: {level: [2, 3, 4]}. A row has to
    fit all of them; others are not counted as unusable. Numbers and text are compared as they are
    written: 2 fits "2"."""
    max_rows: PositiveInt | None = None
    """Read the first rows only, of those that `where` takes; null: all."""

    @model_validator(mode="before")
    @classmethod
    def fill_columns(cls, value: object) -> Any:
        """The keys that the format gives and the recipe does not."""
        if not isinstance(value, dict):
            return value
        given = value.get("format", "rows")
        known: Mapping[Any, Mapping[str, Any]] = COLUMNS
        columns = known.get(given, {}) if isinstance(given, str) else {}
        return {**columns, **value}

    @property
    def answer_fields(self) -> list[str]:
        found = self.answer_field
        return [found] if isinstance(found, str) else found

    @property
    def label(self) -> str:
        """From the path, without suffixes and wildcards: train of data/train-*.parquet."""
        parts = [part.partition(".")[0] for part in reversed(PurePath(self.path).parts)]
        words = [re.sub(r"[^\w-]+", "_", part).strip("_-") for part in parts]
        return next(filter(None, words), "rows")


class ReasoningGymTask(StrictConfig):
    """One generator of reasoning-gym with its own settings."""

    name: str
    """reasoning-gym's name of the data set, e.g. "chain_sum"."""
    weight: PositiveFloat = 1.0
    """Share in the mix, relative to the other tasks."""
    settings: JsonObject = Field(default_factory=dict)
    """Passed to the generator, e.g. {max_terms: 3}."""


class ReasoningGymSource(SourceBase):
    """Problems generated by reasoning-gym: the same seed gives the same problems. Each task is a
    domain."""

    source: Literal["reasoning_gym"] = "reasoning_gym"
    tasks: list[ReasoningGymTask] = Field(min_length=1)
    size: PositiveInt
    """Total number of problems, divided by weight."""
    seed: int = 0
    exclude_questions_of: list[ReasoningGymSource] = Field(default_factory=list)
    """Questions of these other draws are left out, to keep train and held-out disjoint."""

    @property
    def label(self) -> str:
        return self.source


def read_kind(value: object) -> object:
    """A source without its kind is rows; the kinds of before, jsonl and huggingface, too."""
    if not isinstance(value, dict):
        return value
    if value.get("source") == "huggingface":
        return {"split": "train", **value, "source": "rows"}
    return {**value, "source": "rows"} if value.get("source", "jsonl") == "jsonl" else value


OneSource = Annotated[
    RowsSource | ReasoningGymSource, Field(discriminator="source"), BeforeValidator(read_kind)
]


class MixtureSource(StrictConfig):
    """Several sources as one, written as their list."""

    source: Literal["mixture"] = "mixture"
    sources: list[OneSource] = Field(min_length=1)
    """Their names differ: `name`, or else the file's without suffixes."""

    @model_validator(mode="after")
    def check_sources(self) -> MixtureSource:
        names = [name_of(one) for one in self.sources]
        faults = [
            ConfigFault(f"sources.{place}.name", name, "another source has this name.")
            for place, name in enumerate(names)
            if name in names[:place]
        ]
        has_weight = [one.weight is not None for one in self.sources]
        if any(has_weight) and not all(has_weight):
            place = has_weight.index(False)
            why = "other sources of the list have a weight, this one has none."
            faults.append(ConfigFault(f"sources.{place}.weight", "null", why))
        if faults:
            raise RelationError(faults)
        return self

    @property
    def weights(self) -> dict[str, float] | None:
        """Of each source, by name; None: they have none."""
        given = {name_of(one): one.weight for one in self.sources}
        return {name: weight for name, weight in given.items() if weight is not None} or None


def read_list(value: object) -> object:
    """A list of sources is their mixture."""
    return {"source": "mixture", "sources": value} if isinstance(value, list) else read_kind(value)


DataSource = Annotated[
    RowsSource | ReasoningGymSource | MixtureSource,
    Field(discriminator="source"),
    BeforeValidator(read_list),
]


def name_of(source: RowsSource | ReasoningGymSource) -> str:
    """The name of a source among several."""
    return source.name or source.label


def sources_in(source: DataSource) -> list[RowsSource | ReasoningGymSource]:
    """The sources that problems come from."""
    return source.sources if isinstance(source, MixtureSource) else [source]


def has_one_domain(source: DataSource) -> bool:
    """Whether all problems are of one domain."""
    if isinstance(source, MixtureSource):
        return len(source.sources) == 1 and has_one_domain(source.sources[0])
    if isinstance(source, ReasoningGymSource):
        return len({task.name for task in source.tasks}) == 1
    return source.domain_field is None


class DataConfig(StrictConfig):
    """The training problems and the held-out problems."""

    train: DataSource
    """One source, or a list of several."""
    heldout: DataSource | None = None
    """Never trained on; `mgrpo eval` and the before/after table use it."""
    max_prompt_tokens: PositiveInt = 512
    """Longest layer-1 prompt, in tokens. Longer rows are left out and counted."""
    max_dropped_fraction: float = Field(default=0.05, ge=0, le=1)
    """The run does not start if more than this share of the rows is unusable."""
    sampler: Sampler = Shuffle()
    """Which problems come next: shuffle, all in random order; curriculum, easy ones first; or a
    method's own."""

    @model_validator(mode="after")
    def check_weights(self) -> DataConfig:
        """Weights need several sources to draw from, and the sampler that draws by them."""
        alone = not isinstance(self.train, MixtureSource)
        for one in sources_in(self.train):
            if one.weight is not None and (alone or not isinstance(self.sampler, Shuffle)):
                why = "has no effect" + (
                    " on a single source." if alone else f" with sampler: {self.sampler.type}."
                )
                refuse("train.weight" if alone else "train.sources", one.weight, why)
        for one in sources_in(self.heldout) if self.heldout is not None else ():
            if one.weight is not None:
                refuse("heldout", one.weight, "a weight has no effect: all problems are evaluated.")
        return self
