from mgrpo.report.outcome import (
    first_and_last,
    footnote,
    outcome_rows,
    outcome_sentence,
    training_sentence,
)
from tests.mgrpo.report.fake_run import make_evaluation


def sentence(*evaluations) -> str:
    return outcome_sentence(evaluations).replace("\u00a0", " ")


def measured(label: str, *acc: float, num_problems: int = 200, step: int = 0) -> dict:
    return {
        "step": step,
        "label": label,
        "num_problems": num_problems,
        "decoding": "greedy",
        "acc": list(acc),
    }


def test_a_rise_and_a_gain_are_told_in_words():
    assert sentence(measured("before", 0.42, 0.44), measured("after", 0.71, 0.74)) == (
        "First-attempt accuracy on 200 held-out problems rose from 42 % to 71 %; "
        "a second look adds 3 points."
    )


def test_a_fall_and_a_cost_are_told_as_plainly():
    assert sentence(measured("before", 0.6, 0.6), measured("after", 0.3, 0.29)) == (
        "First-attempt accuracy on 200 held-out problems fell from 60 % to 30 %; "
        "a second look costs 1 point."
    )


def test_a_change_within_twice_its_standard_error_is_called_chance():
    # 20 problems at 50 %: one standard error is 11 points, of the difference 15.8.
    text = sentence(
        measured("before", 0.5, num_problems=20), measured("after", 0.7, num_problems=20)
    )
    assert "rose from 50 % to 70 % (a change that chance alone can make" in text
    text = sentence(
        measured("before", 0.5, num_problems=2000), measured("after", 0.7, num_problems=2000)
    )
    assert "chance" not in text


def test_no_change_is_said_to_be_none():
    text = sentence(measured("before", 0.5, 0.5), measured("after", 0.501, 0.502))
    assert "stayed at 50 %; a second look changes nothing." in text


def test_an_interrupted_run_is_told_by_its_last_measurement():
    before, during = measured("before", 0.4), measured("during", 0.6, step=20)
    assert first_and_last([before, during]) == (before, during)
    assert "rose from 40 % to 60 % by step 20" in sentence(before, during)


def test_only_before_only_after_and_nothing_each_have_their_sentence():
    before = "Before training, first attempts solve 40 % of 200 held-out problems."
    assert sentence(measured("before", 0.4)) == before
    after = "After training, first attempts solve 40 % of 200 held-out problems; a second look adds"
    assert sentence(measured("after", 0.4, 0.5)).startswith(after)
    assert sentence() == ""


def test_the_table_has_accuracies_the_gain_the_transitions_and_each_domain():
    rows = outcome_rows(make_evaluation(0, "before", 0.42, 2), make_evaluation(9, "after", 0.71, 2))
    cells = {row.label: (row.before, row.after, row.change, row.better) for row in rows[:6]}
    assert cells["First attempt, Acc@t1'"] == ("42.0\u00a0%", "71.0\u00a0%", "+29.0", True)
    assert cells["After turn 2, Acc@t2"][0] == "45.0\u00a0% (43\u201347)"  # range over phrases
    assert cells["Gain of a second look, Δ"] == ("+3.0", "+3.0", "0.0", None)
    assert [row.label for row in rows if row.heading] == [
        "chain_sum · 100\u00a0problems",
        "number_sorting · 100\u00a0problems",
    ]


def test_more_broken_answers_are_worse_and_more_copies_neither():
    before = {"transitions": [{"layer": 2, "right_to_wrong": 0.1, "copy_fraction": 0.1}]}
    after = {"transitions": [{"layer": 2, "right_to_wrong": 0.2, "copy_fraction": 0.2}]}
    better = {row.label: row.better for row in outcome_rows(before, after)}
    assert better["Right → wrong"] is False
    assert better["Copies of the attempt"] is None


def test_the_footnote_gives_the_standard_error():
    # sqrt(0.5 * 0.5 / 100) = 0.05
    assert "accuracy: 5.0 points" in footnote(measured("after", 0.5, num_problems=100))


def test_sampled_accuracy_is_told_with_intervals_over_steps():
    """Means 0.5 and 0.7 of 4 steps each; their standard errors are 0.029 and 0, and t is 3.18."""
    first, last = [0.45, 0.55, 0.45, 0.55], [0.7] * 4
    steps = [{"layer1/accuracy": share} for share in [*first, *[0.6] * 32, *last]]
    said = training_sentence(steps).replace("\u00a0", " ")
    assert said == (
        "Sampled first-attempt accuracy in training rose from 50 % to 70 % (means over the first "
        "and the last tenth of the steps; 95 % intervals over steps ± 9 and ± 0)."
    )
    assert "interval" not in training_sentence(steps[:30])
    assert training_sentence([{"layer1/reward_mean": 1.0}]) == ""
