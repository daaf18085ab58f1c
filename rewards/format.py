"""The check `format`: does a completion end with one \\boxed{}, as it was asked to?"""

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
    """1 for a completion in the form asked for, else 0 with the reason in `detail`.

    Args:
        completion: what the policy wrote.
        problem: says what the prompt has already written of the answer (`prompt_opening`).
        think_tags: it must open with one <think>...</think>, the box coming after it. Where the
            prompt has opened the tag, the completion goes on inside it; where what the prompt has
            written is not known, the tag may stand in either.
        allow_several_boxes: earlier boxes are no fault.
        allow_text_after_box: neither is text behind the last box. Otherwise only space may
            follow it, and up to 12 marks that close a sentence, a bracket, a quotation, a formula
            (`$`, `\\]`, `\\end{align*}`) or Markdown (`**`, a code fence), of any script.
    """
    if think_tags:
        completion = with_opening(completion, problem.prompt_opening)
    reason = fault(completion, think_tags, allow_several_boxes, allow_text_after_box)
    return Reward(value=float(reason is None), correct=reason is None, detail=reason or "")


def with_opening(completion: str, opening: str | None) -> str:
    """The whole answer, of which the prompt may have written the beginning."""
    if opening is not None:
        return opening + completion
    return completion if "<think>" in completion else f"<think>{completion}"


def fault(text: str, think_tags: bool, several: bool, text_after: bool) -> str | None:
    """What is wrong with the form; None if nothing is."""
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
