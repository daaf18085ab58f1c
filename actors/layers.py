"""From one layer's completions to the next layer's prompts. Pure, and seeded.

The attempts to correct (`parents`), the guidance phrase of each correction (`guidance`), and the
resulting prompt-token sequences. Nothing here samples.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actors.templates import PromptBuilder, guidance_text
from mgrpo.config.guidance import (
    CheckGuidance,
    DrawFixed,
    DrawPerCorrection,
    DrawSchedule,
    DrawWeighted,
)
from mgrpo.config.layers import (
    AllParents,
    BestParents,
    LaterLayer,
    LayerConfig,
    OneOfEachParents,
    RejectedParents,
    SelfContinue,
    TieBreak,
    WrongFirstParents,
    WrongParents,
)
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Problem, Reward


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptRequest:
    """One prompt and how many completions of it are wanted."""

    prompt: Prompt
    num_samples: int
    group_key: str
    parent_id: str | None
    guidance_id: int | None
    feedback: str | None = None  # the check's text in the prompt; None: the layer does not ask
    feedback_tokens: int = 0
    within: CompletionId  # completions are its children, numbered from `first_index`
    first_index: int = 0
    num_spare: int = 0  # further ones are begun, and all but the shortest aborted
    attempt_reward: Reward | None = None  # what the check says of the attempt, for a verdict
    attempt_engine: str = ""  # that sampled the attempt, and may hold it in its prefix cache
    prompt_opening: str = ""  # what the prompt has already written of the answer

    @property
    def id_prefix(self) -> str:
        """What the printed ids of its completions begin with."""
        return f"{self.within}{'.' if self.within.path else '#'}"


def stable_seed(*parts: object) -> int:
    """A 31-bit seed from anything printable, the same in every process and on every run."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def solve_request(
    builder: PromptBuilder, layer: LayerConfig, problem: Problem, *, tree: CompletionId
) -> PromptRequest:
    """Layer 1's request for the problem that a tree of the step is of."""
    return PromptRequest(
        prompt=Prompt.of(builder.solve_prompt(layer, problem)),
        num_samples=layer.group_size,
        group_key=str(tree),
        parent_id=None,
        guidance_id=None,
        within=tree,
        prompt_opening=builder.chat.opening,
    )


def choose_parents(
    layer: LaterLayer, attempts: Sequence[Completion], rng: random.Random
) -> list[Completion]:
    """The attempts of one problem that are corrected."""
    usable, parents = correctable(layer, attempts), layer.parents
    if isinstance(parents, AllParents):
        return usable
    if isinstance(parents, WrongParents):
        return [attempt for attempt in usable if not attempt.is_correct]
    if isinstance(parents, RejectedParents):
        usable = rejected(usable)
        if parents.k is None:
            return usable
    shuffled = rng.sample(usable, len(usable))
    if isinstance(parents, OneOfEachParents):
        of_each = list({one.is_correct: one for one in shuffled}.values())
        return of_each if len(of_each) == parents.k else []
    if isinstance(parents, WrongFirstParents):
        shuffled.sort(key=lambda attempt: attempt.is_correct)
    elif isinstance(parents, BestParents):
        if parents.all_fail != "use_any" and all_failed(usable):
            return []
        shuffled.sort(
            key=lambda attempt: (-reward_of(attempt), *tie_rank(parents.tie_break, attempt))
        )
    return shuffled[: parents.k]


def correctable(layer: LaterLayer, attempts: Sequence[Completion]) -> list[Completion]:
    """Attempts that may be corrected. Those whose check failed (timeout, error) never are: their
    correctness is unknown."""
    return [
        attempt
        for attempt in attempts
        if attempt.reward is not None
        and attempt.reward.is_usable
        and not (layer.skip_truncated_parents and attempt.is_truncated)
    ]


def rejected(verdicts: Sequence[Completion]) -> list[Completion]:
    """Verdicts that do not say that their attempt is right."""
    return [one for one in verdicts if not one.accepts]


def reward_of(attempt: Completion) -> float:
    return attempt.reward.value if attempt.reward is not None else 0.0


def all_failed(attempts: Sequence[Completion]) -> bool:
    """No attempt has a reward above 0."""
    return all(reward_of(attempt) <= 0 for attempt in attempts)


def tie_rank(tie_break: TieBreak, attempt: Completion) -> tuple[float, ...]:
    """The sort key of attempts with equal reward, lowest first; () keeps the drawn order."""
    if tie_break == "first":
        return (attempt.id.path[-1],)
    if tie_break == "shortest":
        return (len(attempt.token_ids), attempt.id.path[-1])
    if tie_break == "highest_logprob":
        total = float(attempt.rollout_logprobs.sum(dtype=np.float64))
        return (-total / max(1, len(attempt.rollout_logprobs)), attempt.id.path[-1])
    return ()


def falls_back_to_problem(layer: LaterLayer, attempts: Sequence[Completion]) -> bool:
    """Whether this layer answers the problem alone, because every attempt at it failed."""
    return (
        isinstance(layer.parents, BestParents)
        and layer.parents.all_fail == "plain_grpo_on_q"
        and any(one.reward is not None and one.reward.is_usable for one in attempts)
        and all_failed(correctable(layer, attempts))
    )


def draw_guidance(layer: LaterLayer, rng: random.Random, *, step: int) -> list[int]:
    """A phrase's index for each of a parent's corrections: [group_size]."""
    draw, indices = layer.guidance.draw, range(len(layer.guidance.phrases))
    if isinstance(draw, DrawFixed):
        return [draw.index] * layer.group_size
    if isinstance(draw, DrawSchedule):
        return [step % len(indices)] * layer.group_size
    if isinstance(draw, DrawPerCorrection):
        return [rng.choice(indices) for _ in range(layer.group_size)]
    if isinstance(draw, DrawWeighted):
        return rng.choices(indices, weights=draw.weights) * layer.group_size
    return [rng.choice(indices)] * layer.group_size


def correction_requests(
    builder: PromptBuilder,
    layer: LaterLayer,
    problem: Problem,
    parent: Completion,
    guidance_ids: Sequence[int],
) -> list[PromptRequest]:
    """One request per different phrase, in the phrases' order of appearance.

    With one phrase per parent (the default) that is one prompt sampled group_size times, so
    the group's prompts are equal to the token.
    """
    requests = []
    first_index = 0
    feedback_ids = builder.feedback_ids(layer, parent.reward.feedback if parent.reward else "")
    feedback = builder.decode(feedback_ids) if isinstance(layer.guidance, CheckGuidance) else None
    for guidance_id in dict.fromkeys(guidance_ids):
        count = list(guidance_ids).count(guidance_id)
        prompt_token_ids = builder.correction_prompt(
            layer,
            problem,
            parent_prompt_ids=parent.prompt_token_ids,
            parent_ids=parent.token_ids,
            guidance=guidance_text(
                layer, layer.guidance.phrases[guidance_id], has_feedback=bool(feedback_ids)
            ),
            feedback_ids=feedback_ids,
            parent_answer=parent.reward.extracted_answer if parent.reward else None,
        )
        requests.append(
            PromptRequest(
                prompt=Prompt.of(prompt_token_ids),
                num_samples=count,
                group_key=parent.completion_id,
                # Behind a verdict it is the attempt that is corrected.
                parent_id=parent.completion_id if parent.accepts is None else parent.parent_id,
                guidance_id=guidance_id,
                feedback=feedback,
                feedback_tokens=len(feedback_ids),
                within=parent.id,
                first_index=first_index,
                attempt_reward=parent.reward,
                attempt_engine=parent.engine,
                # A turn that goes on was opened long ago.
                prompt_opening=(
                    "" if isinstance(layer.layout, SelfContinue) else builder.chat.opening
                ),
            )
        )
        first_index += count
    return requests


def split_requests(
    requests: Sequence[PromptRequest], count: int
) -> tuple[list[PromptRequest], list[PromptRequest]]:
    """Requests for the first `count` of the completions, and for the others."""
    first, others = [], []
    for one in requests:
        taken = min(count, one.num_samples)
        count -= taken
        left = one.num_samples - taken
        if taken:
            first.append(replace(one, num_samples=taken))
        if left:
            others.append(replace(one, num_samples=left, first_index=one.first_index + taken))
    return first, others
