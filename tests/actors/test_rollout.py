from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from actors.layers import stable_seed
from actors.rollout import Rollout
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder
from cluster.fleet.leases import Choice, FixedEngines
from mgrpo.config import CorrectLayer, LayerConfig, SolveLayer
from mgrpo.config.layers import Speculation
from mgrpo.errors import RewardError
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Problem, Reward
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()
PROBLEMS = [Problem(problem_id=f"p{i}", question=f"question {i}", answer=str(i)) for i in range(3)]


class ExactScorer:
    """A completion is right when it is the answer."""

    async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
        return [
            Reward(value=float(text == problem.answer), correct=text == problem.answer)
            for text in texts
        ]


def chain(*sizes: int) -> list[LayerConfig]:
    return [
        (CorrectLayer if depth else SolveLayer)(name=f"layer{depth}", group_size=size)
        for depth, size in enumerate(sizes)
    ]


def rollout(engine: ScriptedEngine, layers: list[LayerConfig]) -> Rollout:
    return Rollout(
        engines=FixedEngines({number: [engine] for number in range(1, len(layers) + 1)}),
        scorer=ExactScorer(),
        builder=PromptBuilder(TOKENIZER),
        layers=layers,
        temperature=1.0,
        seed=0,
    )


def scripted(**keys: object) -> ScriptedEngine:
    return ScriptedEngine(
        lambda prompt, index: str(index), encode=TOKENIZER.encode, end_id=END, **keys
    )


def run(parts: Rollout, problems: list[Problem] = PROBLEMS) -> list[Completion]:
    return asyncio.run(parts.run(4, problems))


def test_a_chain_of_three_gives_the_whole_tree() -> None:
    completions = run(rollout(scripted(), chain(2, 2, 3)))
    per_layer = [sum(c.layer == layer for c in completions) for layer in (1, 2, 3)]
    assert per_layer == [3 * 2, 3 * 2 * 2, 3 * 2 * 2 * 3]
    by_id = {c.completion_id: c for c in completions}
    assert len(by_id) == len(completions)
    for child in completions:
        if child.layer > 1:
            parent = by_id[child.parent_id or ""]
            assert parent.layer == child.layer - 1 and parent.problem_id == child.problem_id
            assert child.group_key == parent.completion_id


def test_completions_of_a_group_share_their_prompt() -> None:
    groups: dict[str, set[tuple[int, ...]]] = {}
    for completion in run(rollout(scripted(), chain(2, 3))):
        groups.setdefault(completion.group_key, set()).add(tuple(completion.prompt_token_ids))
    assert all(len(prompts) == 1 for prompts in groups.values())


def test_ids_and_prompt_texts_are_what_the_record_says_of_them() -> None:
    """The example of `Completion`, and the comments of its fields."""
    completions = asyncio.run(rollout(scripted(), chain(2, 2)).run(0, PROBLEMS))
    one = next(c for c in completions if c.completion_id == "s0p0#0.1")
    assert (one.layer, one.parent_id, one.group_key) == (2, "s0p0#0", "s0p0#0")
    for said in (f"id={one.id!r}", f'parent_id="{one.parent_id}"', f'group_key="{one.group_key}"'):
        assert said in str(Completion.__doc__)
    assert (one.prompt_text, one.reference_answer) == ("", "")
    attempt = next(c for c in completions if c.completion_id == one.parent_id)
    assert (attempt.prompt_text, attempt.group_key) == ("question 0", "s0p0")
    assert attempt.reference_answer == "0"


def test_corrections_start_while_other_problems_are_still_at_layer_one() -> None:
    slow = PromptBuilder(TOKENIZER).encode("question 2")

    def pause_s(prompt: list[int]) -> float:
        text = TOKENIZER.decode(prompt)
        return 0.2 if "question 2" in text and "Hold" not in text else 0.0

    assert slow
    engine = scripted(pause_s=pause_s)
    order: list[tuple[int, int]] = []
    parts = rollout(engine, chain(2, 2))
    parts.on_progress = lambda layer, done, known: order.append((layer, done))
    run(parts)
    first_layer_done = order.index((1, 3))
    corrections_before = [event for event in order[:first_layer_done] if event[0] == 2]
    assert len(corrections_before) == 2 * 2  # both attempts of both quick problems


def test_a_refill_is_sampled_in_the_next_slot_while_others_still_are() -> None:
    """Each of the first two problems brings in another; the slow one is done after all."""

    def pause_s(prompt: list[int]) -> float:
        return 0.2 if "question 2" in TOKENIZER.decode(prompt) else 0.0

    more = [Problem(problem_id=f"p{n}", question=f"question {n}", answer=str(n)) for n in (3, 4)]
    order: list[int] = []

    def refill(tree: CompletionId, completions: list[Completion]) -> list[Problem]:
        order.append(tree.slot)
        return [more.pop(0)] if tree.slot < 2 else []

    parts = rollout(scripted(pause_s=pause_s), chain(2))
    completions = asyncio.run(parts.run(4, PROBLEMS, refill=refill))
    assert order[-1] == 2 and sorted(order) == [0, 1, 2, 3, 4]
    found = [(one.id.slot, one.problem_id) for one in completions[::2]]
    assert found == [(slot, f"p{slot}") for slot in range(5)]


def test_the_same_step_repeats_its_seeds_and_another_step_does_not() -> None:
    first, second, other = scripted(), scripted(), scripted()
    run(rollout(first, chain(2, 2)))
    run(rollout(second, chain(2, 2)))
    asyncio.run(rollout(other, chain(2, 2)).run(5, PROBLEMS))
    assert sorted(first.seeds) == sorted(second.seeds)
    assert not set(first.seeds) & set(other.seeds)


def test_every_layer_asks_for_its_own_numbers_at_the_rollouts_temperature() -> None:
    engine = scripted()
    layers = [
        SolveLayer(name="solve", group_size=3, max_completion_tokens=11),
        CorrectLayer(
            name="correct",
            group_size=2,
            max_completion_tokens=7,
            speculation=Speculation(max_draft_tokens=3),
            stop=["Q:"],
        ),
    ]
    parts = rollout(engine, layers)
    parts.temperature = 0.6
    run(parts)
    common = {"temperature": 0.6, "speculation": None, "stop": None}
    first = {**common, "num_samples": 3, "max_tokens": 11}
    second = {"temperature": 0.6, "speculation": layers[1].speculation, "stop": layers[1].stop}
    second |= {"num_samples": 2, "max_tokens": 7}
    asked = [{name: one[name] for name in first} for one in engine.asked]
    assert asked.count(first) == len(PROBLEMS)
    assert asked.count(second) == 3 * len(PROBLEMS) == len(engine.asked) - len(PROBLEMS)


def test_each_request_has_the_seed_of_the_first_completion_that_it_makes() -> None:
    """Corrections of one attempt under several phrases are several requests: not one seed."""
    engine = scripted()
    guidance = {"phrases": ["a", "b", "c"], "draw": "per_correction"}
    layers = [
        SolveLayer(name="solve", group_size=2),
        CorrectLayer.model_validate({"name": "correct", "group_size": 8, "guidance": guidance}),
    ]
    parts = rollout(engine, layers)
    parts.seed = 5
    completions = run(parts)
    firsts: dict[tuple[str, int | None], int] = {}
    for one in completions:
        prefix, _, number = one.completion_id.rpartition("." if one.layer == 2 else "#")
        place = (prefix + (".", "#")[one.layer == 1], one.guidance_id)
        firsts[place] = min(firsts.get(place, 99), int(number))
    expected = [stable_seed(5, prefix, first) for (prefix, _), first in firsts.items()]
    assert sorted(engine.seeds) == sorted(expected)
    assert len(set(engine.seeds)) == len(engine.seeds) > 4 * len(PROBLEMS)
    assert any(first > 0 for first in firsts.values())


def test_a_plug_in_s_samples_have_the_rollouts_temperature_or_their_own() -> None:
    engine = scripted()
    parts = rollout(engine, chain(2))
    parts.temperature = 0.8
    for own in ({}, {"temperature": 0.0}):
        asyncio.run(parts.generate(1, Prompt.of([5]), num_samples=2, max_tokens=9, seed=13, **own))
    assert [one["temperature"] for one in engine.asked] == [0.8, 0.0]
    assert [(one["num_samples"], one["max_tokens"]) for one in engine.asked] == [(2, 9)] * 2
    assert engine.seeds == [13, 13]


def test_work_goes_to_the_least_busy_engine() -> None:
    engines = [scripted(name=f"e{i}", pause_s=lambda prompt: 0.01) for i in range(2)]
    parts = rollout(engines[0], chain(2))
    parts.engines = FixedEngines({1: engines})
    run(parts, PROBLEMS * 2)
    assert [len(engine.prompts) for engine in engines] == [3, 3]
    assert [engine.num_inflight for engine in engines] == [0, 0]


@pytest.mark.parametrize(
    ("num_inflight", "rather_not", "chosen"),
    [
        ({"a": 0, "b": 2}, (), "b"),  # as busy as the request makes another
        ({"a": 0, "b": 3}, (), "a"),  # busier
        ({"a": 0, "b": 2}, ("b",), "a"),
        ({"b": 9}, ("b",), "b"),  # the only one
    ],
)
def test_a_request_goes_where_its_prompt_begins_unless_that_engine_is_busier(
    num_inflight: dict[str, int], rather_not: tuple[str, ...], chosen: str
) -> None:
    engines = [scripted(name=name) for name in num_inflight]
    for engine in engines:
        engine.num_inflight = num_inflight[engine.name]
    assert Choice(rather_not, rather="b", slack=2).of(engines).name == chosen


def test_corrections_go_to_the_engine_of_their_attempt() -> None:
    engines = [scripted(name=f"e{i}", pause_s=lambda prompt: 0.01) for i in range(2)]
    parts = rollout(engines[0], chain(2, 2))
    parts.engines = FixedEngines({1: engines, 2: engines})
    found = {one.completion_id: one for one in run(parts, PROBLEMS * 2)}
    pairs = [(one, found[one.parent_id]) for one in found.values() if one.parent_id is not None]
    assert {attempt.engine for _, attempt in pairs} == {"e0", "e1"}
    assert all(correction.engine == attempt.engine for correction, attempt in pairs)


def test_layers_can_be_sampled_one_after_the_other() -> None:
    parts = rollout(scripted(), chain(2, 2))
    whole = run(parts)
    attempts = asyncio.run(parts.run(4, PROBLEMS, last_layer=1))
    corrections = asyncio.run(parts.run(4, PROBLEMS, first_layer=2, attempts=attempts))
    assert {c.completion_id for c in attempts + corrections} == {c.completion_id for c in whole}


def test_a_failure_comes_out_as_itself() -> None:
    class Broken(ExactScorer):
        async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
            raise RewardError("the pool is closed")

    parts = rollout(scripted(), chain(2, 2))
    parts.scorer = Broken()
    with pytest.raises(RewardError, match="pool is closed"):
        run(parts)


@pytest.mark.parametrize(
    ("layout", "openings"),
    [("review_chat", {"<think>"}), ("user_quote", {"<think>"}), ("self_continue", {"<think>", ""})],
)
def test_checks_are_told_what_the_prompt_has_written_of_the_answer(
    layout: str, openings: set[str]
) -> None:
    class Opening(ByteTokenizer):
        def apply_chat_template(self, conversation: Any, **kwargs: Any) -> str:
            text = super().apply_chat_template(conversation, **kwargs)
            return text + "<think>" * kwargs["add_generation_prompt"]

    class Listening(ExactScorer):
        told: ClassVar[list[str | None]] = []

        async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
            self.told.append(problem.prompt_opening)
            return await super().score(problem, texts)

    layers = chain(2, 2)
    layers[1] = CorrectLayer(name="layer1", group_size=2, layout={"type": layout})
    parts = rollout(scripted(), layers)
    parts.builder, parts.scorer = PromptBuilder(Opening()), Listening()
    Listening.told.clear()
    run(parts, PROBLEMS[:1])
    assert Listening.told[0] == "<think>"  # of layer 1
    assert set(Listening.told) == openings
