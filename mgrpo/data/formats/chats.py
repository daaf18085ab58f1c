"""Questions that are chats: lists of turns with a role and a content, as TRL, verl and others
keep their prompts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from mgrpo.records.json_object import JsonObject

WRITTEN = re.compile(r"\s*\[\s*\{")
MAX_WRITTEN_CHARS = 1_000_000
ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    "human": "user",
    "gpt": "assistant",  # as ShareGPT names them
}
"""Roles of data, and what chat templates call them."""
Written = JsonObject
"""A turn as data has it."""
Turn = dict[str, str]
"""A turn with role and content."""


class UnfitRow(Exception):
    """Why a row is unusable, as a phrase after a count."""


def chat_in(value: Any) -> Sequence[Written] | None:
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


def parted(chat: Sequence[Written]) -> tuple[list[Turn], str]:
    """The turns before the question, and the question: the last turn, which must be the user's.

    Raises:
        UnfitRow: a turn has a role that chat templates do not know, or no text; or a system turn
            is not the first.
    """
    turns = [{"role": ROLES.get(role_of(one), ""), "content": content_of(one)} for one in chat]
    for turn, written in zip(turns, chat, strict=True):
        if not turn["role"]:
            raise UnfitRow(f"question is a chat with a turn of the role {role_of(written)!r}")
    role = turns[-1]["role"] if turns else "nobody"
    if role != "user":
        raise UnfitRow(f"question is a chat whose last turn is of the role {role!r}")
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise UnfitRow("question is a chat with a system turn after others")
    is_system = turns[0]["role"] == "system"
    says_nothing = is_system and not turns[0]["content"].strip()
    return turns[1 if says_nothing else 0 : -1], turns[-1]["content"]


def role_of(turn: Written) -> str:
    """ "user", "system", ...; "" if this is not a turn."""
    role = turn.get("role", turn.get("from"))
    return role if isinstance(role, str) else ""


def is_reply(turn: Written) -> bool:
    return ROLES.get(role_of(turn)) == "assistant"


def content_of(turn: Written) -> str:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts: list[Any] = [
            part.get("text") if isinstance(part, dict) else part for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise UnfitRow("a chat with parts that are not text")
        return "".join(parts)
    if content is None or isinstance(content, str):
        return content or ""
    raise UnfitRow(f"a chat with a turn that is a {type(content).__name__}")
