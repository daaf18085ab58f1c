"""What `integrated_answers` leaves with each answer, and `gcpo` reads: how its prompts look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerContexts:
    """How one answer's prompt looks when it shows the other answers to the same problem, and one
    that was made of all of them. Token ids throughout; answers are without end-of-turn
    tokens.

    A prompt is  opening, (separator, answer) for every other answer, bridge, integrated, closing.
    """

    opening: list[int]
    separator: list[int]
    bridge: list[int]
    closing: list[int]
    max_answer_tokens: int  # of each answer the last so many are shown
    answers: dict[str, list[int]]  # by completion_id, in the order in which they are shown
    integrated: list[list[int]]  # answers made of all answers; the first is the one of the prompt

    def prompt(self, completion_id: str, number: int) -> list[int]:
        """Shows every answer but this completion's, and integrated answer `number`."""
        ids = list(self.opening)
        for name, answer in self.answers.items():
            if name != completion_id:
                ids += self.separator + answer[-self.max_answer_tokens :]
        return ids + self.bridge + self.integrated[number][-self.max_answer_tokens :] + self.closing

    @property
    def num_cut(self) -> int:
        """Answers that are not shown whole."""
        answers = [*self.answers.values(), *self.integrated]
        return sum(len(answer) > self.max_answer_tokens for answer in answers)
