"""Group DRO over domains through the learner's own seam."""

import pytest

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from tests.learner.builders import completion, plugin, run_config, solve_layer

CENTRED = ObjectiveConfig()
Z_SCORE = {"scale_by_std": False}


def problem(name, domain, num_right, size):
    return [
        completion(f"{name}/{n}", float(n <= num_right), domain=domain) for n in range(1, size + 1)
    ]


def worked_step():
    """Domain a fails 2 of 10 times, b 8 of 10."""
    return [*problem("q", "a", 8, 10), *problem("p", "b", 2, 10)]


def factors(part, completions, advantage=Z_SCORE):
    """By domain, what advantages are multiplied by."""
    chain = [solve_layer(advantage=advantage)]
    plain = build_batch(completions, chain, CENTRED).all_rows
    rows = build_batch(completions, chain, CENTRED, plugins=[part]).all_rows
    return {
        one.domain: row.advantages[0] / base.advantages[0]
        for one, row, base in zip(completions, rows, plain, strict=True)
    }


def test_the_worked_step_moves_weight_to_what_fails():
    part = plugin("group_dro", rate=1.0)
    batch = build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.weights.tolist() == pytest.approx([0.354344, 0.645656], abs=1e-6)
    assert batch.metrics["group_dro/weight/b"] == pytest.approx((0.645656, 1.0), abs=1e-6)
    robust, _ = batch.metrics["group_dro/robust_failure_rate"]
    assert robust == pytest.approx(0.587394, abs=1e-6)


def test_rows_are_weighed_by_how_many_their_domain_has():
    """q = [.354344, .645656] with 6 and 2 rows, failing 2/6 and 1/2 here; the worked weights are
    those of a step that does not move them."""
    part = plugin(
        "group_dro", rate=0.0, domain_sizes={"a": 0.354344, "b": 0.645656}, start="frequency"
    )
    found = factors(part, [*problem("q", "a", 4, 6), *problem("p", "b", 1, 2)])
    assert found == {
        "a": pytest.approx(0.472459, abs=1e-6),
        "b": pytest.approx(2.582624, abs=1e-6),
    }


def test_without_steps_and_from_the_batchs_frequency_it_is_grpo():
    part = plugin("group_dro", rate=0.0, domain_sizes={"a": 6, "b": 2}, start="frequency")
    found = factors(part, [*problem("q", "a", 4, 6), *problem("p", "b", 1, 2)])
    assert found == {"a": pytest.approx(1), "b": pytest.approx(1)}


def test_the_division_by_the_spread_does_not_take_the_weights_away():
    """They come after it."""
    part = plugin("group_dro", rate=1.0)
    found = factors(part, worked_step(), {})
    assert found == {
        "a": pytest.approx(2 * 0.354344, abs=1e-6),
        "b": pytest.approx(2 * 0.645656, abs=1e-6),
    }


def test_weights_are_remembered_from_step_to_step():
    """Two steps of rate 1 are one of rate 2: odds exp(2 * 0.6) = 3.320117."""
    part = plugin("group_dro", rate=1.0)
    for _ in range(2):
        build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.weights.tolist() == pytest.approx([1 / 4.320117, 3.320117 / 4.320117])


def test_a_domain_that_is_absent_keeps_its_weight_and_a_new_one_gets_an_equal_share():
    part = plugin("group_dro", rate=1.0)
    build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    step = [*problem("q", "a", 1, 2), *problem("p", "c", 1, 2)]
    build_batch(step, [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.domains == ["a", "b", "c"]
    # a: 2/3 * .354344, b: 2/3 * .645656, c: 1/3; a and c fail alike, so nothing moves.
    assert part.weights.tolist() == pytest.approx([0.236229, 0.430437, 1 / 3], abs=1e-6)


def test_small_domains_get_more():
    """C / sqrt(n) = 1 / 1 and 1 / 2: odds exp(0.8 + 0.5 - 0.2 - 1) = e^0.1."""
    part = plugin("group_dro", rate=1.0, adjustment=1.0, domain_sizes={"a": 1, "b": 4})
    build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    odds = 2.718281828**0.1
    assert part.weights.tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])


def test_the_worked_worst_share():
    step = [
        *problem("q", "a", 8, 10),
        *problem("p", "b", 5, 10),
        *problem("r", "c", 1, 10),
    ]
    part = plugin(
        "group_dro",
        variant="worst_share",
        share=0.4,
        domain_sizes={"a": 5, "b": 3, "c": 2},
    )
    build_batch(step, [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.weights.tolist() == pytest.approx([0.05, 0.48, 0.47])


def test_the_worst_share_looks_at_running_failure_rates():
    """a fails 0.2 then 0.9: 0.9 * 0.2 + 0.1 * 0.9 = 0.27, still below b's 0.8."""
    part = plugin("group_dro", variant="worst_share", share=0.5, floor=0.0)
    build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    swapped = [*problem("q", "a", 1, 10), *problem("p", "b", 2, 10)]
    build_batch(swapped, [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[part])
    assert part.losses.tolist() == pytest.approx([0.27, 0.8])
    assert part.weights.tolist() == pytest.approx([0, 1])


def test_a_resumed_run_goes_on_with_the_same_weights():
    first, second = plugin("group_dro", rate=1.0), plugin("group_dro", rate=1.0)
    build_batch(worked_step(), [solve_layer(advantage=Z_SCORE)], CENTRED, plugins=[first])
    second.load_state_dict(first.state_dict())
    assert factors(second, worked_step()) == factors(first, worked_step())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adjustment": 1.0}, "adjustment = 1.0: needs the number"),
        ({"start": "frequency"}, "start = frequency: needs the number"),
        ({"domain_sizes": {"a": 0}}, "must be above 0"),
    ],
)
def test_what_it_cannot_work_with_is_refused(settings, message):
    config = run_config(plugins=[{"use": "group_dro", "settings": settings}])
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, LearnerPlugin)
