"""Questions that are chats: lists of turns with a role and a content, as TRL, verl and others
keep their prompts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

WRITTEN = re.compile(r"\s*\[\s*\{")
MAX_WRITTEN_CHARS = 1_000_000
USER_ROLES = ("user", "human")
Turn = dict[str, Any]


class UnfitChat(Exception):
    """Why a chat cannot be used as a question."""


def chat_in(value: Any) -> Sequence[Turn] | None:
    """The turns, if the value is a chat or its text form; else None.

    CSV files hold chats as JSON, or as Python prints them.
    """
    if isinstance(value, str) and len(value) < MAX_WRITTEN_CHARS and WRITTEN.match(value):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value.strip())
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    if not (isinstance(value, list) and value):
        return None
    turns = [turn for turn in value if isinstance(turn, dict) and role_of(turn)]
    return turns if len(turns) == len(value) else None


def question_of(chat: Sequence[Turn], *, ignore_earlier_turns: bool) -> str:
    """The last turn's text, which must be the user's.

    Raises:
        UnfitChat: it has another role, has no text, or follows turns that may not be ignored.
    """
    *earlier, last = chat
    if role_of(last) not in USER_ROLES:
        raise UnfitChat(f"question is a chat whose last turn is of the role {role_of(last)!r}")
    if earlier and not ignore_earlier_turns:
        roles = ", ".join(role_of(turn) for turn in earlier)
        raise UnfitChat(
            f"question is a chat with earlier turns ({roles}); ignore_earlier_turns: true uses "
            "only its last turn, and a system turn belongs in layers.0.system_prompt"
        )
    return text_of(last)


def role_of(turn: Turn) -> str:
    """ "user", "system", ...; "" if this is not a turn."""
    role = turn.get("role", turn.get("from"))
    return role if isinstance(role, str) else ""


def text_of(turn: Turn) -> str:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts: list[Any] = [
            part.get("text") if isinstance(part, dict) else part for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise UnfitChat("question is a chat with parts that are not text")
        return "".join(parts)
    if content is None or isinstance(content, str):
        return content or ""
    raise UnfitChat(f"question is a chat whose last turn is a {type(content).__name__}")
