"""The check `format`: a completion must end with one \\boxed{}, as the prompt requests."""

from __future__ import annotations

import re

from mgrpo.types import Problem, Reward
from rewards.boxed import count_boxes, last_box

MAX_CLOSING_MARKS = 12
CLOSING_MARK = (
    r"[.!?\u2026\u3002\uff0e\uff01\uff1f\u0964\u06d4\u061f]"  # full stops of several scripts
    r"|[)\]}\"'`*_$\u00bb\u201d\u2019\u300d\u300f\uff09\u3011]"  # and Markdown, TeX
    r"|\\[)\]]|\\end\s*\{[a-zA-Z]+\*?\}"
)
TRAILING = re.compile(rf"\s*(?:(?:{CLOSING_MARK})\s*){{0,{MAX_CLOSING_MARKS}}}")
THINK_FIRST = re.compile(r"\s*<think>(?P<thoughts>.*?)</think>(?P<answer>.*)", re.DOTALL)


def format_answer(
    completion: str,
    problem: Problem,
    *,
    think_tags: bool = False,
    allow_several_boxes: bool = False,
    allow_text_after_box: bool = False,
) -> Reward:
    """1 for a completion in the requested format, else 0 with the reason as detail and feedback.

    Args:
        completion: the policy's text.
        problem: has the beginning of the answer in the prompt (`prompt_opening`).
        think_tags: it must open with one <think>...</think>, and the box must follow it. If the
        prompt opened the tag, the completion continues inside it; if the prompt's opening is
        unknown, the tag may be in either.
        allow_several_boxes: earlier boxes are allowed.
        allow_text_after_box: text after the last box is allowed. Otherwise only space may
            follow it, and up to 12 marks that close a sentence, a bracket, a quotation, a formula
            (`$`, `\\]`, `\\end{align*}`) or Markdown (`**`, a code fence), of any script.
    """
    if think_tags:
        completion = with_opening(completion, problem.prompt_opening)
    reason = fault(completion, think_tags, allow_several_boxes, allow_text_after_box)
    return Reward(
        value=float(reason is None),
        correct=reason is None,
        detail=reason or "",
        feedback=f"The format: {reason}." if reason else "",
    )


def with_opening(completion: str, opening: str | None) -> str:
    """The whole answer, including its beginning in the prompt."""
    if opening is not None:
        return opening + completion
    return completion if "<think>" in completion else f"<think>{completion}"


def fault(text: str, think_tags: bool, several: bool, text_after: bool) -> str | None:
    """The format error; None if there is none."""
    if think_tags:
        match = THINK_FIRST.fullmatch(text)
        if match is None or text.count("<think>") != 1 or text.count("</think>") != 1:
            return "does not open with one <think>...</think>"
        text = match["answer"]
    box = last_box(text)
    if box is None or not box.content.strip():
        return "no closed \\boxed{} with an answer"
    if not several and (boxes := count_boxes(text)) > 1:
        return f"{boxes} boxes, expected 1"
    if not text_after and TRAILING.fullmatch(text, box.end) is None:
        return f"{len(text) - box.end} characters after the box"
    return None
