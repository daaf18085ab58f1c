"""A question through the turns of a run's policy: the prompts of training, outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actors.templates import PromptBuilder, guidance_text
from actors.verdicts import read_verdict
from mgrpo.config import LayerConfig
from mgrpo.config.layers import (
    LaterLayer,
    RejectedParents,
    Stop,
    VerifyLayer,
    later_layers,
)
from mgrpo.types import Problem


@dataclass(frozen=True)
class Asked:
    """What the policy is asked for in one turn."""

    layer: LayerConfig
    prompt_ids: list[int]
    stop: Stop | None  # beside the builder's `stop_ids`; its tokens are ids
    guidance: str = ""  # the phrase that opens a correction


@dataclass(frozen=True)
class Answered:
    """What it wrote."""

    asked: Asked
    token_ids: list[int]
    text: str  # as checks read it
    is_cut: bool  # it ran out of tokens


@dataclass(frozen=True)
class Turns:
    """The prompts of a recipe's layers. An attempt is quoted as its own tokens, as in training; no
    check reads it, so nothing of a check is fed back."""

    builder: PromptBuilder
    layers: Sequence[LayerConfig]

    def first(self, problem: Problem) -> Asked:
        """Of the first attempt."""
        layer = self.layers[0]
        return Asked(layer, self.builder.solve_prompt(layer, problem), self.builder.stop_of(layer))

    def correction(
        self, layer: LaterLayer, problem: Problem, before: Answered, phrase: int
    ) -> Asked:
        """Of a correction of what was written before.

        Args:
            phrase: number of the guidance phrase; of a layer with fewer phrases the last.
        """
        phrases = layer.guidance.phrases
        guidance = phrases[min(phrase, len(phrases) - 1)]
        prompt = self.builder.correction_prompt(
            layer,
            problem,
            parent_prompt_ids=before.asked.prompt_ids,
            parent_ids=before.token_ids,
            guidance=guidance_text(layer, guidance, has_feedback=False),
        )
        return Asked(layer, prompt, self.builder.stop_of(layer), guidance)

    def following(self, problem: Problem, answers: Sequence[Answered], phrase: int) -> Asked | None:
        """The next turn; None behind the last, or where the policy's verdict accepts the attempt
        and the next layer corrects rejected ones alone."""
        if not answers:
            return self.first(problem)
        if len(answers) == len(self.layers):
            return None
        layer = self.layers[len(answers)]
        assert isinstance(layer, LaterLayer), "a chain has one first layer"
        if isinstance(layer.parents, RejectedParents) and accepts(answers[-1]):
            return None
        return self.correction(layer, problem, answers[-1], phrase)

    def answered(self, asked: Asked, token_ids: list[int]) -> Answered:
        ends = {*self.builder.stop_ids, *(asked.stop.tokens if asked.stop else ())}
        is_full = len(token_ids) >= asked.layer.max_completion_tokens
        is_cut = is_full and token_ids[-1] not in ends
        return Answered(asked, token_ids, self.builder.decode(token_ids), is_cut)

    @property
    def corrections(self) -> Sequence[LaterLayer]:
        return later_layers(self.layers)

    @property
    def num_phrases(self) -> int:
        """Of the layer with most."""
        return max((len(one.guidance.phrases) for one in self.corrections), default=0)


def accepts(verdict: Answered) -> bool:
    """Does a turn of a verify layer say that its attempt is right?"""
    layer = verdict.asked.layer
    return isinstance(layer, VerifyLayer) and bool(read_verdict(verdict.text, layer.verdict))


def final_answer(answers: Sequence[Answered]) -> Answered:
    """The last turn that is no verdict."""
    return [one for one in answers if not isinstance(one.asked.layer, VerifyLayer)][-1]


def asked_in(question: str, earlier_turns: Sequence[dict[str, str]] = ()) -> Problem:
    """A question of a conversation as a problem without an answer."""
    return Problem(
        problem_id="asked",
        question=question,
        answer="",
        earlier_turns=list(earlier_turns),
    )
