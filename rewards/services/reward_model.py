"""The term `model`: a sequence classifier of transformers scores prompt and completion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from mgrpo.config.services import ModelTerm
from mgrpo.errors import RewardError
from mgrpo.types import Problem, Reward
from rewards.conventions import Group
from rewards.score import Outcome, as_reward, failed
from rewards.services.service import Progress, Service

SHOWN_NAMES = 4


class RewardModel(Service):
    """A loaded model. Groups are scored one after the other, each in batches.

    Raises:
        RewardError: it cannot be loaded, or not as it was saved.
    """

    def __init__(self, term: ModelTerm) -> None:
        self.term = term
        torch.set_num_threads(term.num_threads)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.model = load_classifier(term)
        self.tokenizer = load_tokenizer(term)
        self.tokenizer.padding_side = "right"  # positions as without padding
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        text_config = self.model.config.get_text_config()
        if text_config.pad_token_id is None:  # by which a decoder finds the last token
            text_config.pad_token_id = self.tokenizer.pad_token_id
        self.max_tokens: int | None = getattr(text_config, "max_position_embeddings", None)
        self.label = label_of(self.model.config, term)
        self.computing = ThreadPoolExecutor(1)

    async def score(self, group: Group, on_progress: Progress) -> list[Outcome]:
        loop = asyncio.get_running_loop()

        def progress() -> None:
            loop.call_soon_threadsafe(on_progress)

        return await loop.run_in_executor(self.computing, self.scored, group, progress)

    def scored(self, group: Group, on_progress: Callable[[], None]) -> list[Outcome]:
        rows = [self.encoded(group.problem, text) for text in group.texts]
        outcomes: list[Outcome] = [self.too_long(row) for row in rows]
        fitting = [index for index, outcome in enumerate(outcomes) if outcome is None]
        for at in range(0, len(fitting), self.term.batch_size):
            indices = fitting[at : at + self.term.batch_size]
            values = self.values([rows[index] for index in indices])
            for index, value in zip(indices, values, strict=True):
                outcomes[index] = as_reward(value, self.term.correct_at)
            on_progress()
        return outcomes

    def encoded(self, problem: Problem, text: str) -> Mapping[str, list[int]]:
        """Token ids, and what else the model reads beside them."""
        answer = (problem.prompt_opening or "") + text
        if self.term.input == "pair":
            return self.tokenizer(problem.question, answer)
        turns = [*problem.chat, {"role": "assistant", "content": answer}]
        return self.tokenizer.apply_chat_template(turns, return_dict=True)

    def too_long(self, row: Mapping[str, list[int]]) -> Reward | None:
        """The failure of a completion that does not fit the model."""
        count = len(row["input_ids"])
        if self.max_tokens is None or count <= self.max_tokens:
            return None
        return failed(
            "error",
            f"prompt and completion have {count} tokens, and {self.term.model} reads "
            f"{self.max_tokens}. Lower max_completion_tokens of the layers, or use another model",
        )

    def values(self, rows: Sequence[Mapping[str, list[int]]]) -> list[float]:
        """[len(rows)] the outputs of a batch."""
        batch = self.tokenizer.pad(rows, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self.model(**batch.to(self.model.device)).logits.float()
        chosen = logits[:, 0] if self.label is None else logits.softmax(-1)[:, self.label]
        return chosen.tolist()


def load_classifier(term: ModelTerm) -> Any:
    """The model on its device.

    Raises:
        RewardError: there is none, or weights are missing, unexpected or of another shape.
    """
    refuse_no_place(term)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            term.model,
            revision=term.revision,
            dtype=term.dtype,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, with the rest
            output_loading_info=True,
        )
    except Exception as error:  # each architecture's own code, with arbitrary settings
        raise RewardError(cannot_load(term, error)) from error
    found = {
        "missing, and would be random": report["missing_keys"],
        "of another shape, and would be random": [one[0] for one in report["mismatched_keys"]],
        "not of a classifier, and would be dropped": report["unexpected_keys"],
    }
    faults = [f"{what}: {some(sorted(names))}" for what, names in found.items() if names]
    if faults:
        raise RewardError(
            f"The weights of the reward model {term.model!r} do not fit a sequence classifier: "
            f"{'; '.join(faults)}. Use a model that was trained and saved as "
            "AutoModelForSequenceClassification, not a policy."
        )
    try:
        return model.to(term.device).eval()
    except (RuntimeError, AssertionError) as error:
        raise RewardError(cannot_load(term, error)) from error


def load_tokenizer(term: ModelTerm) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            term.model, revision=term.revision, trust_remote_code=False
        )
    except Exception as error:
        raise RewardError(cannot_load(term, error)) from error
    if term.input == "chat" and not tokenizer.chat_template:
        raise RewardError(
            f"The tokenizer of the reward model {term.model!r} has no chat template. Set "
            "`input: pair` if the model reads question and completion as two texts."
        )
    return tokenizer


def refuse_no_place(term: ModelTerm) -> None:
    place = Path(term.model).expanduser()
    if place.is_dir() and term.revision is not None:
        raise RewardError(f"revision has no effect on the folder {term.model!r}; remove it.")
    looks_local = term.model.startswith((".", "/", "~")) or term.model.count("/") > 1
    if looks_local and not place.is_dir():
        raise RewardError(f"There is no folder {term.model} with a reward model.")


def label_of(config: Any, term: ModelTerm) -> int | None:
    """The output that is the value; None: the only one.

    Raises:
        RewardError: the label is needed, or there is none of that name.
    """
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    if term.label is None and len(labels) == 1:
        return None
    if term.label in labels and len(labels) > 1:
        return labels.index(term.label)
    reason = (
        "has one output, which is the value: remove `label`"
        if len(labels) == 1
        else f"has the labels {some(labels)}: set `label` to the one whose probability is the value"
    )
    raise RewardError(f"The reward model {term.model!r} {reason}.")


def cannot_load(term: ModelTerm, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    return (
        f"The reward model {term.model!r} cannot be loaded on {term.device}: "
        f"{type(error).__name__}: {reason}"
    )


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
