import random

import pytest
import torch

from scripts.default_policy.right_work import make, problems
from scripts.default_policy.right_work.make import Maker, Rates, completion_loss
from scripts.default_policy.right_work.work import right_work
from scripts.default_policy.warm_start import IGNORED, padded


@pytest.fixture(scope="module")
def new_maker():
    """Makes makers with few problems and steps; a real one, at another size."""
    patch = pytest.MonkeyPatch()
    patch.setattr(problems, "NUM_HELD_OUT", 5)
    sizes = {"NUM_TRAINING": 12, "NUM_CHECKED": 4, "NUM_TOKENIZER_PROBLEMS": 12}
    steps = {"CHECK_EVERY": 2, "BATCH_SIZE": 4, "NUM_ATTEMPTS": 6, "WARM_UP_STEPS": 1}
    for name, value in (sizes | steps).items():
        patch.setattr(make, name, value)
    patch.setattr(
        "scripts.default_policy.right_work.measure.MAX_TOKENS", dict.fromkeys(FAMILIES, 8)
    )
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda seed=0: Maker(seed=seed, report=lambda _: None)
    torch.set_num_threads(num_threads)
    patch.undo()


FAMILIES = ("chain_sum", "countdown")


def follow(maker, monkeypatch, *rates):
    """Let the checks find these rates in turn; return the kinds that each round learned from."""
    rounds, script = [], iter(rates)

    def check(*, with_second):
        rounds.append(set())
        return {name: Rates(*rate) for name, rate in zip(FAMILIES, next(script), strict=True)}

    def noting(kind, method):
        def example(subject, rng):
            problem = subject if kind == "first" else subject.problem
            rounds[-1].add((kind, problem.domain))
            learned.append(subject)
            return method(subject, rng)

        return example

    learned = []
    monkeypatch.setattr(maker, "check", check)
    monkeypatch.setattr(maker.turns, "first", noting("first", maker.turns.first))
    monkeypatch.setattr(maker.turns, "second", noting("second", maker.turns.second))
    return rounds, learned


def test_a_family_that_is_right_often_enough_rests(new_maker, monkeypatch):
    maker = new_maker()
    rounds, _ = follow(maker, monkeypatch, [(0.2, 0), (0.6, 0)], [(0.5, 0), (0.6, 0)])
    rounds.append(set())
    maker.learn_first_attempts(0.5)
    assert rounds[0] == {("first", "chain_sum"), ("first", "countdown")}
    assert rounds[1] == {("first", "chain_sum")}
    assert maker.step == 4


def test_corrections_are_learned_behind_the_networks_own_attempts(new_maker, monkeypatch):
    maker = new_maker()
    weak = [(0.5, 0.1), (0.4, 0.4)]  # sums need second turns, countdown first attempts
    enough = [(0.5, 0.45), (0.5, 0.5)]
    rounds, learned = follow(maker, monkeypatch, weak, enough)
    sampled = maker.own_attempts(FAMILIES)
    monkeypatch.setattr(
        maker, "own_attempts", lambda names: {name: sampled[name] for name in names}
    )
    maker.learn_corrections(0.5, 0.9)
    assert rounds[0] == {("second", "chain_sum"), ("first", "countdown")}
    assert maker.step == 2
    corrected = [one for one in learned if one in sampled["chain_sum"]]
    assert corrected
    for attempt in corrected:
        example = maker.turns.second(attempt, random.Random(0))
        ids = [token for token in attempt.ids if token != maker.tokenizer.eos_token_id]
        spots = range(len(example.prompt_ids) - len(ids))
        assert any(example.prompt_ids[at : at + len(ids)] == ids for at in spots)
        text = maker.tokenizer.decode(example.completion_ids, skip_special_tokens=True)
        ways = {right_work(attempt.problem, random.Random(seed)) for seed in range(30)}
        assert text in ways


def test_attempts_that_are_corrected_are_of_training_problems(new_maker):
    maker = new_maker()
    for family, attempts in maker.own_attempts(FAMILIES).items():
        assert len(attempts) == 6
        assert {one.problem.question for one in attempts} <= {
            problem.question for problem in maker.training[family]
        }


def test_no_problem_that_is_measured_is_trained_on(new_maker):
    maker = new_maker()
    held_out = problems.pools_of(problems.held_out())
    for family in FAMILIES:
        pools = [held_out[family], maker.checked[family], maker.training[family]]
        questions = [problem.question for pool in pools for problem in pool]
        assert len(questions) == len(set(questions)) == 5 + 4 + 12


def test_the_seed_decides_the_weights(new_maker):
    def weights(seed):
        maker = new_maker(seed)
        maker.learn(
            lambda: maker.turns.first(maker.rng.choice(maker.training["countdown"]), maker.rng)
        )
        maker.check(with_second=True)
        return [parameter.detach() for parameter in maker.model.parameters()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.dim() > 1)


def test_the_loss_is_the_mean_over_completion_tokens(new_maker):
    maker = new_maker()
    rng = random.Random(0)
    batch = [maker.turns.first(pool[0], rng) for pool in maker.training.values()]
    ids_BT, labels_BT = padded(batch, maker.tokenizer.pad_token_id)
    logits_BTV = maker.model(input_ids=ids_BT).logits
    plain = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED
    )
    loss = completion_loss(maker.model, batch, maker.tokenizer.pad_token_id)
    torch.testing.assert_close(loss, plain)


def test_a_warm_start_that_does_not_get_there_says_so(new_maker, monkeypatch):
    monkeypatch.setattr(make, "MAX_STEPS", 2)
    with pytest.raises(RuntimeError, match="2 steps, and the policy is not yet as often right"):
        new_maker().learn_first_attempts(1.0)
