"""Puts a worked solution beside attempts that all failed (https://arxiv.org/abs/2512.06337)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.config import MethodView
from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.errors import ConfigFault, Faults
from mgrpo.records.turns import cut_versions
from mgrpo.types import EXPERT, Completion, Problem


class AnchorSettings(StrictConfig):
    """Keys of expert_anchor."""

    max_pass_rate: float = Field(default=0.0, ge=0, lt=1)
    """Groups with at most this share of right answers get a solution; 0: those without any."""
    max_solution_tokens: PositiveInt = 256
    """Longer solutions are left out."""
    missing_solution: Literal["leave", "answer"] = "leave"
    """For a problem without a worked solution: leave its group alone, or put the bare answer in."""
    answer_sentence: Annotated[
        str, Field(pattern=r"\{answer\}"), OnlyWith(missing_solution="answer")
    ] = "\\boxed{{answer}}"
    """The inserted text; {answer} is replaced by the right answer."""


class ExpertAnchor(RolloutPlugin):
    """Adds one solution of the data to a group in which (nearly) everything was wrong.

    The group then has something to be compared with. No token of it was sampled, so it needs an
    objective without a ratio: the loss shaped_probability has one. It is checked like a completion,
    and left out where the checks do not find it right. It counts in its group's statistics and not
    in metrics of the rollout.

    Reconstructed:
        How DaGRPO adds its anchors: one per group, and only where (nearly) nothing was right.
    """

    Settings: ClassVar[type[StrictConfig]] = AnchorSettings
    needs: ClassVar[tuple[str, ...]] = ("shaped_probability",)
    overlaps: ClassVar[Mapping[str, str]] = {
        "guided_error_correction": "repairs groups in which everything is wrong too; of the two, "
        "the later in plugins finds only what the first has left"
    }

    @classmethod
    def faults(cls, settings: AnchorSettings, layers: frozenset[int], method: MethodView) -> Faults:
        if layers != {len(method.layers)}:
            why = "would add solutions that a later layer corrects as the policy's own."
            hint = f"Set layers: [{method.layers[-1].name}]."
            yield ConfigFault("(plug-in)", "expert_anchor", why, hint)

    def extra_tokens(self) -> int:
        return int(self.settings.max_solution_tokens)

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        given = list(completions)
        text = self.solution_of(problem)
        if not text or not self.is_hard(completions):
            return given
        token_ids = np.array(
            [*tools.builder.encode(text), *tools.builder.end_of_turn_ids()], dtype=np.int32
        )
        if len(token_ids) > self.settings.max_solution_tokens:
            return given
        (reward,) = await tools.score(problem, [text], [token_ids])
        if not reward.correct:
            return given
        expert = replace(
            given[0],
            id=given[0].id.parent.child(-1 - given[0].id.path[-1]),
            token_ids=token_ids,
            rollout_logprobs=np.zeros(len(token_ids), dtype=np.float32),
            sampled_mask=np.zeros(len(token_ids), dtype=np.bool_),
            train_mask=None,
            version_spans=cut_versions(given[0].version_spans, 0, len(token_ids)),
            spans={},
            finish_reason="stop",
            text=text,
            engine="",
            augmented_by=EXPERT,
            reward=reward,
        )
        return [*given, expert]

    def solution_of(self, problem: Problem) -> str:
        """What an expert would have written, or ""."""
        if problem.solution or not problem.answer or self.settings.missing_solution == "leave":
            return problem.solution
        return str(self.settings.answer_sentence).replace("{answer}", problem.answer)

    def is_hard(self, completions: Sequence[Completion]) -> bool:
        """True where enough of the usable completions are wrong."""
        usable = [one for one in completions if one.reward is not None and one.reward.is_usable]
        num_right = sum(one.is_correct for one in usable)
        return bool(usable) and num_right <= self.settings.max_pass_rate * len(usable)
