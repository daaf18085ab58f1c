"""The arithmetic of the study's tables and curves."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks.machine import REPOSITORY
from benchmarks.study.figure import curves_figure
from benchmarks.study.page import Column, accuracy_table, difference_block, mean_rows
from benchmarks.study.plan import late_accuracy
from benchmarks.study.results import Cost, Result, Scores, cost_of, scores_of, trained_tokens
from benchmarks.study.runs import Trial
from mgrpo.evaluation.seeds import welch


def result(
    recipe: str, seed: int, acc_t1: float, acc_t2: float, curve: list[list[float]] | None = None
) -> Result:
    """A finished run; `curve` holds its accuracies every ten steps."""
    rows = [{"step": 10 * index, "acc": acc} for index, acc in enumerate(curve or [])]
    return Result(
        method=recipe.upper(),
        trial=Trial(recipe=recipe, seed=seed),
        learning_rate=2.5e-4,
        scores=Scores(
            acc_t1=acc_t1, acc_t2=acc_t2, wrong_to_right=0.1, right_to_wrong=0.0, copies=0.5
        ),
        sampled=acc_t1 / 2,
        cost=Cost(
            completions=256,
            generated_tokens=5000 + 1000 * seed,
            trained_tokens=4000,
            prompt_tokens=3000,
            training_s=60,
            wall_s=120,
        ),
        evaluations=rows,
        environment={},
    )


def test_a_cell_holds_mean_and_sample_standard_deviation():
    column = Column("Acc, %", lambda r: r.scores.acc_t1, scale=100)
    results = [result("grpo", seed, share, share) for seed, share in enumerate((0.8, 0.9, 1.0))]

    assert column.mean_and_sd(results) == "90.0 ± 10.0"


def test_one_seed_has_no_spread():
    column = Column("Δ, points", lambda r: r.scores.delta, scale=100, is_signed=True)

    assert column.mean_and_sd([result("grpo", 0, 0.8, 0.75)]) == "-5.0"


def test_each_method_has_its_own_row_and_the_start_comes_first():
    results = [
        result("grpo", 0, 0.8, 0.7),
        result("grpo", 1, 0.9, 0.8),
        result("mgrpo", 0, 0.6, 0.9),
    ]
    start = Scores(acc_t1=0.355, acc_t2=0.355, wrong_to_right=0, right_to_wrong=0, copies=1)

    rows = accuracy_table(results, start).splitlines()[2:]

    assert rows == [
        "| before training |  |  | 35.5 | 35.5 | +0.0 | 0.0 | 0.0 | 100.0 |",
        "| GRPO | 0.00025 | 42.5 ± 3.5 | 85.0 ± 7.1 | 75.0 ± 7.1 | -10.0 ± 0.0 | 10.0 ± 0.0 "
        "| 0.0 ± 0.0 | 50.0 ± 0.0 |",
        "| MGRPO | 0.00025 | 30.0 | 60.0 | 90.0 | +30.0 | 10.0 | 0.0 | 50.0 |",
    ]


def test_welch_of_two_samples_worked_by_hand():
    """Equal variances 2/3 and sizes: Student's t with 6 degrees, error sqrt(2 * (2/3) / 4)."""
    first, error = [1.0, 2.0, 3.0, 2.0], math.sqrt(1 / 3)
    # The table of t with 6 degrees: P(|T| < 2.446912) = 0.95, P(|T| < 1.439756) = 0.8.
    found = welch(first, [value + 1.439756 * error for value in first])
    assert found is not None
    assert found.mean == pytest.approx(1.439756 * error)
    assert found.half_width == pytest.approx(2.446912 * error, rel=1e-5)
    assert found.p == pytest.approx(0.2, abs=1e-6)


def test_without_a_spread_there_is_no_interval():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_differences_are_to_the_first_method_with_what_the_seeds_leave_open():
    """The rows of the recorded study: delta of GRPO and of MGRPO."""
    shares = {"grpo": [(0.92, 0.894), (0.92, 0.947), (0.925, 0.895)]}
    shares["mgrpo"] = [(0.93, 0.933), (0.9, 0.911), (0.92, 0.916)]
    results = [
        result(recipe, seed, *both)
        for recipe, rows in shares.items()
        for seed, both in enumerate(rows)
    ]
    block = difference_block(results)
    assert "Differences to GRPO" in block
    assert block.splitlines()[-1].endswith(
        "| -0.5 ± 3.6 (p = 0.63) | +0.8 ± 6.6 (p = 0.70) | +1.3 ± 7.4 (p = 0.56) |"
    )
    assert difference_block(results[:3]) == ""


def tables_of(page: str) -> list[list[dict[str, str]]]:
    """Every table of a Markdown page: a row is its cells by their columns' titles."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        )
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def test_the_recorded_page_prints_the_intervals_of_its_own_rows():
    """Nobody writes a difference by hand that the rows do not have."""
    page = (REPOSITORY / "docs" / "results" / "methods.md").read_text(encoding="utf-8")
    tables = [table for table in tables_of(page) if table]
    (seeds,) = [table for table in tables if "Method, seed" in table[0]]
    (_, differences, *_) = [table for table in tables if "Δ" in str([*table[0]])]
    rows: dict[str, list[dict[str, str]]] = {}
    for row in seeds:
        rows.setdefault(row["Method, seed"].rpartition(", ")[0], []).append(row)
    first, *others = rows
    assert [row["Method"] for row in differences] == others
    for line in differences:
        for column in [title for title in line if title != "Method"]:
            own = [
                [float(v) for row in rows[name] for t, v in row.items() if t.startswith(column)]
                for name in (first, line["Method"])
            ]
            found = welch(*own)
            assert found is not None
            # The page's are of the rows before they were rounded to a tenth.
            said = [float(number) for number in re.findall(r"[-+]?\d+\.?\d*", line[column])]
            known = (found.mean, found.half_width, max(found.p, 0.01))
            for number, expected, rounding in zip(said, known, (0.15, 0.3, 0.02), strict=True):
                assert number == pytest.approx(expected, abs=rounding), line[column]


def test_tokens_are_shown_in_thousands():
    column = Column("k tokens", lambda r: r.cost.generated_tokens, scale=1e-3)

    assert mean_rows([result("a", 0, 0, 0), result("a", 2, 0, 0)], [column]) == [
        ["A", "6.0 ± 1.4"]  # 5 and 7 thousand
    ]


def test_a_runs_cost_is_the_sum_over_its_steps():
    rows: list[dict[str, Any]] = [
        {
            "layer1/completions": 4,
            "layer1/prompt_tokens_mean": 10.0,
            "layer2/completions": 12,
            "layer2/prompt_tokens_mean": 50.0,
            "tokens/generated": 400,
            "learner/tokens": 300,
            "learner/skipped_updates": 0.0,
            "seconds/step": 2.0,
        },
        {  # every attempt ran out of tokens: no corrections, and nothing to train on
            "layer1/completions": 4,
            "layer1/prompt_tokens_mean": 20.0,
            "layer2/completions": 0,
            "tokens/generated": 100,
            "learner/skipped_updates": 1.0,
            "seconds/step": 1.0,
        },
    ]

    assert cost_of(rows, num_updates=1, wall_s=9.0) == Cost(
        completions=20,
        generated_tokens=500,
        trained_tokens=300,
        prompt_tokens=4 * 10 + 12 * 50 + 4 * 20,
        training_s=3.0,
        wall_s=9.0,
    )


@pytest.mark.parametrize(
    ("skipped", "tokens"),
    [(0.0, 200.0), (0.5, 100.0), (1.0, 0.0)],
    ids=["both updates", "one of two", "none"],
)
def test_trained_tokens_add_up_over_the_updates_of_a_step(skipped, tokens):
    row = {"learner/tokens": 100.0, "learner/skipped_updates": skipped}

    assert trained_tokens(row, num_updates=2) == tokens


def test_scores_come_from_the_first_transition():
    row = {
        "acc": [0.5, 0.7],
        "transitions": [{"wrong_to_right": 0.3, "right_to_wrong": 0.1, "copy_fraction": 0.25}],
    }

    scores = scores_of(row)

    assert scores == Scores(
        acc_t1=0.5, acc_t2=0.7, wrong_to_right=0.3, right_to_wrong=0.1, copies=0.25
    )
    assert scores.delta == pytest.approx(0.3 - 0.1)


def test_the_rate_is_chosen_by_the_last_ten_steps_alone():
    rows = [{"layer1/accuracy": 0.0}] * 5 + [{"layer1/accuracy": 0.4}, {"layer1/accuracy": 0.6}] * 5

    assert late_accuracy(rows) == pytest.approx(0.5)


def test_a_method_without_a_second_layer_is_drawn_in_the_first_panel_alone():
    results = [
        result("grpo", 0, 0.8, 0.8, curve=[[0.3], [0.8]]),
        result("mgrpo", 0, 0.8, 0.8, curve=[[0.3, 0.3], [0.7, 0.8]]),
        result("mgrpo", 1, 0.8, 0.8, curve=[[0.3, 0.3], [0.9, 0.8]]),
    ]

    drawing = ET.fromstring(curves_figure(results))
    svg = {"svg": "http://www.w3.org/2000/svg"}
    panels = [drawing.find(f".//svg:g[@id='axes_{number}']", svg) for number in (1, 2)]
    looks = [
        re.findall(
            r"stroke: var\(--(c\d)\).*?stroke-width: ([\d.]+)",
            "\n".join(path.get("style", "") for path in panel.findall(".//svg:path", svg)),
        )
        for panel in panels
        if panel is not None
    ]

    thin, thick = "0.8", "1.9"
    assert looks == [
        [("c0", thick), ("c1", thin), ("c1", thin), ("c1", thick)],
        [("c1", thin), ("c1", thin), ("c1", thick)],
    ]
    assert "MGRPO from 30.0 % to 80.0 %" in str(drawing.get("aria-label"))
