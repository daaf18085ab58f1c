import random
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from scripts.default_policy.right_work import make, problems
from scripts.default_policy.right_work.make import Maker, Rates, completion_loss, rate_at
from scripts.default_policy.right_work.work import right_work
from scripts.default_policy.warm_start import IGNORED, padded


@pytest.fixture(scope="module")
def new_maker():
    """Makes makers with few problems and steps; a real one, at another size."""
    patch = pytest.MonkeyPatch()
    patch.setattr(problems, "NUM_HELD_OUT", 5)
    sizes = {"NUM_TRAINING": 12, "NUM_CHECKED": 4, "NUM_TOKENIZER_PROBLEMS": 12}
    steps = {
        "CHECK_EVERY": 2,
        "SECOND_CHECK_EVERY": 2,
        "BATCH_SIZE": 4,
        "NUM_ATTEMPTS": 6,
        "WARM_UP_STEPS": 1,
    }
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


FAMILIES = ("chain_sum", "simple_equations")


def follow(maker, monkeypatch, *rates):
    """Let the checks find these rates in turn; return how often each round drew each kind."""
    rounds, script = [], iter(rates)

    def check(*, with_second):
        rounds.append(Counter())
        return {name: Rates(*rate) for name, rate in zip(FAMILIES, next(script), strict=True)}

    def noting(kind, method):
        def example(subject, rng):
            problem = subject if kind == "first" else subject.problem
            rounds[-1][kind, problem.domain] += 1
            learned.append(subject)
            return method(subject, rng)

        return example

    learned = []
    monkeypatch.setattr(maker, "check", check)
    monkeypatch.setattr(maker.turns, "first", noting("first", maker.turns.first))
    monkeypatch.setattr(maker.turns, "second", noting("second", maker.turns.second))
    return rounds, learned


def test_a_family_that_is_right_often_enough_is_rehearsed(new_maker, monkeypatch):
    """It is drawn one time in six: 0.2 to 1. Forgotten, it would fall while the other learns."""
    monkeypatch.setattr(make, "CHECK_EVERY", 40)
    monkeypatch.setattr(Maker, "learn", lambda self, example: [example() for _ in range(600)])
    maker = new_maker()
    rounds, _ = follow(maker, monkeypatch, [(0.2, 0), (0.6, 0)], [(0.5, 0), (0.6, 0)])
    rounds.append(Counter())
    maker.learn_first_attempts(0.5)
    sums, equations = ("first", "chain_sum"), ("first", "simple_equations")
    assert rounds[0][sums] == pytest.approx(300, abs=50)
    assert rounds[1][equations] == pytest.approx(100, abs=40)
    assert rounds[1].total() == rounds[0].total() == 600
    assert not rounds[2]


def test_corrections_are_learned_behind_the_networks_own_attempts(new_maker, monkeypatch):
    monkeypatch.setattr(Maker, "learn", lambda self, example: [example() for _ in range(600)])
    maker = new_maker()
    weak = [(0.5, 0.1), (0.4, 0.4)]  # sums need second turns, equations first attempts
    enough = [(0.5, 0.45), (0.5, 0.5)]
    rounds, learned = follow(maker, monkeypatch, weak, enough)
    sampled = maker.own_attempts()
    monkeypatch.setattr(maker, "own_attempts", lambda: sampled)
    maker.learn_corrections(0.5, 0.9)
    drawn = rounds[0]
    for kind in (("second", "chain_sum"), ("first", "simple_equations")):
        assert drawn[kind] == pytest.approx(600 / 2.4, abs=50)
    for kind in (("first", "chain_sum"), ("second", "simple_equations")):
        assert drawn[kind] == pytest.approx(600 * 0.2 / 2.4, abs=30)
    assert not rounds[1]
    corrected = [one for one in learned if one in sampled["chain_sum"]]
    assert corrected
    for attempt in corrected:
        example = maker.turns.second(attempt, random.Random(0))
        ids = [token for token in attempt.ids if token != maker.tokenizer.eos_token_id]
        spots = range(len(example.prompt_ids) - len(ids))
        assert any(example.prompt_ids[at : at + len(ids)] == ids for at in spots)
        text = maker.tokenizer.decode(example.completion_ids, skip_special_tokens=True)
        assert text == right_work(attempt.problem)


def test_the_rate_rises_stays_and_falls(monkeypatch):
    monkeypatch.setattr(make, "WARM_UP_STEPS", 50)
    assert [rate_at(step) for step in (0, 49, 1500, 6000)] == [0.02, 1.0, 1.0, 0.5]


def test_the_second_stage_made_again_from_what_was_kept_gives_the_same_policy(
    new_maker, tmp_path, monkeypatch
):
    said: list[str] = []
    weak, enough = (
        dict.fromkeys(FAMILIES, Rates(0.5, 0.0)),
        dict.fromkeys(FAMILIES, Rates(0.5, 0.5)),
    )

    def policy(name, *found):
        script = iter(found)
        monkeypatch.setattr(Maker, "check", lambda self, *, with_second: next(script))
        make.make(tmp_path / name, tmp_path / "work", seed=3, report=said.append)
        assert next(script, None) is None
        return load_file(tmp_path / name / "model.safetensors")

    once, again = policy("once", enough, weak, enough), policy("again", weak, enough)
    between = load_file(tmp_path / "work" / "first-3-0.5" / "model.safetensors")
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], between[name]) for name in once)
    assert said.count(f"going on from {tmp_path / 'work' / 'first-3-0.5'}") == 1


def test_attempts_that_are_corrected_are_of_training_problems(new_maker):
    maker = new_maker()
    for family, attempts in maker.own_attempts().items():
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
            lambda: maker.turns.first(
                maker.rng.choice(maker.training["simple_equations"]), maker.rng
            )
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
