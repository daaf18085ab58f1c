"""Properties of a chat template, detected by rendering turns.

Templates are programs, and families differ: a template may require or refuse a system turn, begin
the answer itself ("<think>"), end a turn with a token that no other file names, or drop content.
These properties are read from renderings of marked turns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mgrpo.errors import ModelError

Messages = list[dict[str, str]]

ASKED, ANSWERED, NEXT = "What is 4127 + 8853?", "It is 12980 in all.", "And without 6091?"
"""Turns to try a template with; none holds these texts by itself."""
SYSTEM_TURN = {"role": "system", "content": "Answer in one line."}
THINK, END_OF_THINK = "<think>", "</think>"


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts are built with."""

    all_special_ids: list[int]

    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(
        self,
        conversation: object,
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **template_kwargs: object,
    ) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """The text of a chat template around and after an answer."""

    before_answer: str
    """The template's text from the question to where the policy goes on."""
    opening: str
    """The beginning of the answer in the prompt, such as "<think>\\n"; mostly nothing."""
    end_of_turn: str
    """The template's text after an assistant's turn, such as "<|im_end|>\\n"."""
    end_of_turn_id: int | None
    """The token that this text begins with; None where it begins with no token of its own."""
    reopens: bool
    """After an assistant's turn, a prompt opens the next one for the policy to go on with."""


def render(
    tokenizer: Tokenizer,
    messages: Messages,
    template_kwargs: Mapping[str, object],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The chat template's text of some turns, whose contents must all be in it.

    Raises:
        ModelError: the template refuses the turns, or loses one's text.
    """
    try:
        text = str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **template_kwargs,
            )
        )
    except Exception as error:  # templates raise many types: Jinja errors, ValueError, ...
        roles = ", ".join(message["role"] for message in messages)
        raise ModelError(
            f"The tokenizer's chat template cannot render the turns ({roles}): {error}. "
            "Use a tokenizer with a chat template; if it refuses a system turn, set "
            'system_prompt: "" for the layer; if it refuses two assistant turns in a row, set '
            "layout: user_quote."
        ) from error
    for message in messages:
        if message["content"].strip() not in text:
            raise ModelError(lost_turn(tokenizer, message, template_kwargs))
    return text


def lost_turn(
    tokenizer: Tokenizer, message: dict[str, str], template_kwargs: Mapping[str, object]
) -> str:
    """The message for a turn whose text is not in the rendering."""
    role, content = message["role"], message["content"].strip()
    what = "question" if role == "user" else f"{role} turn"
    if role == "user" and takes_parts(tokenizer, template_kwargs):
        advice = (
            "It reads a turn's content as a list of parts, and prompts are plain text: write "
            "message['content'] where it loops over the parts."
        )
    elif role == "system":
        advice = 'Set system_prompt: "" for the layer, or fix chat_template.jinja.'
    else:
        advice = "Fix chat_template.jinja beside the tokenizer."
    return (
        f"The chat template drops or changes the {what}: {content[:80]!r} is not in the prompt. "
        f"{advice}"
    )


def takes_parts(tokenizer: Tokenizer, template_kwargs: Mapping[str, object]) -> bool:
    """True where the template would show the question as a list of parts, as templates of
    multimodal models do."""
    parts = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
    try:
        text = tokenizer.apply_chat_template(
            parts, tokenize=False, add_generation_prompt=True, **template_kwargs
        )
    except Exception:
        return False
    return ASKED in str(text) and "'text'" not in str(text)


def read_chat_format(tokenizer: Tokenizer, template_kwargs: Mapping[str, object]) -> ChatFormat:
    """Find out how a template opens an answer and ends a turn.

    Raises:
        ModelError: it cannot render a question, loses it, or leaves the answer's header to the
            policy.
    """
    asked, ended, went_on = turns(ASKED), turns(ASKED, ANSWERED), turns(ASKED, ANSWERED, NEXT)
    if needs_system_turn(tokenizer, template_kwargs):
        asked, ended, went_on = ([SYSTEM_TURN, *messages] for messages in (asked, ended, went_on))
    prompt = render(tokenizer, asked, template_kwargs)
    answered = try_render(tokenizer, ended, template_kwargs)
    continued = try_render(tokenizer, went_on, template_kwargs)
    before_answer = after(prompt, ASKED)
    # Of an earlier turn: some templates put an empty thought into the last one.
    header = next(
        (between(text, ASKED, ANSWERED) for text in (continued, answered) if text is not None), ""
    )
    if prompt == try_render(tokenizer, asked, template_kwargs):
        refuse_missing_header(before_answer, header)
    # Of the last turn first: what ends a whole answer may differ from what ends a turn.
    ends = [after(text, ANSWERED) for text in (answered, continued) if text is not None]
    end = next((end for end in ends if end.strip()), "")
    return ChatFormat(
        before_answer=before_answer,
        opening=opening_of(before_answer, header),
        end_of_turn=end,
        end_of_turn_id=first_special_id(tokenizer, end.lstrip()),
        reopens=answered is None
        or answered != try_render(tokenizer, ended, template_kwargs, opened=True)
        or (bool(before_answer.strip()) and end.rstrip().endswith(before_answer.strip())),
    )


def needs_system_turn(tokenizer: Tokenizer, template_kwargs: Mapping[str, object]) -> bool:
    without, with_one = (
        try_render(tokenizer, messages, template_kwargs, opened=True)
        for messages in (turns(ASKED), [SYSTEM_TURN, *turns(ASKED)])
    )
    return without is None and with_one is not None


def turns(*contents: str) -> Messages:
    """A user's turn, the assistant's, the user's, ..."""
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]


def try_render(
    tokenizer: Tokenizer,
    messages: Messages,
    template_kwargs: Mapping[str, object],
    *,
    opened: bool = False,
) -> str | None:
    """A conversation, with a turn opened behind it or not; None where the template refuses it."""
    try:
        return render(tokenizer, messages, template_kwargs, add_generation_prompt=opened)
    except ModelError:
        return None


def between(text: str, first: str, second: str) -> str:
    return text.partition(first)[2].partition(second)[0]


def after(text: str, mark: str) -> str:
    """What follows the last `mark`, up to a turn that comes then."""
    return text.rpartition(mark)[2].partition(NEXT)[0]


def refuse_missing_header(before_answer: str, header: str) -> None:
    """Refuse a template without a generation prompt where answers have a header.

    Some formats have none ("[INST] question [/INST] answer"), and ask for nothing.
    """
    begun = before_answer.rstrip()
    missing = header.removeprefix(begun).strip()
    if header.startswith(begun) and missing:
        raise ModelError(
            "The chat template has no generation prompt: add_generation_prompt changes nothing, "
            f"and answers begin with {missing[:60]!r}, which the policy would have to "
            "write itself. Change the template to write it if add_generation_prompt is true."
        )


def opening_of(before_answer: str, header: str) -> str:
    """What the prompt writes beyond the header of an assistant's turn."""
    header = header.rstrip()
    places = [before_answer.find(THINK)]
    if header and before_answer.startswith(header):
        places.append(len(header))
    opening = before_answer[min(place for place in [*places, len(before_answer)] if place >= 0) :]
    return opening.lstrip()


def first_special_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The id that a text begins with, if that is a token of its own: special or added."""
    ids = tokenizer.encode(text, add_special_tokens=False)[:1]
    own = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return ids[0] if ids and ids[0] in own else None


def without_last(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """The ids of a completion without the token that ended it."""
    return list(ids[:-1] if ids and ids[-1] in ends else ids)


def known_ids(tokenizer: Any, tokens: Sequence[str | int], key: str) -> list[int]:
    """The ids of tokens that a recipe names by text or id.

    Args:
        key: where the recipe names them.

    Raises:
        ModelError: the tokenizer has no such token.
    """
    vocabulary = tokenizer.get_vocab() if tokens else {}
    known = set(vocabulary.values())
    ids = []
    for token in tokens:
        found = vocabulary.get(token) if isinstance(token, str) else token
        if found is None or found not in known:
            raise ModelError(
                f"{key} names {token!r}, which is not a token of this model's tokenizer. Give a "
                "token of its vocabulary, such as <|im_end|>, or its id."
            )
        ids.append(found)
    return ids
