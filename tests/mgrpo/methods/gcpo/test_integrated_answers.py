"""What the policy is asked when a group's answers are put together, and what travels with them."""

from __future__ import annotations

import dataclasses

import pytest

from actors.plugin import RolloutPlugin
from mgrpo.errors import ConfigError, DataError
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.plugin import load_plugins
from mgrpo.types import Problem
from tests.actors.byte_tokenizer import END
from tests.actors.plugins.scripted_rollout import PROBLEM, TOKENIZER, plugin, rollout, sampled
from tests.learner.builders import run_config


def script(prompt: str, index: int) -> str:
    if "Put them together" in prompt:
        return f"together{index}"
    return f"more{index}" if "Put together:" in prompt else f"answer{index}"


def run(*, group_size: int = 3, problem: Problem = PROBLEM, **settings):
    """The completions, and the texts of the prompts that were asked for, in order."""
    parts = rollout(script, [plugin("integrated_answers", **settings)], group_sizes=[group_size])
    completions = sampled(parts, problem)
    (engine,) = parts.engines.by_layer[1]
    return completions, engine


def contexts_of(one) -> AnswerContexts:
    return AnswerContexts(**one.metadata["answer_contexts"])


def test_all_answers_are_shown_and_put_together_once_and_once_more():
    completions, engine = run()
    assert len(engine.prompts) == 2
    asked = TOKENIZER.decode(engine.prompts[1])
    assert PROBLEM.question in asked and "answer0\n---\nanswer1\n---\nanswer2" in asked
    for one in completions:
        contexts = contexts_of(one)
        assert list(contexts.answers) == [two.completion_id for two in completions]
        shown = [TOKENIZER.decode(ids) for ids in contexts.integrated]
        assert shown == ["together0", "together1"]
        assert one.metadata["context_samples"] == []
        assert contexts.num_cut == 0


def test_turns_before_the_question_stand_before_it_in_contexts_too():
    turns = [{"role": "system", "content": "Theirs."}, {"role": "user", "content": "1 + 1?"}]
    turns.append({"role": "assistant", "content": "2"})
    problem = dataclasses.replace(PROBLEM, earlier_turns=turns)
    completions, engine = run(problem=problem, system_prompt="Ours.", max_context_tokens=2000)
    opening = TOKENIZER.decode(contexts_of(completions[0]).opening)
    for text in (TOKENIZER.decode(engine.prompts[1]), opening):
        assert "Theirs." in text and "1 + 1?" in text and "Ours." not in text
    alone, _ = run(
        problem=dataclasses.replace(problem, earlier_turns=turns[1:]), system_prompt="O."
    )
    assert "O." in TOKENIZER.decode(contexts_of(alone[0]).opening)


def test_a_context_holds_the_others_and_the_integrated_answer_without_ends_of_turns():
    completions, _ = run()
    second = contexts_of(completions[1]).prompt(completions[1].completion_id, 1)
    text = TOKENIZER.decode(second)
    assert "answer0\n---\nanswer2" in text and "Put together:\ntogether1" in text
    assert "answer1" not in text and "together0" not in text
    inside = second[: len(second) - len(contexts_of(completions[1]).closing)]
    assert END not in inside[len(contexts_of(completions[1]).opening) :]


def test_the_completions_themselves_are_as_they_were():
    completions, _ = run()
    plain = sampled(rollout(script, [], group_sizes=[3]))
    assert [dataclasses.replace(one, metadata={}) for one in completions] == plain


@pytest.mark.parametrize("alternatives", [1, 3])
def test_every_context_is_sampled_from_where_the_recipe_says_so(alternatives: int):
    completions, engine = run(num_alternatives=alternatives, context_samples=2)
    assert len(engine.prompts) == 2 + 3 * (1 + alternatives)
    for one in completions:
        spoken = one.metadata["context_samples"]
        assert [[TOKENIZER.decode(ids) for ids in own] for own in spoken] == [
            ["more0<end>", "more1<end>"]
        ] * (1 + alternatives)
        wanted = contexts_of(one).prompt(one.completion_id, alternatives)
        assert wanted in engine.prompts
    assert len(set(engine.seeds)) == len(engine.seeds)  # nothing is drawn twice alike


def test_answers_are_cut_to_their_ends_where_there_is_no_room():
    completions, engine = run(max_answer_tokens=3)
    assert "er0\n---\ner1\n---\ner2" in TOKENIZER.decode(engine.prompts[1])
    assert contexts_of(completions[0]).num_cut == 5
    fixed = len(engine.prompts[1]) - 3 * 3
    _, engine = run(max_context_tokens=fixed + 60)
    context = max(len(prompt) for prompt in engine.prompts[1:])
    assert context <= fixed + 60


def test_a_problem_that_leaves_no_room_is_named():
    with pytest.raises(DataError, match="context of problem p has no room for 3 answers"):
        run(max_context_tokens=60)


def test_a_question_that_holds_the_place_of_answers_is_refused():
    with pytest.raises(DataError, match="must occur once in a context"):
        run(problem=dataclasses.replace(PROBLEM, question="\ue000answers\ue001"))


def test_engines_are_laid_out_for_contexts_and_what_follows_them():
    part = plugin("integrated_answers", max_context_tokens=100, max_new_tokens=20)
    assert part.extra_tokens() == 120


@pytest.mark.parametrize(
    "settings",
    [
        {"context_template": "{problem} {answers}"},
        {"context_template": "{problem} {integrated} {answers}"},
        {"integrate_template": "{answers}"},
    ],
)
def test_templates_must_show_everything_in_order(settings):
    config = run_config(plugins=[{"use": "integrated_answers", "settings": settings}])
    with pytest.raises(ConfigError, match="must contain"):
        load_plugins(config.method_view, RolloutPlugin)
