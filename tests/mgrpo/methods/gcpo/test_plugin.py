"""GCPO through the learner's own seam: factors of advantages, and the second KL term."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from learner.batch import build_batch
from learner.losses import kl_penalty
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.methods.gcpo.plugin import SHARE, TARGET
from mgrpo.plugin import load_plugins
from tests.learner.builders import completion, plugin, run_config, solve_layer
from tests.learner.exact import exact_loss, floats

OBJECTIVE = ObjectiveConfig(importance="none")
Z_SCORE = {"epsilon": 0.0}
OPENING, BRIDGE, CLOSING, SEPARATOR = 1, 2, 3, 4
FIRST, SECOND = 50, 51  # what the integrated answers are made of


def contexts_of(answers, num_integrated=2, **changes):
    return AnswerContexts(
        **{
            "opening": [OPENING],
            "separator": [SEPARATOR],
            "bridge": [BRIDGE],
            "closing": [CLOSING],
            "max_answer_tokens": 9,
            "answers": answers,
            "integrated": [[FIRST], [SECOND]][:num_integrated],
            **changes,
        }
    )


def with_contexts(group, samples=None, **changes):
    answers = {one.completion_id: one.token_ids.tolist() for one in group}
    contexts = contexts_of(answers, **changes)
    return [
        dataclasses.replace(
            one,
            metadata={
                "answer_contexts": dataclasses.asdict(contexts),
                "context_samples": [] if samples is None else samples,
            },
        )
        for one in group
    ]


def group(name, *rewards, lengths=None):
    return [
        completion(
            f"{name}/{n}",
            reward,
            token_ids=[10 * n] * length,
            rollout_logprobs=[-1.0] * length,
        )
        for n, (reward, length) in enumerate(
            zip(rewards, lengths or [1] * len(rewards), strict=True), start=1
        )
    ]


class Reader:
    """States by what a text ends with, log-probabilities by what its prompt shows."""

    def __init__(self, states=None, logprobs=None):
        self.states, self.by_prompt = states or {}, logprobs or {}
        self.read = []

    def last_states(self, texts, *, measurement="hidden_last"):
        self.read += texts
        return torch.stack([self.states[self.shown(one)] for one in texts]).float()

    def logprobs(self, texts, *, measurement="policy_logprobs"):
        self.read += texts
        found = [self.by_prompt[self.shown(one)] for one in texts for _ in one.token_ids]
        return floats(*found).log()

    @staticmethod
    def shown(one):
        """Which integrated answer stands in the text, and its last token where it was sampled."""
        tokens = [*one.prompt_token_ids.tolist(), *one.token_ids.tolist()]
        name = next(token for token in tokens if token in (FIRST, SECOND))
        return (name, tokens[-1]) if tokens[-1] > 60 else name


def built(completions, reader, part, *, hidden=None, policy=None):
    num_tokens = sum(len(one.token_ids) for one in completions)
    measurements = {
        "hidden_last": torch.ones(len(completions), 2) if hidden is None else hidden,
        "policy_logprobs": floats(*[0.35] * num_tokens).log() if policy is None else policy,
    }
    return build_batch(
        completions,
        [solve_layer(advantage=Z_SCORE)],
        OBJECTIVE,
        plugins=[part],
        measurements=measurements,
        policy=reader,
    )


# --- what a context shows ---


def test_a_context_shows_every_answer_but_its_own():
    contexts = contexts_of({"a": [11, 12], "b": [21], "c": [31]}, max_answer_tokens=1)
    assert contexts.prompt("b", 1) == [1, 4, 12, 4, 31, 2, SECOND, 3]
    assert contexts.num_cut == 1


# --- advantages ---


def test_the_worked_pair_of_answers():
    """z_0 (1, 0), z̄ (.5, .5), Z (1, 1), Z' (.5, 1): 1.788854 times .707107."""
    completions = with_contexts(group("q", 1.0, 0.0))
    # Z' is the mean over both integrated answers, the first included.
    reader = Reader({FIRST: floats(1, 1), SECOND: floats(0, 1)})
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    batch = built(completions, reader, plugin("gcpo", kappa=0.0), hidden=hidden)
    assert batch.rows[0].advantages == pytest.approx([1.264911], abs=1e-6)
    # The second answer's cosine is that of (0, 1) and (1, .5).
    assert batch.rows[1].advantages == pytest.approx([-0.707107 * 2 * 0.447214], abs=1e-6)
    assert batch.metrics["gcpo/turned_fraction"] == (0.0, 2.0)
    total, count = batch.metrics["gcpo/weight_mean"]
    assert (total, count) == (pytest.approx(1.788854 + 0.894427, abs=1e-6), 2.0)


def test_samples_from_contexts_take_the_place_of_the_contexts_end():
    samples = [[[61], [62]], [[61]]]
    completions = with_contexts(group("q", 1.0, 0.0), samples)
    states = {(FIRST, 61): floats(2, 0), (FIRST, 62): floats(0, 2), (SECOND, 61): floats(0, 1)}
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    batch = built(completions, Reader(states), plugin("gcpo", kappa=0.0), hidden=hidden)
    # Z is the mean (1, 1) of the two samples, as in the worked pair.
    assert batch.rows[0].advantages == pytest.approx([1.264911], abs=1e-6)


@pytest.mark.parametrize(("clamp_min", "expected"), [(None, -2.0), (0.0, 0.0), (-0.5, -0.5)])
def test_factors_below_nothing_turn_advantages_round_unless_clamped(clamp_min, expected):
    completions = with_contexts(group("q", 1.0, 0.0))
    reader = Reader({FIRST: floats(-8, 0), SECOND: floats(0, 0)})
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    part = plugin("gcpo", kappa=0.0, clamp_min=clamp_min)
    batch = built(completions, reader, part, hidden=hidden)
    found = [row.advantages[0] for row in batch.all_rows]
    assert found == pytest.approx([0.707107 * expected, -0.707107 * expected], abs=1e-6)
    assert batch.metrics["gcpo/turned_fraction"] == (2.0, 2.0)


def test_groups_have_their_own_means_and_completions_without_contexts_stay_as_they_are():
    plain = group("p", 1.0, 0.0)
    completions = [*with_contexts(group("q", 1.0, 0.0)), *plain]
    reader = Reader({FIRST: floats(1, 1), SECOND: floats(0, 1)})
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [9.0, 9.0]])
    batch = built(completions, reader, plugin("gcpo", kappa=0.0), hidden=hidden)
    found = [row.advantages[0] for row in batch.all_rows]
    assert found[0] == pytest.approx(1.264911, abs=1e-6)
    assert found[2:] == pytest.approx([0.707107, -0.707107], abs=1e-6)


def test_a_failed_check_leaves_an_answer_out_of_what_is_read():
    completions = with_contexts(group("q", 1.0, 0.0, 1.0))
    failed = dataclasses.replace(completions[2].reward, status="timeout")
    completions[2] = dataclasses.replace(completions[2], reward=failed)
    reader = Reader({FIRST: floats(1, 1), SECOND: floats(0, 1)})
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0]])
    batch = built(completions, reader, plugin("gcpo", kappa=0.0), hidden=hidden)
    assert len(reader.read) == 4  # two answers, two integrated ones
    assert batch.rows[0].advantages == pytest.approx([1.264911], abs=1e-6)


# --- the second KL term ---


def kl_batch(part, *, lengths=(2, 3)):
    completions = with_contexts(group("q", 1.0, 0.0, lengths=list(lengths)))
    # The mean over both is .3 where the first is .4.
    reader = Reader(logprobs={FIRST: 0.4, SECOND: 0.2})
    return built(completions, reader, part), reader


def test_the_worked_token_of_the_second_kl():
    part = plugin("gcpo", reweight=False)
    batch, _ = kl_batch(part)
    own, added = batch.rows[:2], batch.rows[2:]
    assert [row.completion_id for row in added] == ["q/1 (in context)", "q/2 (in context)"]
    for row, in_context in zip(own, added, strict=True):
        assert in_context.token_ids is row.token_ids
        assert not in_context.advantages.any() and not in_context.token_weights.any()
        assert in_context.columns[TARGET] == pytest.approx(
            [floats(0.45).log().item()] * len(row.token_ids)
        )
        assert in_context.columns[SHARE] == pytest.approx([0.06 * w for w in row.token_weights])
    assert added[0].prompt_token_ids.tolist() == [1, 4, 20, 20, 20, 2, FIRST, 3]
    total, count = batch.metrics["gcpo/kl"]
    assert (total / count, count) == (pytest.approx(0.007217, abs=1e-6), 5.0)
    # Its loss, where the policy is the one that was read: κ times the mean over completions.
    logprobs = floats(0.4, 0.4, 0.4, 0.4, 0.4).log()
    loss = exact_loss(added, logprobs, logprobs, plugins=[part], objective=OBJECTIVE)
    assert float(loss) == pytest.approx(0.000433, abs=1e-6)


def test_the_sum_that_the_paper_prints():
    batch, _ = kl_batch(plugin("gcpo", reweight=False, combine="sum"))
    assert batch.rows[2].columns[TARGET] == pytest.approx([floats(0.15).log().item()] * 2)


@pytest.mark.parametrize("cuts", [None, [[0, 2], [3], [1]], [[3, 0], [2, 1]]])
def test_the_term_is_its_definition_however_rows_are_cut(cuts):
    part = plugin("gcpo", reweight=False, kappa=0.5)
    batch, _ = kl_batch(part)
    lengths = [len(row.token_ids) for row in batch.rows]
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(sum(lengths), generator=generator, dtype=torch.float64)
    leaf = old.clone().requires_grad_()
    exact_loss(batch.rows, leaf, old, plugins=[part], objective=OBJECTIVE, cuts=cuts).backward()

    expected = old.clone().requires_grad_()
    parts = expected.split(lengths)
    policy = sum(
        -(row.advantages[0] * (own - own.detach()).exp()).mean() / 2
        for row, own in zip(batch.rows[:2], parts[:2], strict=True)
    )
    target = floats(0.45).log()
    penalty = sum(kl_penalty(own, target).mean() / 2 for own in parts[2:])
    (policy + 0.5 * penalty).backward()
    torch.testing.assert_close(leaf.grad, expected.grad, rtol=1e-13, atol=1e-16)


def test_tokens_beyond_the_largest_value_have_no_gradient():
    """At log-probability -3 the term is 9.04 - 2.20 - 1 = 5.84, at -1 it is .22."""
    logprobs = floats(-3.0, -1.0, -3.0, -1.0, -1.0)
    for max_kl in (None, 5.0):
        part = plugin("gcpo", reweight=False, kappa=1.0, max_kl=max_kl)
        batch, _ = kl_batch(part)
        leaf = logprobs.clone().requires_grad_()
        exact_loss(batch.rows[2:], leaf, logprobs, plugins=[part], objective=OBJECTIVE).backward()
        slope = 1 - floats(0.45) / logprobs.exp()
        if max_kl is not None:
            slope = torch.where(logprobs == -3.0, 0.0, slope)
        weights = floats(*[0.25] * 2, *[1 / 6] * 3)  # the mean of two completions' means
        torch.testing.assert_close(leaf.grad, slope * weights)


def test_completions_whose_rewards_are_equal_have_the_term_too():
    completions = with_contexts(group("q", 1.0, 1.0))
    reader = Reader(logprobs={FIRST: 0.4, SECOND: 0.2})
    batch = built(completions, reader, plugin("gcpo", reweight=False))
    assert [row.completion_id for row in batch.rows] == ["q/1 (in context)", "q/2 (in context)"]


def test_turned_off_it_is_plain_grpo():
    completions = with_contexts(group("q", 1.0, 0.0))
    part = plugin("gcpo", reweight=False, kappa=0.0)
    assert part.wanted_measurements() == frozenset()
    reader = Reader()
    assert (
        built(completions, reader, part).rows
        == build_batch(completions, [solve_layer(advantage=Z_SCORE)], OBJECTIVE).rows
    )
    assert reader.read == []


# --- what it cannot work with ---


def test_recorded_completions_alone_do_not_say_what_it_does():
    with pytest.raises(LearnerError, match="gcpo needs gcpo/weights"):
        built(with_contexts(group("q", 1.0, 0.0)), None, plugin("gcpo"))


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ([{"use": "gcpo"}], "Add integrated_answers"),
        ([{"use": "gcpo", "settings": {"clamp_min": 3}}], "is above alpha"),
    ],
)
def test_what_it_cannot_work_with_is_refused(plugins, message):
    with pytest.raises(ConfigError, match=message):
        load_plugins(run_config(plugins=plugins).method_view, LearnerPlugin)
