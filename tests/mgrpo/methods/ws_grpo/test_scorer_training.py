"""Training a scorer on pairs whose difference a tiny random model can see."""

from __future__ import annotations

import math
import random

import pytest
import torch

from mgrpo.errors import DataError, LearnerError
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.methods.ws_grpo.scorer_pairs import Pair
from mgrpo.methods.ws_grpo.scorer_training import (
    ScorerTraining,
    fit_of,
    mean_loss,
    prefix_places,
    train_scorer,
)
from tests.learner.builders import save_tiny_llama

KINDS = ["mlp_on_embeddings", "reward_head"]
RIGHT_MARK, WRONG_MARK = 3, 4
RATES = {"mlp_on_embeddings": 1e-2, "reward_head": 1e-3}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("model"), max_position_embeddings=64)


def pairs(count: int, *, seed: int = 0) -> list[Pair]:
    """Right completions end with one mark, wrong ones with another; the rest is noise."""
    rng = random.Random(seed)

    def text(mark: int) -> tuple[int, ...]:
        return (*(rng.randrange(10, 60) for _ in range(rng.randrange(2, 6))), mark)

    return [Pair(f"q{n}", text(RIGHT_MARK), text(WRONG_MARK), 1) for n in range(count)]


def trained(model_dir, kind="mlp_on_embeddings", *, seed=0, **hooks):
    scorer = PrefixScorer.create(str(model_dir), kind=kind, hidden_units=16, seed=seed)
    settings = ScorerTraining(epochs=3, learning_rate=RATES[kind], pairs_per_batch=8, seed=seed)
    results = train_scorer(scorer, pairs(200), pairs(30, seed=1), settings, **hooks)
    return scorer, results


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_pairs_are_ordered_after_training(model_dir, kind):
    before = PrefixScorer.create(str(model_dir), kind=kind, hidden_units=16)
    scorer, results = trained(model_dir, kind)
    assert [result.epoch for result in results] == [0, 1, 2, 3]
    first, last = results[0], results[-1]
    assert last.held_out.accuracy > 0.85 > 0.7 > first.held_out.accuracy
    assert last.train.loss < 0.6 < first.train.loss  # most prefixes are noise
    assert (last.train.num_pairs, last.held_out.num_pairs) == (200, 30)
    moved = not torch.equal(
        scorer.decoder.layers[0].mlp.up_proj.weight, before.decoder.layers[0].mlp.up_proj.weight
    )
    assert moved == (kind == "reward_head")


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_everything(model_dir, kind):
    one, results = trained(model_dir, kind)
    same, same_results = trained(model_dir, kind)
    other, _ = trained(model_dir, kind, seed=1)
    assert results == same_results
    assert torch.equal(one.values([[5, 6, 7]]), same.values([[5, 6, 7]]))
    assert not torch.equal(one.values([[5, 6, 7]]), other.values([[5, 6, 7]]))


def test_progress_is_told_batch_by_batch_and_epoch_by_epoch(model_dir):
    batches, epochs = [], []
    _, results = trained(
        model_dir,
        on_progress=lambda done, total: batches.append((done, total)),
        on_epoch=epochs.append,
    )
    assert batches == [(done, 75) for done in range(1, 76)]  # 200 pairs are 25 batches
    assert epochs == results


def test_without_held_out_pairs_there_is_no_held_out_fit(model_dir):
    scorer = PrefixScorer.create(str(model_dir), hidden_units=4)
    results = train_scorer(scorer, pairs(2), [], ScorerTraining(epochs=1))
    assert [result.held_out for result in results] == [None, None]


def test_a_fit_is_the_mean_loss_and_the_share_in_order():
    values = torch.tensor([[1.0], [0.0], [2.0]])
    fit = fit_of(values, [(0, 1), (1, 2)])  # margins 1 and -2
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert (fit.num_pairs, fit.accuracy, fit.prefix_accuracy) == (2, 0.5, None)
    assert fit.loss == pytest.approx(expected)


def test_prefixes_in_the_middle_are_counted_apart_from_the_whole():
    # prompt, half, whole
    values = torch.tensor([[0.0, -1.0, 3.0], [0.0, 1.0, 2.0], [0.0, 1.0, 1.0]])
    fit = fit_of(values, [(0, 1), (1, 2)])  # halves: wrong order, tie; wholes: right, right
    assert (fit.accuracy, fit.prefix_accuracy) == (1.0, 0.25)


def test_every_prefix_of_the_right_one_meets_every_prefix_of_the_wrong_one():
    right, wrong = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, -1.0]])
    margins = [0.0, 1.0, 2.0, 3.0]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 4
    assert float(mean_loss(right, wrong)) == pytest.approx(expected)


def test_prefixes_run_from_the_prompt_to_the_whole():
    # A prompt of 3 tokens and a completion of 6: it ends at token 2, the shares at 4, 5, 7 and 8.
    assert prefix_places(3, 9, 4) == [2, 4, 5, 7, 8]
    assert prefix_places(3, 4, 2) == [2, 3, 3]
    assert prefix_places(3, 9, 0) == [8]


def test_prefixes_teach_what_whole_completions_do_not(model_dir):
    """The first token after the prompt decides; the last one is the same for both."""

    def telling(count: int, seed: int) -> list[Pair]:
        rng = random.Random(seed)
        texts = [
            tuple((9, mark, *(rng.randrange(10, 60) for _ in range(3)), 2) for mark in (3, 4))
            for _ in range(count)
        ]
        return [Pair(f"q{n}", right, wrong, 1) for n, (right, wrong) in enumerate(texts)]

    def value_gap(prefixes: int) -> float:
        scorer = PrefixScorer.create(str(model_dir), hidden_units=16)
        settings = ScorerTraining(epochs=5, learning_rate=1e-2, prefixes=prefixes)
        train_scorer(scorer, telling(200, 0), [], settings)
        right, prompt, wrong = scorer.values([[9, 3], [9], [9, 4]]).tolist()
        return min(right - prompt, prompt - wrong)

    assert value_gap(prefixes=5) > 1 > value_gap(prefixes=0)


def test_another_models_tokens_are_refused(model_dir):
    scorer = PrefixScorer.create(str(model_dir), base_model="tiny")
    with pytest.raises(DataError, match="hold the token 64, and tiny knows 64"):
        train_scorer(scorer, [Pair("q", (1, 64), (1, 2), 1)], [], ScorerTraining())


def test_a_completion_longer_than_the_context_is_refused(model_dir):
    scorer = PrefixScorer.create(str(model_dir), base_model="tiny")
    with pytest.raises(DataError, match="has 65 tokens with its prompt, and tiny reads 64"):
        train_scorer(scorer, [Pair("q", (1,) * 65, (1, 2), 1)], [], ScorerTraining())


def test_a_loss_that_is_not_finite_stops_training(model_dir):
    scorer = PrefixScorer.create(str(model_dir), hidden_units=4)
    with torch.no_grad():
        scorer.head[-1].weight.fill_(math.inf)
    with pytest.raises(LearnerError, match="Lower --learning-rate"):
        train_scorer(scorer, pairs(2), [], ScorerTraining(epochs=1))
