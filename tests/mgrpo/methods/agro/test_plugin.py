"""AGRO through the learner's own seam."""

import pytest
import torch

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import completion, plugin, solve_layer

CENTRED = ObjectiveConfig()
Z_SCORE = {"scale_by_std": False}
TOKENS = {"features": "tokens"}
RATES = {"q": 9, "p": 0, "r": 6}  # right answers of 10: failure rates .1, 1, .4


def step():
    """Three prompts that are told apart by their first token."""
    return [
        completion(f"{name}/{n}", float(n <= num_right), prompt=[prompt, 2])
        for prompt, (name, num_right) in enumerate(RATES.items(), start=10)
        for n in range(1, 11)
    ]


class WrittenDown:
    """A grouper with the worked memberships."""

    def __init__(self):
        self.steps = []

    def memberships(self, features):
        return torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)

    def step(self, features, losses, weights, **_):
        self.steps.append((len(features), losses.tolist(), weights.tolist()))


def worked_part(**settings):
    given = {**TOKENS, "num_groups": 2, "variant": "exponential", "warmup_steps": 0, **settings}
    part = plugin("agro", **given)
    part.grouper = WrittenDown()
    return part


def factors(part, measurements=None):
    """By problem, what advantages are multiplied by; p's are all 0."""
    layers = [solve_layer(advantage=Z_SCORE)]
    plain = build_batch(step(), layers, CENTRED).all_rows
    batch = build_batch(step(), layers, CENTRED, plugins=[part], measurements=measurements)
    rows = batch.all_rows
    return {
        one.problem_id: row.advantages[0] / base.advantages[0]
        for one, row, base in zip(step(), rows, plain, strict=True)
        if base.advantages[0]
    }


def test_the_worked_groups_weigh_the_prompts():
    part = worked_part()
    assert factors(part) == {
        "q": pytest.approx(0.800140, abs=1e-6),
        "r": pytest.approx(1.018169, abs=1e-6),
    }
    assert part.weights.tolist() == pytest.approx([0.397671, 0.602329], abs=1e-6)


def test_every_completion_of_a_prompt_has_its_weight_and_the_mean_is_one():
    part = worked_part()
    batch = build_batch(step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    plain = build_batch(step(), [solve_layer(advantage=Z_SCORE)], CENTRED)
    found = [
        row.advantages[0] / base.advantages[0]
        for row, base in zip(batch.all_rows, plain.all_rows, strict=True)
        if base.advantages[0]
    ]
    assert found == pytest.approx([0.800140] * 10 + [1.018169] * 10, abs=1e-6)
    assert batch.metrics["agro/robust_failure_rate"][0] == pytest.approx(0.556324, abs=1e-6)
    assert batch.metrics["agro/membership_entropy"][0] == pytest.approx(0.506211, abs=1e-6)
    assert batch.metrics["agro/imbalance"][0] == pytest.approx(0.002224, abs=1e-6)


def test_the_adversary_learns_from_the_prompts_seen_last():
    part = worked_part(window=4)
    for _ in range(2):
        build_batch(step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert [number for number, _, _ in part.grouper.steps] == [3, 4]
    assert part.grouper.steps[1][1] == pytest.approx([0.4, 0.1, 1.0, 0.4])


def test_in_the_warm_up_the_grouper_learns_and_advantages_stay():
    part = worked_part(warmup_steps=1)
    assert factors(part) == {"q": pytest.approx(1), "r": pytest.approx(1)}
    assert len(part.grouper.steps) == 1
    assert factors(part)["q"] == pytest.approx(0.800140, abs=1e-6)


def test_one_group_is_grpo():
    for variant in ("worst_share", "exponential"):
        part = plugin("agro", **TOKENS, num_groups=1, variant=variant, warmup_steps=0)
        assert factors(part) == {"q": pytest.approx(1), "r": pytest.approx(1)}


def test_the_worst_share_goes_by_running_sizes():
    """Sizes 1.6/3 and 1.4/3; the second group fails more and is larger than the share."""
    part = worked_part(variant="worst_share", share=0.4, floor=0.0)
    build_batch(step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.shares.tolist() == pytest.approx([1.6 / 3, 1.4 / 3])
    assert part.weights.tolist() == pytest.approx([0, 1])


def states_of(step):
    """[N, 5] by prompt, with a large part that all have."""
    rows = torch.arange(12, 27, dtype=torch.float32).reshape(3, 5).sin() + 40
    return {"hidden_prompt": rows[[one.prompt_token_ids[0] - 10 for one in step]]}


@pytest.mark.parametrize("features", ["tokens", "hidden_states"])
def test_two_ranks_get_the_same_numbers_and_so_does_a_resumed_run(features):
    settings = {"features": features, "warmup_steps": 1, "learning_rate": 0.01}
    ranks = [plugin("agro", **settings) for _ in range(2)]
    for _ in range(3):
        found = [factors(part, states_of(step())) for part in ranks]
        assert found[0] == found[1]
    resumed = plugin("agro", **settings, seed=9)
    resumed.load_state_dict(ranks[0].state_dict())
    assert factors(resumed, states_of(step())) == factors(ranks[1], states_of(step())) != found[0]


def test_a_run_that_has_not_begun_resumes_too():
    part = plugin("agro")
    part.load_state_dict(plugin("agro").state_dict())
    assert factors(part, states_of(step()))


class LookedAt(WrittenDown):
    def memberships(self, features):
        self.features = features
        return super().memberships(features)


def test_hidden_states_are_read_without_what_all_prompts_share():
    """Three prompts in one dimension, 41, 42 and 46: less 43, over the root of (4 + 1 + 9) / 3."""
    part = worked_part(features="hidden_states")
    part.grouper = LookedAt()
    prompts = [one.prompt_token_ids[0] for one in step()]
    states = torch.tensor([{10: 41.0, 11: 42.0, 12: 46.0}[prompt] for prompt in prompts])[:, None]
    found = factors(part, {"hidden_prompt": states})
    assert found["q"] == pytest.approx(0.800140, abs=1e-6)
    expected = torch.tensor([-2.0, -1.0, 3.0], dtype=torch.float64) / (14 / 3) ** 0.5
    assert part.grouper.features[:, 0].tolist() == pytest.approx(expected.tolist())


def test_only_hidden_states_take_a_forward_pass():
    assert plugin("agro").wanted_measurements() == {"hidden_prompt"}
    assert not plugin("agro", **TOKENS).wanted_measurements()
