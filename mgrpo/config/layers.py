"""The layer chain: sampling, parents and training of each layer.

GRPO is a chain of one layer, MGRPO (arXiv 2506.04746) a chain of two: the first solves, every
later one corrects, or gives a verdict (`kind: verify`). Options that the paper does not settle are
keys here; the defaults are what we recommend, and `mgrpo/recipes/strict_fix.yaml` and
`mgrpo/recipes/success_only.yaml` are narrower readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from mgrpo.config.advantages import CorrectAdvantage, GroupZ, SolveAdvantage
from mgrpo.config.aggregations import Aggregation, SeqMean
from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.engines import ONE_ENGINE, EngineRange
from mgrpo.config.guidance import (
    SPELLED,
    CheckGuidance,
    DrawPerCorrection,
    Guidance,
    PhraseGuidance,
)
from mgrpo.config.slots import by_name
from mgrpo.errors import ConfigFault

GroupBy = Literal["parent", "query", "batch"]
Select = Literal["none", "groups_with_success", "success_only_post_norm", "success_only_pre_norm"]
Success = Literal["final_correct", "strict_fix", "improves"]
TieBreak = Literal["random_seeded", "first", "shortest", "highest_logprob"]
AllFail = Literal["use_any", "skip_query", "plain_grpo_on_q"]
Denominator = Literal["sampled", "retained", "per_parent"]
Quote = Literal["full", "answer_only"]

SOLVE_SYSTEM_PROMPT = (
    "You solve mathematics problems. Reason step by step, then give the result as \\boxed{result}."
)
REVIEW_SYSTEM_PROMPT = (
    "You are re-examining an attempt at a mathematics problem. Look for any slip in the reasoning "
    "or in the result. If one exists, produce a repaired solution; if none exists, confirm the "
    "solution. Then give the result as \\boxed{result}."
)
VERIFY_SYSTEM_PROMPT = (
    "You are checking an attempt at a problem. Go through it step by step. If a step is wrong, "
    "name it, say why, and end with: {wrong}. If all steps are right, end with: {right}."
)


class AllParents(StrictConfig):
    """Every attempt. The other kinds' layer loss has a mean over fewer parents; what each says of
    its expectation is for problems with equally many attempts that may be corrected."""

    type: Literal["all"] = "all"


class WrongParents(StrictConfig):
    """Every wrong attempt: another objective, in which nothing protects right attempts from
    corrections that spoil them."""

    type: Literal["wrong_only"] = "wrong_only"


class WrongFirstParents(StrictConfig):
    """k attempts of each problem, wrong ones before right ones.

    Another objective than all attempts, which no weight could undo: where k attempts are wrong, the
    corrections of right ones have no chance to be sampled.
    """

    type: Literal["wrong_first"] = "wrong_first"
    k: PositiveInt = 1
    """Parents per problem."""


class UniformParents(StrictConfig):
    """k attempts of each problem, drawn without replacement by the run's seed.

    Each attempt has the same chance, and the layer's loss is a mean over those drawn: its
    expectation is the mean over all attempts, without further weights. k: 1 is one parent per
    problem.
    """

    type: Literal["uniform_k"] = "uniform_k"
    k: PositiveInt = 1
    """Parents per problem."""


class BestParents(StrictConfig):
    """The k attempts of each problem with the highest reward."""

    type: Literal["best"] = "best"
    k: PositiveInt = 1
    """Parents per problem."""
    tie_break: TieBreak = "random_seeded"
    """The tie-break among attempts with the highest reward: random, the first, the shortest, or the
    likeliest per token."""
    all_fail: AllFail = "use_any"
    """If no attempt has a reward above 0: use the best anyway, sample no corrections (skip_query),
    or sample this layer from the problem alone (plain_grpo_on_q)."""


class OneOfEachParents(StrictConfig):
    """A right and a wrong attempt of each problem that has both, drawn by the run's seed, so that
    half of the parents are right; of other problems none."""

    type: Literal["one_of_each"] = "one_of_each"

    @property
    def k(self) -> int:
        """Parents per problem, at most."""
        return 2


class RejectedParents(StrictConfig):
    """Behind a verify layer: every attempt whose verdict does not say that it is right (PAG,
    arXiv 2506.10406). What is revised is the attempt, in evaluations too: an accepted one stands.
    """

    type: Literal["rejected"] = "rejected"
    k: PositiveInt | None = None
    """At most so many verdicts of each problem, drawn without replacement by the run's seed; null:
    all. An evaluation has no such limit."""


Parents = Annotated[
    AllParents
    | WrongParents
    | WrongFirstParents
    | UniformParents
    | BestParents
    | OneOfEachParents
    | RejectedParents,
    Field(discriminator="type"),
    by_name("all"),
]


class QuotedAttempt(StrictConfig):
    """Keys of layouts that quote the attempt in separate turns."""

    quote: Quote = "full"
    """How much of the attempt is quoted."""
    max_quote_tokens: PositiveInt | None = None
    """Longer attempts keep their head and tail, with a mark between; None quotes all."""


class ReviewChat(QuotedAttempt):
    """Problem, attempt and guidance as chat turns, then a new turn."""

    type: Literal["review_chat"] = "review_chat"


class UserQuote(QuotedAttempt):
    """The attempt is quoted in a user turn."""

    type: Literal["user_quote"] = "user_quote"


class SelfContinue(StrictConfig):
    """The attempt's own turn continues: an exact token extension of the whole attempt."""

    type: Literal["self_continue"] = "self_continue"


Layout = Annotated[
    ReviewChat | UserQuote | SelfContinue, Field(discriminator="type"), by_name("review_chat")
]


class NoEarlyStop(StrictConfig):
    """All corrections of a parent are sampled at once."""

    type: Literal["never"] = "never"


class StopOnAgreement(StrictConfig):
    """Some corrections of a parent first; the others only where the rewards of these differ.

    A group that is stopped has no gradient of advantages. One that would have been sampled to its
    end may have had some, so stopping takes some away: of a parent whose corrections are right with
    probability p, its expected gradient without division by the spread is multiplied by

        1 - n (p^(m-1) (m + (n-1) p) + q^(m-1) (m + (n-1) q)) / (H (H-1)),  q = 1 - p, n = H - m

    with m corrections first of H. It keeps its direction, and loses the more the closer p is to 0
    or 1: at these ends m / H remains. With go_on_chance above 0 nothing is lost in expectation,
    for any advantage of the group. The layer's denominator counts a stopped group as a whole one.

    Rewards are those of the checks: what plug-ins would have made of equal ones is not waited for.
    A layer above has fewer parents, and a rollout plug-in sees a group's parts one after the other.
    """

    type: Literal["agreement"] = "agreement"
    first: int = Field(default=2, ge=2)
    """Corrections of each parent that are sampled first."""
    go_on_chance: float = Field(default=0.0, ge=0, lt=1)
    """The chance that a group is sampled to its end although its first rewards agree; its loss
    then has the weight 1 / go_on_chance, and that of a stopped one 0 (Russian roulette): no bias,
    more variance. 0 stops them all."""


EarlyStop = Annotated[NoEarlyStop | StopOnAgreement, Field(discriminator="type"), by_name("never")]


class Speculation(StrictConfig):
    """Drafts a layer's completions from what its prompt says and what is written so far, so that a
    decode step may yield several tokens (speculative decoding).

    Completions are the same as without: a drafted token stands only where the policy samples it.
    """

    method: Literal["ngram"] = "ngram"
    """ngram: what followed the newest tokens where they last occurred."""
    max_draft_tokens: int = Field(default=8, ge=1, le=64)
    """Longest draft, in tokens. A decode step computes all of them, whether they stand or not."""
    match_tokens: int = Field(default=2, ge=1, le=16)
    """Newest tokens that must have occurred before. A draft is shorter than what repeats."""


class Stop(StrictConfig):
    """What ends a layer's completions, beside the end of the assistant's turn. In training and in
    evaluation alike, so that both are of the same policy."""

    texts: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """A completion ends with the token that completes one of these. Its tokens train with those of
    the text that ended it, which were sampled too."""
    tokens: list[str | int] = Field(default_factory=list)
    """Tokens, as text or ids. model.stop_tokens are those of every layer."""
    keep_text: bool = False
    """Whether checks read what ended the completion: true for a check that looks for
    "</answer>"."""


def stop_texts(value: object) -> object:
    """Stop texts may be written without the section."""
    given = [value] if isinstance(value, str) else value
    return {"texts": given} if isinstance(given, list) else given


STOP_FORMS = BeforeValidator(stop_texts, json_schema_input_type=Stop | list[str] | str)


class LayerBase(StrictConfig):
    """Keys of every layer."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    group_size: int = Field(ge=2)
    """Completions per prompt (G in layer 1, H per parent in later layers). Advantages compare
    within a group, so one is not enough."""
    over_sample: NonNegativeInt = 0
    """Completions that are begun of each prompt beyond group_size. The group_size shortest are
    kept, and each of the others is aborted once it is longer than these, so that no group waits for
    its longest ones. What is kept is biased towards short completions: one of length l is kept with
    the probability that at most group_size - 1 of the others are shorter. 0 has no bias."""
    max_completion_tokens: PositiveInt = 1024
    """Longest completion, in tokens; a longer one ends with finish_reason "length"."""
    stop: Annotated[Stop, STOP_FORMS] = Stop()
    """What ends completions beside the end of the turn: texts, such as ["\\nQ:"], or a section."""
    loss_weight: float = Field(default=1.0, ge=0)
    """Factor on this layer's loss. 0 samples the layer without training on it."""
    kl_weight: float | None = Field(default=None, ge=0)
    """This layer's factor on the KL term; null: objective.kl.weight."""
    aggregation: Aggregation = SeqMean()
    """Aggregation of token losses: seq_mean (GRPO), token_mean (DAPO), fixed_length (Dr. GRPO)."""
    num_engines: EngineRange = ONE_ENGINE
    """vLLM engines that serve this layer (unless engines.shared): a number, or {min: 1, max: 4}
    for as many as the layer has work for."""
    speculation: Speculation | None = None
    """Drafts this layer's completions, for speed alone; null: not."""
    system_prompt: str | None = None
    """None takes the layer's default, which suits the checks: it asks for a \\boxed{} result or a
    block of code where they read one, and the first layer has none with your own checks. "" omits
    the system turn. A problem whose row has a system turn of its own keeps that one, in every
    layer."""
    user_template: str | None = None
    """The last user turn; those of a row's earlier turns stay as they are. {problem} stands for the
    question and, with layout user_quote, {attempt} and {guidance} for the quoted attempt and its
    guidance. None takes the layout's default."""

    @model_validator(mode="after")
    def check_user_template(self) -> LayerBase:
        if self.user_template is None:
            return self
        missing = [name for name in self.needed_in_template() if name not in self.user_template]
        if missing:
            shown = repr(self.user_template[:60])
            reason = f"must contain {' and '.join(missing)}."
            raise RelationError([ConfigFault("user_template", shown, reason)])
        return self

    def needed_in_template(self) -> list[str]:
        return ["{problem}"]


class SolveLayer(LayerBase):
    """The first layer: it answers the problem."""

    kind: Literal["solve"] = "solve"
    advantage: SolveAdvantage = GroupZ()
    """group_z: the group's z-score; const_positive: 1 for each success; raw_reward: the reward
    itself (REINFORCE); none: 0, so that the KL term alone trains the layer; or a method's own."""


class LaterLayer(LayerBase):
    """Keys of a layer that reads completions of the layer before: its parents."""

    kind: Literal["correct", "verify"]
    group_size: int = Field(ge=1)
    """Completions per parent (H). 1, where completions of different parents are compared
    (group_by), makes each attempt the beginning of a chain of turns."""
    parents: Parents = AllParents()
    """The completions of the layer before that are corrected, or verified."""
    group_by: GroupBy = "parent"
    """The corrections that form a group: those of one parent, of one problem (query), or all of the
    step (batch)."""
    select: Select = "groups_with_success"
    """The corrections that train."""
    advantage: CorrectAdvantage = GroupZ()
    """As in the first layer, or improvement: R(correction) - R(parent)."""
    denominator: Denominator = "sampled"
    """The denominator of the layer's loss: all sampled corrections, those retained by `select`,
    or those retained per parent, averaged over parents."""
    layout: Layout = ReviewChat()
    """review_chat: problem, attempt and guidance as chat turns, then a new turn; self_continue: the
    attempt's own turn continues (exact token extension of the parent); user_quote: the attempt is
    quoted in a user turn."""
    skip_truncated_parents: bool = True
    """Sample no corrections of truncated attempts."""
    early_stop: EarlyStop = NoEarlyStop()
    """never: all corrections of a parent at once; agreement: some first, the others only where the
    rewards of these differ."""
    guidance: Guidance = PhraseGuidance()
    """What opens a correction behind the attempt. phrases: a drawn phrase; check: what the check
    said of the attempt (`guidance: {from: check}`), and a phrase where it said nothing."""

    @model_validator(mode="after")
    def check_group_size(self) -> LaterLayer:
        """One completion of a parent trains only where it is compared with those of others."""
        if self.group_size == 1 and self.group_by == "parent" and self.loss_weight > 0:
            reason = "must be 2 or more where completions of one parent are compared."
            hint = "To compare, one is not enough. Nearest valid value: 2; or set group_by: query."
            raise RelationError([ConfigFault("group_size", "1", reason, hint)])
        return self

    @model_validator(mode="after")
    def check_turns(self) -> LaterLayer:
        """self_continue has no separate turn with keys."""
        if not isinstance(self.layout, SelfContinue):
            return self
        written = {"system_prompt": self.system_prompt, "user_template": self.user_template}
        why = "has no effect with layout: self_continue, which opens no new turn."
        faults = [
            ConfigFault(key, repr(value[:40]), why, "Remove the key.")
            for key, value in written.items()
            if value is not None
        ]
        if faults:
            raise RelationError(faults)
        return self

    @model_validator(mode="after")
    def check_early_stop(self) -> LaterLayer:
        """A stopped group must have no gradient, and the layer's denominator must know its size."""
        if self.over_sample and isinstance(self.guidance.draw, DrawPerCorrection):
            reason = (
                "needs one prompt for a parent's corrections, which draw: per_correction has not."
            )
            raise RelationError(
                [ConfigFault("over_sample", str(self.over_sample), reason, "Use 0.")]
            )
        if not isinstance(self.early_stop, StopOnAgreement):
            return self
        why = "does not go with early_stop: agreement, "
        faults = []
        if self.early_stop.first >= self.group_size:
            reason = f"leaves nothing of {self.group_size} corrections to stop."
            hint = f"Use at most {self.group_size - 1}."
            faults.append(ConfigFault("early_stop.first", str(self.early_stop.first), reason, hint))
        if not isinstance(self.advantage, GroupZ):
            reason = why + "as equal rewards have a gradient."
            faults.append(ConfigFault("advantage", self.advantage.type, reason, "Use group_z."))
        for key, value, needed in (
            ("group_by", self.group_by, "parent"),
            ("denominator", self.denominator, "sampled"),
            ("over_sample", self.over_sample, 0),
        ):
            if value != needed:
                reason = why + "which counts by parent what would have been sampled."
                faults.append(ConfigFault(key, str(value), reason, f"Use {needed}."))
        if faults:
            raise RelationError(faults)
        return self

    def needed_in_template(self) -> list[str]:
        if not isinstance(self.layout, UserQuote):
            return ["{problem}"]
        guided = ["{guidance}"] if isinstance(self.guidance, CheckGuidance) else []
        return ["{problem}", "{attempt}", *guided]

    @property
    def max_parents(self) -> int | None:
        """Maximum parents per problem; None: as many as the layer before has completions."""
        return None if isinstance(self.parents, AllParents | WrongParents) else self.parents.k


class CorrectLayer(LaterLayer):
    """A later layer: it corrects completions of the layer before."""

    kind: Literal["correct"] = "correct"
    success: Success = "final_correct"
    """The definition of success for `select`: the answer is right, it is right and the parent was
    wrong (strict_fix), or its reward is above the parent's (improves)."""


Phrase = Annotated[str, Field(min_length=1)]


class VerdictPhrases(StrictConfig):
    """How a verdict is read: of these phrases, in any case, the one that ends last in the text
    counts. A text with none is unreadable: its reward is 0, and it accepts nothing."""

    right: list[Phrase] = Field(default=["The answer is correct"], min_length=1)
    """Each accepts the attempt."""
    wrong: list[Phrase] = Field(default=["The answer is wrong"], min_length=1)
    """Each rejects it."""

    @model_validator(mode="after")
    def check_phrases(self) -> VerdictPhrases:
        for right, wrong in product(self.right, self.wrong):
            shorter, longer = sorted((right.casefold(), wrong.casefold()), key=len)
            if shorter in longer:
                reason = f"cannot be told from wrong: {wrong!r}, since one of them has the other."
                raise RelationError([ConfigFault("right", repr(right), reason)])
        return self


class VerifyLayer(LaterLayer):
    """A later layer: it says of completions of the layer before whether they are right.

    Its reward is its own: 1 where the verdict agrees with the check of the attempt, else 0. No
    check reads it. A layer that corrects may stand behind it; its parents are then verdicts, and
    what it corrects are their attempts.
    """

    kind: Literal["verify"] = "verify"
    select: Select = "none"
    advantage: SolveAdvantage = GroupZ()
    """As in the first layer."""
    guidance: Annotated[PhraseGuidance, by_name("phrases", spelled=SPELLED)] = PhraseGuidance(
        phrases=["I will check this solution step by step."]
    )
    """The phrase that opens a verdict behind the attempt."""
    verdict: VerdictPhrases = VerdictPhrases()
    """What a verdict says."""


LayerConfig = SolveLayer | LaterLayer
"""Any layer of the chain."""


def default_system_prompt(layer: LayerConfig) -> str:
    """The system turn of a layer that has no text of its own."""
    if isinstance(layer, VerifyLayer):
        return VERIFY_SYSTEM_PROMPT.format(
            right=layer.verdict.right[0], wrong=layer.verdict.wrong[0]
        )
    return REVIEW_SYSTEM_PROMPT if isinstance(layer, CorrectLayer) else SOLVE_SYSTEM_PROMPT


def without_feedback(layer: LayerConfig) -> LayerConfig:
    """The layer with its phrases alone as guidance."""
    if not isinstance(layer, CorrectLayer):
        return layer
    phrases = PhraseGuidance(phrases=layer.guidance.phrases, draw=layer.guidance.draw)
    return layer.model_copy(update={"guidance": phrases})


def later_layers(layers: Sequence[LayerConfig]) -> list[LaterLayer]:
    """Those that read completions of the layer before: all but the first."""
    return [layer for layer in layers if isinstance(layer, LaterLayer)]


def verify_layers(layers: Sequence[LayerConfig]) -> frozenset[int]:
    """Numbers of the layers that give verdicts, 1 for the first layer."""
    return frozenset(
        number for number, layer in enumerate(layers, start=1) if isinstance(layer, VerifyLayer)
    )
