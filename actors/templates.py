"""Builds each layer's prompts as token ids.

Tokens in, tokens out: an attempt is never decoded and encoded again on its way into a
correction's prompt, because that changes tokens (TRL#5224). The chat template is rendered as
text around a placeholder, the text on both sides is tokenised, and the attempt's own ids go
in between.

Three layouts (LaterLayer.layout):

    review_chat    system | user: problem | assistant: attempt + guidance | assistant: ...
    self_continue  the attempt's own prompt and ids, then the guidance: an exact extension
    user_quote     system | user: problem, attempt, guidance | assistant: ...

The guidance is a phrase, or has a check's feedback, whose ids are put in like the attempt's: their
number is bounded, and no text of a check can end a turn.

A problem's earlier turns (a system turn, worked examples) stand before its question in all of them,
and its system turn takes the place of the layer's. An attempt's trailing end-of-turn tokens are
left out where it is quoted. It begins as its policy began it: behind what the generation prompt had
already written of the answer ("<think>\\n").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from actors.chat_format import (
    ChatFormat,
    Messages,
    Tokenizer,
    known_ids,
    read_chat_format,
    render,
    without_last,
)
from mgrpo.config.guidance import CheckGuidance
from mgrpo.config.layers import (
    LaterLayer,
    LayerConfig,
    QuotedAttempt,
    ReviewChat,
    SelfContinue,
    Stop,
    UserQuote,
    default_system_prompt,
)
from mgrpo.errors import DataError, ModelError
from mgrpo.records.token_columns import TokenIds, as_list
from mgrpo.types import Problem

Asked = Problem | str
"""A problem, or the question of one without earlier turns."""
ATTEMPT_PLACEHOLDER = "\ue000attempt\ue001"
FEEDBACK_PLACEHOLDER = "\ue000feedback\ue001"
CUT_MARK = "\n[...]\n"
DEFAULT_QUOTE_TEMPLATE = "{problem}\n\nAn earlier attempt:\n{attempt}\n\n{guidance}"


def fill(template: str, **values: str) -> str:
    """Replace each {name} once, so that braces inside a value stay as they are."""
    pattern = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(pattern, lambda match: values[match.group()[1:-1]], template)


def solve_messages(layer: LayerConfig, problem: Asked) -> Messages:
    """The conversation that layer 1 continues."""
    before = turns_before(system_of(layer), problem)
    user = fill(layer.user_template or "{problem}", problem=question_of(problem))
    return [*before, {"role": "user", "content": user}]


def review_messages(layer: LaterLayer, problem: Asked, attempt: str, guidance: str) -> Messages:
    """The conversation that a correction continues (review_chat and user_quote)."""
    before = turns_before(system_of(layer), problem)
    question = question_of(problem)
    if isinstance(layer.layout, UserQuote):
        template = layer.user_template or DEFAULT_QUOTE_TEMPLATE
        user = fill(template, problem=question, attempt=attempt, guidance=guidance)
        return [*before, {"role": "user", "content": user}]
    user = fill(layer.user_template or "{problem}", problem=question)
    return [
        *before,
        {"role": "user", "content": user},
        {"role": "assistant", "content": f"{attempt}\n{guidance}"},
    ]


def guidance_text(layer: LaterLayer, phrase: str, *, has_feedback: bool) -> str:
    """What opens a correction: the phrase, or the template for a check's feedback, with
    FEEDBACK_PLACEHOLDER in its place."""
    if not has_feedback or not isinstance(layer.guidance, CheckGuidance):
        return phrase
    return fill(layer.guidance.template, feedback=FEEDBACK_PLACEHOLDER, guidance=phrase)


def question_of(problem: Asked) -> str:
    return problem if isinstance(problem, str) else problem.question


def turns_before(system: str, problem: Asked) -> Messages:
    """The turns before the question: the problem's own, and a system turn where it has none; ""
    writes none."""
    if isinstance(problem, str):
        return system_turn(system)
    own = [] if problem.has_system_turn else system_turn(system)
    return [*own, *problem.earlier_turns]


def system_of(layer: LayerConfig) -> str:
    """A layer's system turn; "" for none."""
    own = layer.system_prompt
    return default_system_prompt(layer) if own is None else own


def system_turn(system: str) -> Messages:
    return [{"role": "system", "content": system}] if system else []


class PromptBuilder:
    """Builds every layer's prompts with one tokenizer.

    Args:
        tokenizer: the policy's, with its chat template.
        template_kwargs: arguments of the template, such as enable_thinking.
        listed_stop_ids: tokens that end a completion whatever the template says: those of
            generation_config.
        stop_ids: what ends a completion, in place of the token that the template writes after a
            turn.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template_kwargs: Mapping[str, object] | None = None,
        *,
        listed_stop_ids: Sequence[int] = (),
        stop_ids: Sequence[int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self.listed_stop_ids = tuple(listed_stop_ids)
        self.chosen_stop_ids = stop_ids
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.cut_mark_ids = self.encode(CUT_MARK)

    @cached_property
    def chat(self) -> ChatFormat:
        """The chat template's properties.

        Raises:
            ModelError: the template cannot be used.
        """
        return read_chat_format(self.tokenizer, self.template_kwargs)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion, the one of the chat template first."""
        chosen = self.chosen_stop_ids
        ends = [self.chat.end_of_turn_id] if chosen is None else chosen
        known = [*ends, self.tokenizer.eos_token_id, *self.listed_stop_ids]
        return tuple(dict.fromkeys(token for token in known if token is not None))

    def stop_of(self, layer: LayerConfig) -> Stop | None:
        """What ends a layer's completions beside `stop_ids`, its tokens as ids; None: nothing.

        Raises:
            ModelError: the tokenizer has no such token.
        """
        stop = layer.stop
        if not (stop.texts or stop.tokens):
            return None
        ids = known_ids(self.tokenizer, stop.tokens, f"stop.tokens of layer {layer.name}")
        return stop.model_copy(update={"tokens": ids})

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int] | TokenIds) -> str:
        """Text without special tokens and the end of the turn, as checks read it."""
        kept = without_last(as_list(token_ids), self.stop_ids)
        return self.tokenizer.decode(kept, skip_special_tokens=True)

    def end_of_turn_ids(self) -> list[int]:
        """What a completion ends with, where one has to be ended by hand."""
        return list(self.stop_ids[:1])

    def render(self, messages: Messages) -> str:
        """The chat template's text, up to where the policy takes over.

        Raises:
            ModelError: the template refuses the turns, or loses one's text.
        """
        return render(self.tokenizer, messages, self.template_kwargs)

    def solve_prompt(self, layer: LayerConfig, problem: Asked) -> list[int]:
        """Token ids of a layer-1 prompt."""
        return self.encode(self.render(solve_messages(layer, problem)))

    def correction_prompt(
        self,
        layer: LaterLayer,
        problem: Asked,
        *,
        parent_prompt_ids: Sequence[int] | TokenIds,
        parent_ids: Sequence[int] | TokenIds,
        guidance: str,
        feedback_ids: Sequence[int] = (),
        parent_answer: str | None = None,
    ) -> list[int]:
        """Token ids of a later layer's prompt, with the parent's ids inside.

        Args:
            layer: the layer that will answer this prompt.
            problem: the problem, or the question of one without earlier turns.
            parent_prompt_ids: what the parent's policy read; used by self_continue.
            parent_ids: the parent's completion, end-of-turn tokens included.
            guidance: the text that opens the correction (`guidance_text`).
            feedback_ids: what stands at FEEDBACK_PLACEHOLDER in it (`feedback_ids`).
            parent_answer: the parent's final answer, for `quote: answer_only`.
        """
        layout = layer.layout
        if isinstance(layout, SelfContinue):
            attempt_ids = self.without_end_of_turn(parent_ids)
            opened = self.with_feedback(f"\n{guidance}", feedback_ids)
            return [*as_list(parent_prompt_ids), *attempt_ids, *opened]
        is_answer_only = layout.quote == "answer_only" and parent_answer is not None
        attempt_ids = self.quoted(layout, parent_ids, parent_answer)
        before, after = self.around_attempt(layer, problem, guidance)
        if isinstance(layout, ReviewChat) and not self.chat.reopens:
            raise ModelError(
                "The chat template opens no second assistant turn behind an assistant's turn, so a "
                f"correction of layer {layer.name} would have no beginning. Set layout: user_quote "
                "or self_continue for it."
            )
        if not is_answer_only and isinstance(layout, ReviewChat):
            # The quoted turn begins as any answer does: with the generation prompt.
            before = self.render(review_messages(layer, problem, "", "")[:-1])
        elif not is_answer_only:
            before += self.chat.opening
        head, tail = (self.with_feedback(text, feedback_ids) for text in (before, after))
        return [*head, *attempt_ids, *tail]

    def with_feedback(self, text: str, feedback_ids: Sequence[int]) -> list[int]:
        """Token ids of a text, with the feedback's where its placeholder stands."""
        before, *others = text.split(FEEDBACK_PLACEHOLDER)
        ids = self.encode(before)
        for part in others:
            ids += [*feedback_ids, *self.encode(part)]
        return ids

    def feedback_ids(self, layer: LaterLayer, feedback: str) -> list[int]:
        """A check's text as a layer shows it: its head, without special tokens and those that end
        a turn; [] where the layer shows none."""
        limit = layer.guidance.feedback_tokens
        if not feedback or not limit:
            return []
        left_out = self.special_ids.union(self.stop_ids)
        return [token for token in self.encode(feedback) if token not in left_out][:limit]

    def around_attempt(self, layer: LaterLayer, problem: Asked, guidance: str) -> tuple[str, str]:
        """The template's text before and after the place of the attempt."""
        messages = review_messages(layer, problem, ATTEMPT_PLACEHOLDER, guidance)
        pieces = self.render(messages).split(ATTEMPT_PLACEHOLDER)
        if len(pieces) != 2:
            raise DataError(
                f"The attempt's place occurs {len(pieces) - 1} times in a correction's prompt, "
                "expected once: the chat template drops assistant turns, or the question contains "
                f"the placeholder. Question: {question_of(problem)[:200]!r}"
            )
        before, after = pieces
        return before, after

    def quoted(
        self, layout: QuotedAttempt, parent_ids: Sequence[int] | TokenIds, parent_answer: str | None
    ) -> list[int]:
        """The ids of the attempt as the layout quotes it."""
        if layout.quote == "answer_only" and parent_answer is not None:
            return self.encode(f"\\boxed{{{parent_answer}}}")
        ids = self.without_end_of_turn(parent_ids)
        limit = layout.max_quote_tokens
        if limit is None or len(ids) <= limit:
            return ids
        head = limit // 2
        tail = limit - head
        return [*ids[:head], *self.cut_mark_ids, *ids[len(ids) - tail :]]

    def whole_answer(self, ids: Sequence[int] | TokenIds) -> list[int]:
        """A completion as it is quoted outside of a turn of its own: with what the prompt had
        written of it, without what ends it."""
        return [*self.encode(self.chat.opening), *self.without_end_of_turn(ids)]

    def without_end_of_turn(self, ids: Sequence[int] | TokenIds) -> list[int]:
        """Drop the special tokens that end a completion."""
        kept = as_list(ids)
        while kept and (kept[-1] in self.special_ids or kept[-1] in self.stop_ids):
            kept.pop()
        return kept
