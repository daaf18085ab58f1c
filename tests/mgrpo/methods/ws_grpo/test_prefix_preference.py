"""WS-GRPO's rewards in a step: with a scorer that was written down, and with a real one."""

import pytest
import torch

from learner.batch import build_batch, step_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from tests.learner.builders import long, plugin, save_tiny_llama, solve_layer, with_status

EXACT = ObjectiveConfig()
Z_SCORE = {"ddof": 0, "epsilon": 0.0}
SCORES = {
    "q/1": [0.8, 0.7, 0.6],
    "q/2": [0.6, 0.4, 0.3, 0.3],
    "q/3": [0.9, 0.5],
    "q/4": [0.7, 0.5, 0.5, 0.3, 0.2, 0.2, 0.1],
}


class WrittenDown:
    """Answers with the next completion's scores, and remembers what it was asked."""

    def __init__(self, scores):
        self.scores, self.rows, self.pair_order = list(scores), [], ""

    def step_scores_of(self, rows, *, pair_order):
        self.rows, self.pair_order = rows, pair_order
        return [torch.tensor(values) for values in self.scores[: len(rows)]]


def preference(scores, **settings):
    part = plugin("prefix_preference", scorer="written down", **settings)
    part.scorer = WrittenDown(scores)
    return part


def stepped(name, reward, steps, **changes):
    """A completion whose steps end after so many tokens each."""
    ends = torch.tensor(steps).cumsum(0).tolist()
    spans = {"steps": list(zip([0, *ends], ends, strict=False))}
    return long(name, reward, sum(steps), spans=spans, **changes)


def four_rollouts():
    right = {"q/1": 1.0, "q/2": 0.0, "q/3": 1.0, "q/4": 1.0}
    return [stepped(name, right[name], [1] * len(values)) for name, values in SCORES.items()]


def measured(part, completions):
    """The step's columns with the plug-in's measurements."""
    batch = step_batch(completions, [solve_layer(advantage=Z_SCORE)])
    batch.measurements |= part.measure(batch)
    return batch


def test_the_worked_rollouts_get_their_rewards():
    part = preference(SCORES.values())
    batch = measured(part, four_rollouts())
    rewards = part.shape_rewards(batch, batch.rewards)
    assert rewards.tolist() == pytest.approx([5.7, 0.4, 4.7, 4.357143], abs=1e-6)


def test_what_other_plug_ins_added_to_a_reward_stays_added():
    part = preference(SCORES.values())
    batch = measured(part, four_rollouts())
    plain = part.shape_rewards(batch, batch.rewards)
    torch.testing.assert_close(part.shape_rewards(batch, batch.rewards - 0.5), plain - 0.5)


def test_the_worked_rollouts_get_their_z_scores():
    part = preference(SCORES.values())
    batch = build_batch(four_rollouts(), [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part])
    found = [row.advantages[0] for row in batch.rows]
    assert found == pytest.approx([0.946817, -1.679493, 0.451286, 0.281390], abs=1e-6)
    assert all(len(set(row.advantages)) == 1 for row in batch.rows)  # no credit per step
    assert batch.metrics["steps/per_completion"] == (16.0, 4.0)
    assert batch.metrics["steps/score_mean"] == pytest.approx((7.6, 16.0))


def test_steps_tell_equal_outcomes_apart():
    equal = [stepped(f"q/{n}", 1.0, [1] * 3, token_ids=[n] * 3) for n in (1, 2)]
    part = preference([[0.5] * 3, [0.1] * 3])
    batch = build_batch(equal, [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part])
    assert [row.advantages[0] for row in batch.rows] == pytest.approx([1, -1])


def test_process_credit_of_the_worked_example():
    """Steps rewarded [1, 0] and [1], ending on tokens 2 and 4, and 3: mean 2/3, std 0.471405."""
    part = preference(
        [[1.0, 0.0], [1.0]],
        credit="process",
        lambda_outcome=0.0,
        range_penalty=0.0,
        ddof=0,
        epsilon=0.0,
    )
    two = [stepped("q/1", 1.0, [2, 2]), stepped("q/2", 0.0, [3])]
    rows = build_batch(two, [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part]).all_rows
    assert rows[0].advantages == pytest.approx([-0.707107] * 2 + [-1.414214] * 2, abs=1e-6)
    assert rows[1].advantages == pytest.approx([0.707107] * 3, abs=1e-6)


def test_process_credit_puts_outcome_and_penalty_on_the_last_step():
    part = preference([[0.8, 0.7, 0.6], [0.9, 0.5]], credit="process")
    batch = measured(part, [stepped("q/1", 1.0, [1] * 3), stepped("q/2", 0.0, [1] * 2)])
    assert part.step_rewards(batch, 0).tolist() == pytest.approx([0.8, 0.7, 5.6])
    assert part.step_rewards(batch, 1).tolist() == pytest.approx([0.9, -0.5])


def test_the_scorer_is_asked_for_usable_completions_with_the_ends_of_their_steps():
    part = preference([[0.5, 0.5], [0.5]], pair_order="longer_shorter")
    three = [
        stepped("q/1", 1.0, [2, 1]),
        with_status(stepped("q/2", 0.0, [1, 1]), "error"),
        long("q/3", 0.0, 4),  # no spans: the whole is one step
    ]
    build_batch(three, [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part])
    assert [ends for _, _, ends in part.scorer.rows] == [(2, 3), (4,)]
    assert part.scorer.rows[0][:2] == ((1, 2), (3, 3, 3))
    assert part.scorer.pair_order == "longer_shorter"


def test_a_completion_that_was_sampled_twice_is_scored_once():
    part = preference([[0.8], [0.2]])
    three = [stepped("q/1", 1.0, [2]), stepped("q/2", 1.0, [2]), stepped("q/3", 1.0, [1])]
    batch = build_batch(three, [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part])
    assert len(part.scorer.rows) == 2
    found = [row.advantages[0] for row in batch.rows]
    assert found[0] == found[1] > 0 > found[2]


def test_a_saved_scorer_is_loaded_at_the_start_and_scores_every_step(tmp_path):
    base = save_tiny_llama(tmp_path / "tiny")
    scorer = PrefixScorer.create(str(base), hidden_units=8)
    scorer.save(str(tmp_path / "scorer"))
    part = plugin("prefix_preference", scorer=str(tmp_path / "scorer"))
    part.start(torch.device("cpu"))
    assert part.models() == [part.scorer]  # leaves the GPU while engines have it
    two = [stepped("q/1", 1.0, [2, 1]), stepped("q/2", 0.0, [1, 1, 1], prompt=[7])]
    batch = build_batch(two, [solve_layer(advantage=Z_SCORE)], EXACT, plugins=[part])
    expected = scorer.step_scores_of([([1, 2], [3] * 3, [2, 3]), ([7], [3] * 3, [1, 2, 3])])
    total = sum(float(values.sum()) for values in expected)
    assert batch.metrics["steps/score_mean"] == pytest.approx((total, 5.0), rel=1e-5)
    assert [row.advantages[0] for row in batch.rows] == pytest.approx([1, -1])
