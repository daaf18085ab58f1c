"""Prompts as token ids: what each layer's policy reads.

Tokens in, tokens out: an attempt is never decoded and encoded again on its way into a
correction's prompt, because that changes tokens (TRL#5224). The chat template is rendered as
text around a placeholder, the text on both sides is tokenised, and the attempt's own ids go
in between.

Three layouts (LayerConfig.layout):

    review_chat    system | user: problem | assistant: attempt + guidance | assistant: ...
    self_continue  the attempt's own prompt and ids, then the guidance: an exact extension
    user_quote     system | user: problem, attempt, guidance | assistant: ...

An attempt's trailing end-of-turn tokens are left out where it is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from mgrpo.config.layers import REVIEW_SYSTEM_PROMPT, SOLVE_SYSTEM_PROMPT, LayerConfig
from mgrpo.errors import DataError, ModelError

ATTEMPT_PLACEHOLDER = "\ue000attempt\ue001"
CUT_MARK = "\n[...]\n"
DEFAULT_QUOTE_TEMPLATE = "{problem}\n\nAn earlier attempt:\n{attempt}\n\n{guidance}"


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts are built with."""

    all_special_ids: list[int]

    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


def fill(template: str, **values: str) -> str:
    """Replace each {name} once, so that braces inside a value stay as they are."""
    pattern = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(pattern, lambda match: values[match.group()[1:-1]], template)


def solve_messages(layer: LayerConfig, question: str) -> list[dict[str, str]]:
    """The conversation that layer 1 continues."""
    system = SOLVE_SYSTEM_PROMPT if layer.system_prompt is None else layer.system_prompt
    user = fill(layer.user_template or "{problem}", problem=question)
    return [*system_turn(system), {"role": "user", "content": user}]


def review_messages(
    layer: LayerConfig, question: str, attempt: str, guidance: str
) -> list[dict[str, str]]:
    """The conversation that a correction continues (review_chat and user_quote)."""
    system = REVIEW_SYSTEM_PROMPT if layer.system_prompt is None else layer.system_prompt
    if layer.layout == "user_quote":
        template = layer.user_template or DEFAULT_QUOTE_TEMPLATE
        user = fill(template, problem=question, attempt=attempt, guidance=guidance)
        return [*system_turn(system), {"role": "user", "content": user}]
    user = fill(layer.user_template or "{problem}", problem=question)
    return [
        *system_turn(system),
        {"role": "user", "content": user},
        {"role": "assistant", "content": f"{attempt}\n{guidance}"},
    ]


def system_turn(system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


class PromptBuilder:
    """Builds every layer's prompts with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.cut_mark_ids = self.encode(CUT_MARK)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text without special tokens, as checks read it."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def end_of_turn_ids(self) -> list[int]:
        """What a completion ends with, where one has to be ended by hand."""
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    def render(self, messages: list[dict[str, str]]) -> str:
        """The chat template's text, up to where the policy takes over."""
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise what they like: Jinja errors, ValueError, ...
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(
                f"The tokenizer's chat template cannot render the turns ({roles}): {error}. "
                "Use a tokenizer with a chat template; if it refuses a system turn, set "
                'system_prompt: "" for the layer; if it refuses two assistant turns in a row, set '
                "layout: user_quote."
            ) from error
        return str(text)

    def solve_prompt(self, layer: LayerConfig, question: str) -> list[int]:
        """Token ids of a layer-1 prompt."""
        return self.encode(self.render(solve_messages(layer, question)))

    def correction_prompt(
        self,
        layer: LayerConfig,
        question: str,
        *,
        parent_prompt_ids: Sequence[int],
        parent_ids: Sequence[int],
        guidance: str,
        parent_answer: str | None = None,
    ) -> list[int]:
        """Token ids of a later layer's prompt, with the parent's ids inside.

        Args:
            layer: the layer that will answer this prompt.
            question: the problem.
            parent_prompt_ids: what the parent's policy read; used by self_continue.
            parent_ids: the parent's completion, end-of-turn tokens included.
            guidance: the phrase that opens the correction.
            parent_answer: the parent's final answer, for `quote: answer_only`.
        """
        attempt_ids = self.quoted(layer, parent_ids, parent_answer)
        if layer.layout == "self_continue":
            return [*parent_prompt_ids, *attempt_ids, *self.encode(f"\n{guidance}")]
        text = self.render(review_messages(layer, question, ATTEMPT_PLACEHOLDER, guidance))
        pieces = text.split(ATTEMPT_PLACEHOLDER)
        if len(pieces) != 2:
            raise DataError(
                f"The attempt's place occurs {len(pieces) - 1} times in a correction's prompt, "
                "expected once: the chat template drops assistant turns, or the question contains "
                f"the placeholder. Question: {question[:200]!r}"
            )
        before, after = pieces
        return [*self.encode(before), *attempt_ids, *self.encode(after)]

    def quoted(
        self, layer: LayerConfig, parent_ids: Sequence[int], parent_answer: str | None
    ) -> list[int]:
        """The ids of the attempt as the layer quotes it."""
        if layer.quote == "answer_only" and parent_answer is not None:
            return self.encode(f"\\boxed{{{parent_answer}}}")
        ids = self.without_end_of_turn(parent_ids)
        limit = layer.max_quote_tokens
        if limit is None or len(ids) <= limit:
            return ids
        head = limit // 2
        tail = limit - head
        return [*ids[:head], *self.cut_mark_ids, *ids[len(ids) - tail :]]

    def without_end_of_turn(self, ids: Sequence[int]) -> list[int]:
        """Drop the special tokens that end a completion."""
        end = len(ids)
        while end > 0 and ids[end - 1] in self.special_ids:
            end -= 1
        return list(ids[:end])
