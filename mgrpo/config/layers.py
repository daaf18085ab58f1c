"""The layer chain: what each layer samples, from what, and what of it is trained.

GRPO is a chain of one layer, MGRPO (arXiv 2506.04746) a chain of two. Options that the
paper does not settle are keys here; the defaults are what we recommend, and
`mgrpo/recipes/strict_fix.yaml` and `mgrpo/recipes/success_only.yaml` are narrower readings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.engines import ONE_ENGINE, EngineRange
from mgrpo.errors import ConfigProblem

Parents = Literal["all", "wrong_only", "wrong_first", "uniform_k", "best"]
GroupBy = Literal["parent", "query", "batch"]
Select = Literal["none", "groups_with_success", "success_only_post_norm", "success_only_pre_norm"]
Success = Literal["final_correct", "strict_fix", "improves"]
Advantage = Literal["group_z", "improvement", "const_positive", "raw_reward", "none"]
TieBreak = Literal["random_seeded", "first", "shortest", "highest_logprob"]
AllFail = Literal["use_any", "skip_query", "plain_grpo_on_q"]
Denominator = Literal["sampled", "retained", "per_parent"]
Aggregation = Literal["seq_mean", "token_mean", "fixed_length"]
Layout = Literal["review_chat", "self_continue", "user_quote"]
Quote = Literal["full", "answer_only"]
GuidanceDraw = Literal["per_parent", "per_correction", "fixed", "weighted", "schedule"]

GUIDANCE_PHRASES = (
    "Which step could be wrong here? I will go through it again slowly.",
    "Hold on, I should verify that.",
    "One moment, I want to be certain there is no slip.",
    "Perhaps a different route to the answer exists.",
    "Maybe I can look at it from this side:",
    "A further idea: I could",
    "Before I finish, did I overlook something the problem states?",
)
"""Seven first-person hesitations that open a correction (MGRPO; wording is ours)."""

SOLVE_SYSTEM_PROMPT = (
    "You solve mathematics problems. Reason step by step, then give the result as \\boxed{result}."
)
REVIEW_SYSTEM_PROMPT = (
    "You are re-examining an attempt at a mathematics problem. Look for any slip in the reasoning "
    "or in the result. If one exists, produce a repaired solution; if none exists, confirm the "
    "solution. Then give the result as \\boxed{result}."
)


class GuidanceConfig(StrictConfig):
    """The phrase that opens a correction."""

    phrases: list[str] = Field(default=list(GUIDANCE_PHRASES), min_length=1)
    draw: GuidanceDraw = "per_parent"
    """Once per parent keeps a group's prompts equal; per_correction does not."""
    fixed_index: int = Field(default=0, ge=0)
    """Which phrase `draw: fixed` uses."""
    weights: list[float] | None = None
    """One weight per phrase, for `draw: weighted`."""

    @model_validator(mode="after")
    def check_indices(self) -> GuidanceConfig:
        count = len(self.phrases)
        problems = []
        if self.fixed_index >= count:
            problems.append(
                ConfigProblem(
                    "fixed_index",
                    str(self.fixed_index),
                    f"there are only {count} phrases.",
                    f"Valid: 0 to {count - 1}.",
                )
            )
        if self.draw == "weighted" and self.weights is None:
            problems.append(
                ConfigProblem("weights", "None", "draw: weighted needs weights.", f"Give {count}.")
            )
        if self.weights is not None and (
            len(self.weights) != count or min(self.weights) < 0 or sum(self.weights) <= 0
        ):
            problems.append(
                ConfigProblem(
                    "weights",
                    str(self.weights),
                    "must be one number per phrase, 0 or more, not all 0.",
                    f"There are {count} phrases.",
                )
            )
        if problems:
            raise RelationError(problems)
        return self


class LayerConfig(StrictConfig):
    """One layer of the chain. Keys marked "layer 2 on" have no effect in the first layer."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    group_size: int = Field(ge=2)
    """Completions per prompt (G in layer 1, H per parent in later layers). Advantages compare
    within a group, so one is not enough."""
    max_completion_tokens: PositiveInt = 1024
    """Longest completion, in tokens; a longer one ends with finish_reason "length"."""
    loss_weight: float = Field(default=1.0, ge=0)
    """Factor on this layer's loss. 0 samples the layer without training on it."""
    kl_weight: float | None = Field(default=None, ge=0)
    """This layer's factor on the KL term; null: objective.kl.weight."""
    aggregation: Aggregation = "seq_mean"
    """How token losses become one number: seq_mean (GRPO), token_mean (DAPO), fixed_length
    (Dr. GRPO; divides by max_completion_tokens)."""
    num_engines: EngineRange = ONE_ENGINE
    """vLLM engines that serve this layer (unless engines.shared): a number, or {min: 1, max: 4}
    for as many as the layer has work for."""
    system_prompt: str | None = None
    """None takes the layer's default; "" leaves the system turn out."""
    user_template: str | None = None
    """The user turn. {problem} stands for the question and, with layout user_quote, {attempt} and
    {guidance} for the quoted attempt and the phrase. None takes the layout's default."""

    parents: Parents = "all"
    """Layer 2 on: which completions of the layer before are given back for correction."""
    parents_k: PositiveInt | None = None
    """Parents per problem for wrong_first, uniform_k and best (default 1)."""
    tie_break: TieBreak = "random_seeded"
    """Which of several attempts with the highest reward is `best`: any, the first, the one of
    fewest tokens, or the one that the policy found likeliest per token."""
    all_fail: AllFail = "use_any"
    """With parents: best, when no attempt has a reward above 0: take the best all the same, ask
    for nothing (skip_query), or sample this layer from the bare problem (plain_grpo_on_q)."""
    group_by: GroupBy = "parent"
    """Layer 2 on: which corrections are compared: those of one parent, of one problem (query),
    or all of the step (batch)."""
    select: Select = "groups_with_success"
    """Layer 2 on: which corrections train."""
    success: Success = "final_correct"
    """What `select` counts as a success: the answer is right, it is right and the parent was
    wrong (strict_fix), or its reward is above the parent's (improves)."""
    advantage: Advantage = "group_z"
    """group_z: the group's z-score; improvement: R(correction) - R(parent); const_positive: 1
    for each success; raw_reward: the reward itself (REINFORCE); none: 0, so that the KL term
    alone trains the layer."""
    denominator: Denominator = "sampled"
    """What the layer's loss is divided by: all sampled corrections, those retained by `select`,
    or those retained per parent, averaged over parents."""
    layout: Layout = "review_chat"
    """review_chat: problem, attempt and guidance as chat turns, then a new turn; self_continue:
    the attempt's own turn goes on (exact token extension of the parent); user_quote: the attempt
    is quoted in a user turn."""
    quote: Quote = "full"
    """How much of the attempt is quoted."""
    max_quote_tokens: PositiveInt | None = None
    """Longer attempts keep their head and tail, with a mark between; None quotes all."""
    skip_truncated_parents: bool = True
    """Do not ask for corrections of attempts that ran out of tokens."""
    guidance: GuidanceConfig = GuidanceConfig()

    @model_validator(mode="after")
    def check_user_template(self) -> LayerConfig:
        if self.user_template is None:
            return self
        needed = ["{problem}"] + (["{attempt}"] if self.layout == "user_quote" else [])
        missing = [placeholder for placeholder in needed if placeholder not in self.user_template]
        if missing:
            raise RelationError(
                [
                    ConfigProblem(
                        "user_template",
                        repr(self.user_template[:60]),
                        f"must contain {' and '.join(missing)}.",
                    )
                ]
            )
        return self

    @property
    def num_parents(self) -> int:
        return self.parents_k or 1
