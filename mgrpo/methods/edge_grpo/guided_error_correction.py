"""EDGE-GRPO's guided error correction (https://arxiv.org/abs/2507.21848)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from actors.layers import stable_seed
from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.config import MethodView
from mgrpo.config.base import OnlyWith, StrictConfig, refuse
from mgrpo.errors import ConfigFault, Faults
from mgrpo.records.token_columns import Logprobs, TokenIds
from mgrpo.records.turns import Prompt, VersionSpans, cut_versions, join_versions
from mgrpo.types import Completion, FinishReason, Problem, Reward

BRANCHES = ("continued", "answer_injected", "solution_replaced")
SUPERVISED = "supervised_injections"


class CorrectionSettings(StrictConfig):
    """Keys of guided_error_correction."""

    probs: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Chances of the branches: say that there is a mistake and let the policy go on; append the
    right answer; put the reference solution in the completion's place."""
    trigger: Literal["accuracy_wrong", "reward_below_full"] = "accuracy_wrong"
    """The repaired completions: wrong answers, or (as in the authors' code) every reward below
    full."""
    full_reward: Annotated[float, OnlyWith(trigger="reward_below_full")] = 1.0
    """The largest reward that the checks can give."""
    intervene_rate: Annotated[float, Field(ge=0, le=1)] | Literal["2/G"] = 1.0
    """Chance that a completion which may be repaired is; "2/G": 2 over the group's size."""
    max_prompt_tokens: PositiveInt = 256
    """Longer prompts are left alone."""
    max_new_tokens: PositiveInt = 256
    """Most tokens of a continuation."""
    offpolicy: Literal["mask_injected", "ratio_one", "recompute_logprob_as_old", "sft_loss"] = (
        "mask_injected"
    )
    """The trained parts of a repaired completion. mask_injected: what the policy sampled and is
    paid for; what was put in carries no loss, nor does the attempt before it once the repair has
    raised the reward. sft_loss: the same, and what was put in is a target (needs the plug-in
    supervised_injections). ratio_one (the authors' code) and recompute_logprob_as_old: all of it,
    the wrong attempt too, as if sampled, with the learner's own log-probabilities as the old ones;
    the two differ only with several optimizer steps per rollout, where ratio_one is refused."""
    missing_solution: Literal["inject_answer", "leave"] = "leave"
    """What the third branch does for a problem without a reference solution: leave the completion
    as it is, or do what the second branch does."""
    interjection: str = "Stop, there is a mistake above."
    """The sentence added on a separate line after the attempt."""
    answer_sentence: str = Field(
        pattern=r"\{answer\}", default="Checking shows that the right answer is \\boxed{{answer}}."
    )
    """Follows the interjection; {answer} stands for the right answer."""

    @model_validator(mode="after")
    def check_probs(self) -> CorrectionSettings:
        if min(self.probs) < 0 or abs(sum(self.probs) - 1) > 1e-6:
            refuse("probs", list(self.probs), "must be 3 chances that add to 1.")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What takes the place of a completion's tokens."""

    kept: int  # tokens of the completion that stay
    injected: list[int]
    sampled: TokenIds
    sampled_logprobs: Logprobs
    finish_reason: FinishReason
    sampled_versions: VersionSpans = ()


class GuidedErrorCorrection(RolloutPlugin):
    """Repairs part of the wrong completions before rewards are compared.

    A group in which everything was wrong then has something right in it, so it gives a gradient.
    Repaired completions are checked again. Injected text is not the policy's own, and a wrong
    attempt has not earned the reward of what was put in behind it: `offpolicy` says what trains.

    Reconstructed:
        The authors train all of a repaired completion with ratio 1 (`offpolicy: ratio_one`): the
        injected text, and with it the wrong attempt's own tokens, get the advantage of a right
        answer. Of eight wrong attempts, four with the answer put in, advantage times weight is
        then +0.11 on these four, +0.35 on the answers (of 7 and 22 tokens) and -0.47 on the other
        four; by default here it is 0, 0 and -0.47, and with `sft_loss` the answers alone go up.
    """

    Settings: ClassVar[type[StrictConfig]] = CorrectionSettings
    needs: ClassVar[tuple[str, ...]] = (SUPERVISED,)

    @classmethod
    def needed(cls, settings: CorrectionSettings) -> tuple[str, ...]:
        return cls.needs if settings.offpolicy == "sft_loss" else ()

    @classmethod
    def faults(
        cls, settings: CorrectionSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        if settings.offpolicy == "ratio_one" and method.objective.optimizer_steps > 1:
            why = "with several optimizer steps per rollout a ratio of 1 would never be clipped."
            yield ConfigFault("offpolicy", "ratio_one", why, "Use recompute_logprob_as_old.")

    def extra_tokens(self) -> int:
        return int(self.settings.max_new_tokens) + LONGEST_SENTENCE_TOKENS

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        repaired = list(completions)
        for place, one in enumerate(completions):
            rng = random.Random(stable_seed(tools.seed, one.completion_id, "repair"))
            if not self.is_repaired(one, len(completions), rng):
                continue
            branch = draw_branch(self.settings.probs, rng)
            if branch == "solution_replaced" and not problem.solution:
                if self.settings.missing_solution == "leave":
                    continue
                branch = "answer_injected"
            if branch == "answer_injected" and not problem.answer:
                continue
            repair = await self.repair(tools, layer, problem, one, branch)
            repaired[place] = self.apply(tools, one, repair, branch)
        changed = [place for place, one in enumerate(repaired) if one is not completions[place]]
        rewards = await tools.score(
            problem,
            [repaired[place].text for place in changed],
            [repaired[place].token_ids for place in changed],
        )
        for place, reward in zip(changed, rewards, strict=True):
            repaired[place] = self.scored(completions[place], repaired[place], reward)
        return repaired

    def scored(self, before: Completion, repaired: Completion, reward: Reward) -> Completion:
        """With its new reward. Where that is the repair's doing, the attempt does not train: it
        would be pushed by what came after it, right though it was not."""
        has_gained = before.reward is not None and reward.value > before.reward.value
        if not has_gained or self.settings.offpolicy not in ("mask_injected", "sft_loss"):
            return replace(repaired, reward=reward)
        assert repaired.sampled_mask is not None, "apply() gives one"
        num_kept = int(repaired.sampled_mask.argmin())  # what was put in follows what was kept
        mask = repaired.is_trained.copy()
        mask[:num_kept] = False
        return replace(repaired, reward=reward, train_mask=mask)

    def is_repaired(self, one: Completion, group_size: int, rng: random.Random) -> bool:
        """May this completion be repaired, and does chance say so?"""
        if one.reward is None or not one.reward.is_usable:
            return False
        if self.settings.trigger == "accuracy_wrong":
            is_wrong = not one.is_correct
        else:
            is_wrong = one.reward.value < self.settings.full_reward
        if not is_wrong or len(one.prompt_token_ids) > self.settings.max_prompt_tokens:
            return False
        rate = self.settings.intervene_rate
        return rng.random() < (2 / group_size if rate == "2/G" else rate)

    async def repair(
        self, tools: RolloutTools, layer: int, problem: Problem, one: Completion, branch: str
    ) -> Repair:
        builder = tools.builder
        kept = builder.without_end_of_turn(one.token_ids)
        end = one.token_ids[len(kept) :].tolist() or builder.end_of_turn_ids()
        if branch == "continued":
            injected = builder.encode(f"\n{self.settings.interjection}\n")
            generation = (
                await tools.generate(
                    layer,
                    Prompt.of([*one.prompt_token_ids.tolist(), *kept, *injected]),
                    num_samples=1,
                    max_tokens=self.settings.max_new_tokens,
                    seed=stable_seed(tools.seed, one.completion_id, "continue"),
                )
            )[0]
            return Repair(
                kept=len(kept),
                injected=injected,
                sampled=generation.token_ids,
                sampled_logprobs=generation.logprobs,
                finish_reason=generation.finish_reason,
                sampled_versions=generation.version_spans,
            )
        if branch == "answer_injected":
            answer = self.settings.answer_sentence.replace("{answer}", problem.answer)
            injected = builder.encode(f"\n{self.settings.interjection} {answer}")
        else:
            kept, injected = [], builder.encode(problem.solution)
        return Repair(
            kept=len(kept),
            injected=[*injected, *end],
            sampled=np.zeros(0, dtype=np.int32),
            sampled_logprobs=np.zeros(0, dtype=np.float32),
            finish_reason="stop",
        )

    def apply(
        self, tools: RolloutTools, one: Completion, repair: Repair, branch: str
    ) -> Completion:
        """The completion with its repair; not yet checked again."""
        injected = np.array(repair.injected, dtype=np.int32)
        token_ids = np.concatenate([one.token_ids[: repair.kept], injected, repair.sampled])
        num_before = repair.kept + len(injected)
        mask = np.ones(len(token_ids), dtype=np.bool_)
        mask[repair.kept : num_before] = False
        kept_versions = cut_versions(one.version_spans, 0, repair.kept)
        return replace(
            one,
            token_ids=token_ids,
            rollout_logprobs=np.concatenate(
                [
                    one.rollout_logprobs[: repair.kept],
                    np.zeros(len(injected), dtype=np.float32),
                    repair.sampled_logprobs,
                ]
            ),
            sampled_mask=mask,
            train_mask=mask if self.settings.offpolicy == "mask_injected" else None,
            finish_reason=repair.finish_reason,
            version_spans=join_versions(
                [(kept_versions, num_before), (repair.sampled_versions, len(repair.sampled))]
            ),
            text=tools.builder.decode(token_ids),
            augmented_by=branch,
        )


LONGEST_SENTENCE_TOKENS = 96
"""Room for the interjection and the answer's sentence in any tokenizer."""


def draw_branch(probs: Sequence[float], rng: random.Random) -> str:
    return rng.choices(BRANCHES, weights=probs)[0]
