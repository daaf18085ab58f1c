"""Streams a step's problems through the layers, without a barrier between them.

Each problem is its own task: as soon as *its* first attempts are scored, their corrections are
sampled, while other problems are still at layer 1.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.layers import PromptRequest, stable_seed
from actors.plugin import RolloutPlugin
from actors.programs import Program, Task, correction_chain, run_together
from actors.templates import PromptBuilder
from actors.verdicts import RIGHT, verdict_reward
from cluster.fleet.leases import EngineSource, sample_leased
from mgrpo.config.layers import LayerConfig, VerifyLayer
from mgrpo.errors import ConfigError, ConfigFault, task_group
from mgrpo.records.metadata import plain_metadata
from mgrpo.records.token_columns import TokenIds
from mgrpo.records.turns import Prompt, join_turns
from mgrpo.types import Completion, CompletionId, Generation, Problem, Reward

ProgressCallback = Callable[[int, int, int], None]  # layer, groups done, groups known of
TreeCallback = Callable[[CompletionId, list[Completion]], None]
"""Which problem of the step it is, and all completions of it, once the last is scored."""
Refill = Callable[[CompletionId, list[Completion]], Sequence[Problem]]
"""The same -> further problems of the step, which are sampled at once, in its next slots."""


class Scorer(Protocol):
    """The scorer's interface for a rollout."""

    async def score(
        self, problem: Problem, texts: list[str], token_ids: list[TokenIds] | None = None
    ) -> list[Reward]: ...


@dataclass
class LayerClock:
    """Start and end of a layer's work, what it sampled, and its drafts."""

    num_known: int = 0
    num_done: int = 0
    began: float | None = None
    ended: float = 0.0
    num_kept: int = 0
    num_aborted: int = 0
    kept_tokens: int = 0
    aborted_tokens: int = 0
    num_drafted: int = 0  # tokens, of the kept ones
    num_accepted: int = 0

    def count(self, generations: Sequence[Generation], num_kept: int) -> None:
        """Add up one prompt's completions, of which the first are kept."""
        lengths = [len(one.token_ids) for one in generations]
        self.num_kept += num_kept
        self.num_aborted += len(lengths) - num_kept
        self.kept_tokens += sum(lengths[:num_kept])
        self.aborted_tokens += sum(lengths[num_kept:])
        self.num_drafted += sum(one.num_drafted for one in generations[:num_kept])
        self.num_accepted += sum(one.num_accepted for one in generations[:num_kept])

    @property
    def seconds(self) -> float:
        return 0.0 if self.began is None else self.ended - self.began


@dataclass
class Rollout:
    """Settings and parts of a rollout that stay the same from step to step.

    Args:
        engines: schedules requests on engines, and is told of lost ones.
        scorer: checks completions.
        builder: makes prompts.
        layers: the chain.
        temperature: of sampling; 0 is greedy.
        seed: of the run.
        plugins: change or annotate what was sampled.
        program: what is sampled for one problem.
    """

    engines: EngineSource
    scorer: Scorer
    builder: PromptBuilder
    layers: Sequence[LayerConfig]
    temperature: float
    seed: int
    plugins: Sequence[RolloutPlugin] = ()
    program: Program = correction_chain
    on_progress: ProgressCallback | None = None
    clocks: dict[int, LayerClock] = field(default_factory=dict)
    num_plugin_tokens: int = 0  # sampled because plug-ins asked for it

    @property
    def seconds(self) -> float:
        """From the first request of the last `run` to its last answer."""
        began = [clock.began for clock in self.clocks.values() if clock.began is not None]
        return max(clock.ended for clock in self.clocks.values()) - min(began) if began else 0.0

    async def run(
        self,
        step: int,
        problems: Sequence[Problem],
        *,
        first_layer: int = 1,
        last_layer: int | None = None,
        attempts: Sequence[Completion] = (),
        slots: Sequence[int] | None = None,
        on_tree: TreeCallback | None = None,
        refill: Refill | None = None,
    ) -> list[Completion]:
        """Sample and score layers first_layer..last_layer of every problem.

        Args:
            step: seeds what is drawn.
            problems: in the step's order; a completion's id holds its slot.
            first_layer: above 1, `attempts` are layer first_layer - 1's completions.
            last_layer: None is the whole chain.
            slots: each problem's number in the step; None counts from 0.
            on_tree: called for each problem as soon as it is done, while others are sampled.
            refill: called likewise; may add problems to the step.

        Returns:
            Completions of these layers, ordered by problem, then layer.
        """
        last = last_layer or len(self.layers)
        self.clocks = {number: LayerClock() for number in range(first_layer, last + 1)}
        by_tree: dict[CompletionId, list[Completion]] = {}
        for attempt in attempts:
            by_tree.setdefault(attempt.id.tree, []).append(attempt)
        places = list(slots or range(len(problems)))
        following = itertools.count(max(places, default=-1) + 1)
        running: list[asyncio.Task[list[Completion]]] = []

        async def tree(problem: Problem, slot: int) -> list[Completion]:
            place = CompletionId(step, slot)
            task = Task(
                problem=problem,
                step=step,
                tree=place,
                first_layer=first_layer,
                last_layer=last,
                attempts=by_tree.get(place, ()),
            )
            done = await self.program(task, self)
            if on_tree is not None:
                on_tree(place, done)
            for another in refill(place, done) if refill is not None else ():
                begin(another, next(following))
            return done

        def begin(problem: Problem, slot: int) -> None:
            running.append(group.create_task(tree(problem, slot)))

        async with task_group() as group:
            for problem, slot in zip(problems, places, strict=True):
                begin(problem, slot)
        return [completion for task in running for completion in task.result()]

    async def sample_all(
        self, number: int, problem: Problem, requests: Sequence[PromptRequest]
    ) -> list[Completion]:
        """Sample and score requests of one layer at the same time."""
        return await run_together(self.sample(number, problem, request) for request in requests)

    async def sample(
        self, number: int, problem: Problem, request: PromptRequest
    ) -> list[Completion]:
        """Sample one prompt's completions and have them scored."""
        clock = self.clocks.setdefault(number, LayerClock())
        clock.num_known += 1
        clock.began = clock.began or time.monotonic()
        generations = await sample_leased(
            self.engines,
            number,
            request.prompt,
            num_samples=request.num_samples,
            max_tokens=self.layers[number - 1].max_completion_tokens,
            temperature=self.temperature,
            seed=stable_seed(self.seed, request.id_prefix, request.first_index),
            what=f"completions {request.id_prefix}* of problem {problem.problem_id}",
            num_spare=request.num_spare,
            speculation=self.layers[number - 1].speculation,
            stop=self.builder.stop_of(self.layers[number - 1]),
            priority=request.within.drawing_order,
            rather=request.attempt_engine,
        )
        clock.ended = time.monotonic()
        clock.count(generations, request.num_samples)
        generations = generations[: request.num_samples]
        problem = replace(problem, prompt_opening=request.prompt_opening)
        rewards = await self.rewards(number, problem, request, generations)
        completions = [
            self.completion(number, problem, request, index, generation, reward)
            for index, (generation, reward) in enumerate(zip(generations, rewards, strict=True))
        ]
        completions = await self.with_plugins(number, problem, completions)
        clock.num_done += 1
        if self.on_progress is not None:
            self.on_progress(number, clock.num_done, clock.num_known)
        return completions

    async def rewards(
        self,
        number: int,
        problem: Problem,
        request: PromptRequest,
        generations: Sequence[Generation],
    ) -> list[Reward]:
        """The checks' of answers; of verdicts, whether they agree with their attempt's check."""
        layer, texts = self.layers[number - 1], [one.text for one in generations]
        if isinstance(layer, VerifyLayer) and request.attempt_reward is not None:
            return [verdict_reward(text, layer.verdict, request.attempt_reward) for text in texts]
        return await self.score(problem, texts, [one.token_ids for one in generations])

    async def generate(
        self,
        layer: int,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        seed: int,
        temperature: float | None = None,
    ) -> list[Generation]:
        """For plug-ins: further ones than the step's own, from the least busy engine of a layer."""
        generations = await sample_leased(
            self.engines,
            layer,
            prompt,
            num_samples=num_samples,
            max_tokens=max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            seed=seed,
            what="a plug-in's prompt",
            stop=self.builder.stop_of(self.layers[layer - 1]),
        )
        self.num_plugin_tokens += sum(len(one.token_ids) for one in generations)
        return generations

    async def score(
        self, problem: Problem, texts: list[str], token_ids: list[TokenIds] | None = None
    ) -> list[Reward]:
        """The rewards of some completions of a problem, which are one group to the scorer."""
        return await self.scorer.score(problem, texts, token_ids)

    async def with_plugins(
        self, layer: int, problem: Problem, completions: list[Completion]
    ) -> list[Completion]:
        """One prompt's completions after the plug-ins."""
        plugins = [plugin for plugin in self.plugins if layer in plugin.layers]
        for plugin in plugins:
            completions = await plugin.after_sampling(self, layer, problem, completions)
        for plugin in plugins:
            completions = [plugin.annotate(self, completion) for completion in completions]
        return [
            replace(one, metadata=plain_metadata(one.metadata, str(one.id))) for one in completions
        ]

    def completion(
        self,
        number: int,
        problem: Problem,
        request: PromptRequest,
        index: int,
        generation: Generation,
        reward: Reward,
    ) -> Completion:
        is_verdict = isinstance(self.layers[number - 1], VerifyLayer)
        return Completion(
            id=request.within.child(request.first_index + index),
            problem_id=problem.problem_id,
            domain=problem.domain,
            layer=number,
            parent_id=request.parent_id,
            group_key=request.group_key,
            finish_reason=generation.finish_reason,
            text=generation.text,
            prompt_text=problem.question if number == 1 else "",
            reference_answer=problem.answer if number == 1 else "",
            guidance_id=request.guidance_id,
            feedback=request.feedback,
            feedback_tokens=request.feedback_tokens,
            engine=generation.engine,
            accepts=reward.extracted_answer == RIGHT if is_verdict else None,
            reward=reward,
            **join_turns([generation.turn(request.prompt)]),
        )


def with_selections(
    completions: Sequence[Completion], selections: dict[str, tuple[float, bool, str]]
) -> list[Completion]:
    """Completions with the learner's decisions filled in, for logs and reports."""
    filled = []
    for completion in completions:
        advantage, selected, reason = selections[completion.completion_id]
        filled.append(
            replace(completion, advantage=advantage, selected=selected, not_selected_because=reason)
        )
    return filled


def program_of(plugins: Sequence[RolloutPlugin]) -> Program:
    """The program of the plug-in that has one, or the chain.

    Raises:
        ConfigError: several have one.
    """
    own = {type(one).__name__: found for one in plugins if (found := one.program()) is not None}
    if len(own) > 1:
        raise ConfigError(
            [
                ConfigFault(
                    "plugins",
                    ", ".join(own),
                    "each have a program, and a problem is sampled by one.",
                    "Remove all but one of them.",
                )
            ]
        )
    return next(iter(own.values()), correction_chain)
