"""Recorded completions for the page: chosen steps, as data that completions.js makes cards of.

Sampled text is hostile input. It travels as JSON in which no character can end a script
element, and completions.js only ever writes it as text, never as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps

from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.metrics.learning import changed_policy
from mgrpo.metrics.log import read_rollouts
from mgrpo.records.json_object import JsonObject
from mgrpo.report.run_data import RunData
from mgrpo.types import Completion

MAX_STEPS_BYTES = 2_200_000  # leaves room for the rest of a page of about 3 MB
MAX_TEXT_CHARACTERS = 8_000  # of one completion or prompt
COMPACT: JsonObject = {"ensure_ascii": False, "separators": (",", ":")}  # for JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSteps:
    """The steps that the page shows, and how much it leaves out."""

    steps: list[JsonObject]  # evaluations, then steps, ascending; see `step_data`
    num_recorded_steps: int

    @property
    def num_of_training(self) -> int:
        return sum("heldout" not in step for step in self.steps)

    @property
    def num_left_out(self) -> int:
        return self.num_recorded_steps - self.num_of_training


def load_shown_steps(run: RunData, max_bytes: int = MAX_STEPS_BYTES) -> ShownSteps:
    """As many recorded steps as fit: the last, the first, then evenly between; and before them the
    evaluations, which have at most half of the room, likewise."""
    guidance = guidance_phrases(run.config)
    silent = {row["step"] for row in run.metrics if changed_policy(row) is False}

    def fitting(
        paths: Mapping[int, Path], room: int, **marks: bool
    ) -> tuple[list[JsonObject], int]:
        """The steps, and the bytes that they leave of the room."""
        kept: dict[int, JsonObject] = {}
        for step in spread_order(list(paths)):
            is_silent = not marks and step in silent
            completions = read_rollouts(paths[step])
            one = step_data(step, completions, guidance, is_silent=is_silent) | marks
            size = len(htmlsafe_json_dumps(one, **COMPACT).encode("utf-8", "replace"))
            if size > room:
                break
            room -= size
            kept[step] = one
        return [kept[step] for step in sorted(kept)], room

    measured, left = fitting(run.heldout, max_bytes // 2, heldout=True)
    trained, _ = fitting(run.rollouts, max_bytes - max_bytes // 2 + left)
    return ShownSteps(steps=[*measured, *trained], num_recorded_steps=len(run.rollouts))


def spread_order(steps: Sequence[int]) -> list[int]:
    """Last, first, then again and again the middles of the gaps: any prefix covers the run."""
    if len(steps) <= 2:
        return list(reversed(steps))
    order = [len(steps) - 1, 0]
    gaps = [(0, len(steps) - 1)]
    while gaps:
        halves = []
        for low, high in gaps:
            middle = (low + high) // 2
            if middle != low:
                order.append(middle)
                halves += [(low, middle), (middle, high)]
        gaps = halves
    return [steps[index] for index in order]


def step_data(
    step: int,
    completions: Sequence[Completion],
    guidance: dict[int, list[str]],
    *,
    is_silent: bool = False,
) -> JsonObject:
    """One step: its problems, each with its question and the completions sampled for it.

    Args:
        is_silent: the step changed nothing.
    """
    by_problem: dict[str, list[Completion]] = {}
    for completion in completions:
        by_problem.setdefault(completion.problem_id, []).append(completion)
    return {
        "step": step,
        "problems": [
            {
                "id": name,
                "domain": members[0].domain,
                # Corrections are recorded without the question and its answer.
                "question": clip(next((one.prompt_text for one in members if one.prompt_text), "")),
                "reference": clip(max((one.reference_answer for one in members), key=len)),
                "nodes": [node(member, guidance, is_silent) for member in members],
            }
            for name, members in by_problem.items()
        ],
    }


def node(
    completion: Completion, guidance: dict[int, list[str]], is_silent: bool = False
) -> dict[str, object]:
    """One completion as the page needs it; what has no value is left out."""
    reward = completion.reward
    fields: dict[str, object] = {
        "id": completion.completion_id,
        "layer": completion.layer,
        "parent": completion.parent_id,
        "grade": grade(completion),
        "text": clip(completion.text),
        "tokens": len(completion.token_ids),
        "finish": completion.finish_reason,
        "version": versions(completion),
        "advantage": completion.advantage,
        "selected": completion.selected,
        "why": completion.not_selected_because,
        "still": stillness(completion, is_silent),
        "guidance": phrase(completion, guidance),
        "fed_back": clip(completion.feedback or "", 600),
    }
    if reward is not None:
        fields |= {
            "reward": reward.value,
            "answer": clip(reward.extracted_answer or "", 300),
            "parts": reward.parts if len(reward.parts) > 1 else {},
            "detail": clip(reward.detail, 600),
            "feedback": clip(reward.feedback, 600),
        }
    return {name: value for name, value in fields.items() if value not in (None, "", {})}


def stillness(completion: Completion, is_silent: bool) -> str:
    """Why a completion that is selected does not change the policy; "" if it does."""
    if not completion.selected:
        return ""
    if is_silent:
        return "the step changed nothing"
    return "" if completion.advantage else "its advantage is 0"


def versions(completion: Completion) -> int | str:
    """The policy version that wrote it, or the first and the last."""
    first, last = completion.oldest_version, completion.newest_version
    return first if first == last else f"{first} to {last}"


def grade(completion: Completion) -> str:
    """right | wrong | unparsable | failed (the check, not the answer) | unscored."""
    if completion.reward is None:
        return "unscored"
    if not completion.reward.is_usable:
        return "failed"
    if completion.reward.correct:
        return "right"
    return "unparsable" if completion.reward.status == "unparsable" else "wrong"


def guidance_phrases(config: JsonObject) -> dict[int, list[str]]:
    """Layer -> the phrases its corrections may open with."""
    layers = config.get("layers") or []
    return {
        number: (layer.get("guidance") or {}).get("phrases") or list(GUIDANCE_PHRASES)
        for number, layer in enumerate(layers, start=1)
    }


def phrase(completion: Completion, guidance: dict[int, list[str]]) -> str | None:
    index = completion.guidance_id
    if index is None:
        return None
    phrases = guidance.get(completion.layer, [])
    return phrases[index] if 0 <= index < len(phrases) else f"phrase {index}"


def clip(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Head and tail of a text that is too long, with a word on what is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    num_left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {num_left_out} characters left out …]\n{text[-half:]}"
