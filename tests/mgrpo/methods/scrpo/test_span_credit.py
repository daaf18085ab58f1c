"""ScRPO's credit: on the analysis, and only where it led to a right answer."""

import pytest

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import completion, layer, long, plugin, solve_layer

EXACT = ObjectiveConfig()
Z_SCORE = {"ddof": 0, "epsilon": 0.0}
CHAIN = [solve_layer(advantage=Z_SCORE), layer(advantage=Z_SCORE, select="none")]


def corrections():
    """One right and one wrong, each with an analysis of 3 of its 7 tokens: advantages 1, -1."""
    spans = {"analysis": [(0, 3)]}
    return [long("q/1/1", 1.0, 7, spans=spans), long("q/1/2", 0.0, 7, spans=spans)]


def credited(completions, *layers, **settings):
    parts = [plugin("span_credit", *layers, **settings)]
    return build_batch(completions, CHAIN, EXACT, plugins=parts)


@pytest.mark.parametrize(
    ("attribution", "right", "wrong"),
    [
        ("analysis_on_success", [1, 1, 1, 0, 0, 0, 0], [0] * 7),
        ("analysis_always", [1, 1, 1, 0, 0, 0, 0], [-1, -1, -1, 0, 0, 0, 0]),
        ("all_tokens", [1] * 7, [-1] * 7),
    ],
)
def test_who_is_credited(attribution, right, wrong):
    rows = credited(corrections(), 2, attribution=attribution).all_rows
    assert [row.advantages.tolist() for row in rows] == [right, wrong]


def test_what_carries_no_credit_is_not_computed():
    batch = credited(corrections(), 2)
    assert [row.completion_id for row in batch.rows] == ["q/1/1"]
    assert batch.metrics["span_credit/credited_fraction"] == (3.0, 14.0)
    assert batch.selections[0].advantage == pytest.approx(3 / 7)


def test_a_completion_without_the_part_gets_no_credit():
    family = [*corrections(), long("q/1/3", 1.0, 2)]
    assert credited(family, 2).all_rows[2].advantages.tolist() == [0.0, 0.0]


def test_another_span_may_be_credited_in_several_pieces():
    spans = {"steps": [(0, 1), (3, 4)]}
    family = [long("q/1/1", 1.0, 4, spans=spans), completion("q/1/2", 0.0)]
    assert credited(family, 2, span="steps").all_rows[0].advantages.tolist() == [1, 0, 0, 1]


def test_first_attempts_keep_their_advantages():
    attempts = [completion("q/1", 1.0), completion("q/2", 0.0)]
    rows = credited([*attempts, *corrections()], 2).all_rows
    assert [row.advantages.tolist() for row in rows[:2]] == [[1.0], [-1.0]]
