"""What people read of an evaluation."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from mgrpo.config import EvaluationConfig
from mgrpo.config.load import load_recipe
from mgrpo.evaluation.comparison import compare
from mgrpo.evaluation.evaluate import evaluation_row
from mgrpo.evaluation.summary import Evaluation
from mgrpo.evaluation.tables import (
    TextTable,
    comparison_note,
    comparison_table,
    evaluation_note,
    evaluation_tables,
    markdown,
)
from mgrpo.report.words import MINUS
from mgrpo.training.progress import print_comparison, print_evaluation
from tests.mgrpo.evaluation.test_comparison import two_turns
from tests.mgrpo.evaluation.test_summary import one_turn, random_chains, sampled


def row_of(evaluation: Evaluation) -> dict[str, Any]:
    recipe = load_recipe("quickstart")
    return evaluation_row(evaluation, step=0, label="eval", seconds=1.0, layers=recipe.layers)


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def printed(row: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_evaluation(console, row, title="a model")
    return plain(console.file.getvalue())


def test_accuracies_moves_phrases_and_domains_are_shown():
    text = printed(row_of(Evaluation(random_chains(40, 2, 3), 2, EvaluationConfig())))
    assert "First attempt, Acc@t1'" in text and "After turn 2, Acc@t2" in text
    assert "95 % interval" in text and "over phrases" in text
    assert "From turn 1 to turn 2: " in text and "wrong at turn 1" in text
    assert "2: One moment, I want to be certain there is no slip." in text
    assert "even" in text and "odd" in text
    assert "40 held-out problems, greedy decoding, seed 0." in text
    assert "the mean over all phrases" in text and "1,000 resamples" in text


def test_the_moves_are_counts_with_their_shares():
    [_, moves] = evaluation_tables(row_of(two_turns("++--", "+-+-")) | {"domains": {}}, "m")
    assert plain(moves.title) == (
        f"From turn 1 to turn 2: 25.0 {MINUS} 25.0 = 0.0 points; 50.0 % keep the answer, "
        "50.0 % of the wrong ones"
    )
    assert [[plain(cell) for cell in row] for row in moves.rows] == [
        ["right at turn 1", "1 (25.0 %)", "1 (25.0 %)"],
        ["wrong at turn 1", "1 (25.0 %)", "1 (25.0 %)"],
    ]


def test_three_turns_have_a_table_for_each_step_and_for_the_whole_way():
    tables = evaluation_tables(
        row_of(Evaluation(random_chains(9, 3, 1), 3, EvaluationConfig())), "m"
    )
    titles = [table.title.split(":")[0] for table in tables]
    assert titles[1:4] == [
        "From turn 1 to turn 2",
        "From turn 2 to turn 3",
        "From turn 1 to turn 3",
    ]


def test_several_samples_show_averages_pass_and_majority():
    evaluation = Evaluation(one_turn({"e0": ["7", "8", "7", "7"]}), 1, sampled(4, temperature=0.7))
    row = row_of(evaluation)
    [table] = evaluation_tables(row, "m")
    assert list(table.columns) == ["Turn", "avg@4", "pass@2", "pass@4", "maj@2", "maj@4"]
    assert [plain(cell) for cell in table.rows[0][1:]] == [
        "75.0 %",
        "100.0 %",
        "100.0 %",
        "100.0 %",
        "100.0 %",
    ]
    assert "4 samples of each at temperature 0.7" in plain(evaluation_note(row))


def test_failed_checks_are_mentioned():
    evaluation = Evaluation(random_chains(20, 2, 2, failing=0.2), 2, EvaluationConfig())
    assert "checks failed (timeout or error)" in plain(evaluation_note(row_of(evaluation)))


def test_every_row_is_as_long_as_its_header():
    for num_turns in (1, 2, 3):
        evaluation = Evaluation(random_chains(9, num_turns, 2), num_turns, EvaluationConfig())
        for table in evaluation_tables(row_of(evaluation), "m"):
            assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_comparison_names_its_tests():
    a, b = two_turns("+" + "-" * 8, "+" * 9), two_turns("-" + "+" * 8, "+" * 9)
    comparison = compare(a, b)
    table = comparison_table(comparison, ["mine", "theirs"])
    assert table.title == "A: mine against B: theirs"
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.rows[0][-3:] == ["0.039", "exact McNemar", "1 : 8"]
    assert table.rows[2][-2:] == ["paired bootstrap", ""]
    assert plain(comparison_note(comparison)).startswith("9 problems answered by both")
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_comparison(console, comparison, names=("mine", "theirs"))
    assert "exact McNemar" in console.file.getvalue()


def test_markdown_cells_cannot_leave_their_cells():
    text = markdown([TextTable("a | b", ["x", "y"], [["1 | 2", "3\n4"]])], "A note.")
    assert text == ("**a \\| b**\n\n| x | y |\n| --- | ---: |\n| 1 \\| 2 | 3 4 |\n\nA note.\n")
