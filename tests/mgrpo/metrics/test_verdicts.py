"""Verdicts against the checks of their attempts."""

from __future__ import annotations

from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.transitions import rollout_metrics
from mgrpo.metrics.verdicts import count_verdicts
from mgrpo.types import Completion
from tests.learner.builders import completion, with_status

RIGHT, WRONG = completion("q/1", 1.0), completion("q/2", 0.0)


def verdict(name: str, reward: float, accepts: bool) -> Completion:
    return completion(name, reward, accepts=accepts)


UNREADABLE = with_status(verdict("q/1/9", 0.0, False), "unparsable")
MADE = [
    *(RIGHT, WRONG),
    *(verdict("q/1/1", 1.0, True), verdict("q/1/2", 0.0, False), UNREADABLE),
    *(verdict("q/2/1", 1.0, False), verdict("q/2/2", 0.0, True), verdict("q/2/3", 1.0, False)),
]
PAIRS = [(RIGHT, one) for one in MADE[2:5]] + [(WRONG, one) for one in MADE[5:]]


def test_precision_and_recall_are_of_wrong_attempts() -> None:
    """4 rejected, an unreadable one among them, 2 of these wrong; 3 of wrong attempts."""
    shares = count_verdicts(PAIRS).shares()
    assert shares == {
        "accuracy": 3 / 6,
        "precision": 2 / 4,
        "recall": 2 / 3,
        "accepted_fraction": 2 / 6,
        "unreadable_fraction": 1 / 6,
    }


def test_a_failed_check_is_left_out_and_nothing_has_no_share() -> None:
    failed = with_status(verdict("q/2/4", 0.0, False), "timeout")
    assert count_verdicts([*PAIRS, (WRONG, failed)]) == count_verdicts(PAIRS)
    assert set(count_verdicts([]).shares().values()) == {None}


def test_a_step_s_metrics_have_verdicts_in_place_of_transitions() -> None:
    revised = completion("q/2/1/1", 1.0, parent_id="q/2")
    means = MetricSums(rollout_metrics([*MADE, revised], 3, frozenset({2}))).means()
    assert means["layer2/accuracy"] == 0.5 and means["verdict/layer2/recall"] == 2 / 3
    assert means["transition/layer3/wrong_to_right"] == 1.0
    assert not [name for name in means if name.startswith(("transition/layer2", "transition/all"))]
