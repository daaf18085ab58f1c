import pytest

from learner.schedule import learning_rate_at


def rates(schedule, *, num_updates, warmup_updates=0, updates=None):
    return [
        learning_rate_at(
            update,
            peak=1.0,
            num_updates=num_updates,
            warmup_updates=warmup_updates,
            schedule=schedule,
        )
        for update in range(updates or num_updates)
    ]


def test_the_warm_up_ends_at_the_peak():
    assert rates("constant", num_updates=5, warmup_updates=4) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_falls_evenly_and_spends_no_update_at_zero():
    assert rates("linear", num_updates=4) == [1.0, 0.75, 0.5, 0.25]
    assert rates("linear", num_updates=6, warmup_updates=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_cosine_is_at_half_its_peak_half_way():
    found = rates("cosine", num_updates=4)
    assert found == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_updates_beyond_the_plan_keep_the_last_rate():
    assert rates("linear", num_updates=2, updates=4) == [1.0, 0.5, 0.5, 0.5]


def test_a_warm_up_longer_than_the_run_never_divides_by_zero():
    assert rates("linear", num_updates=2, warmup_updates=4) == [0.25, 0.5]
