"""The study's page: what the tests say, the table of every arm, and the tuning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from benchmarks.second_look.analysis import (
    LEVEL,
    MARGIN,
    Test,
    confirmed,
    equal_token_tests,
    first_turn_tests,
    second_turn_tests,
)
from benchmarks.second_look.design import (
    ARMS,
    OF_MGRPO,
    REFERENCE,
    TOKEN_REFERENCE,
    recipe_of,
    trials_at,
)
from benchmarks.second_look.rows import Results, Row
from benchmarks.second_look.tuning import chosen_rate, tried_rates, tuned_accuracy
from mgrpo.config.load import load_recipe
from mgrpo.metrics.intervals import half_width

COLUMNS = (
    *("Arm", "rate", "seeds", "first turn, %", "second turn, %", "wrong→right, %"),
    *("right→wrong, %", "area, %", "completions", "generated, k tokens", "prompts, k tokens"),
    "training, s",
)
AROUND = "Means over seeds with their 95 % intervals (t)."


def describe(results: Results) -> str:
    """Markdown. Sentences that no test carries are not here."""
    blocks = [answer(results)]
    for family in results.scale.families:
        blocks += [
            f"## {family}",
            table(COLUMNS, arm_rows(results, family)),
            AROUND,
            f"First turn against {title(REFERENCE)}, in points, paired by seed:",
            test_table([one for one in first_turn_tests(results) if one.family == family]),
            f"The same against {title(TOKEN_REFERENCE)}:",
            test_table([one for one in equal_token_tests(results) if one.family == family]),
            "Second turn against the second of two independent attempts, in points:",
            test_table([one for one in second_turn_tests(results) if one.family == family]),
        ]
        if len(results.scale.rates) > 1:
            what = "Tuning: accuracy of first attempts (%) by learning rate, bold where chosen:"
            blocks += [what, tuning_lines(results, family)]
    return "\n\n".join(blocks)


def answer(results: Results) -> str:
    """The study's question, and how far it is answered."""
    scale = results.scale
    num_seeds = scale.num_seeds["confirming"]
    num_done = sum(
        len(confirmed(results, family, arm)) for family in scale.families for arm in ARMS
    )
    num_all = len(scale.families) * len(ARMS) * num_seeds
    if num_done < num_all:
        return (
            f"**Not decided yet: {num_done} of {num_all} confirming runs are done.** Until then "
            "tests below are of those that are."
        )
    first = above_on_all(first_turn_tests(results), scale.families)
    second = above_on_all(second_turn_tests(results), scale.families)
    reached = [arm for arm in OF_MGRPO if arm in first and arm in second]
    return (
        f"**The goal is {'' if reached else 'not '}reached: variants of MGRPO above "
        f"{title(REFERENCE)} on first attempts, and above an independent attempt on second turns, "
        f"on both families: {titles(reached)}.** First attempts above: {titles(first)}. Second "
        f"turns above: {titles(second)}. (p < {LEVEL:g} after Holm, {num_seeds} seeds of "
        f"{scale.steps} steps with {scale.prompts_per_step} problems.)"
    )


def above_on_all(tests: Sequence[Test], families: Iterable[str]) -> list[str]:
    """Arms that are above in every family."""
    above = {(one.family, one.arm) for one in tests if one.decision == "above"}
    return [arm for arm in ARMS if all((family, arm) in above for family in families)]


def titles(arms: Sequence[str]) -> str:
    return "; ".join(map(title, arms)) or "of no arm"


def arm_rows(results: Results, family: str) -> list[list[str]]:
    found = []
    for arm in ARMS:
        rows = confirmed(results, family, arm)
        rate = chosen_rate(results, family, arm)
        cells = (
            [
                *(share(rows, name) for name in ("t1", "t2", "wrong_to_right", "right_to_wrong")),
                share(rows, "area"),
                f"{mean(rows, 'completions'):,.0f}",
                f"{mean(rows, 'generated_tokens') / 1000:,.0f}",
                f"{mean(rows, 'prompt_tokens') / 1000:,.0f}",
                f"{mean(rows, 'training_s'):,.0f}",
            ]
            if rows
            else [""] * (len(COLUMNS) - 3)
        )
        found.append([title(arm), "" if rate is None else f"{rate:g}", str(len(rows)), *cells])
    return found


def test_table(tests: Sequence[Test]) -> str:
    head = ("Arm", "difference", "95 % interval", "p", "p, Holm", f"p, within {100 * MARGIN:g}", "")
    return table(
        head,
        [
            [
                title(one.arm),
                f"{100 * one.difference.mean:+.1f}",
                f"{100 * (one.difference.mean - one.difference.half_width):+.1f} to "
                f"{100 * (one.difference.mean + one.difference.half_width):+.1f}",
                p_text(one.difference.p),
                p_text(one.p_holm),
                "" if one.p_equivalent is None else p_text(one.p_equivalent),
                one.decision,
            ]
            for one in tests
        ],
    )


def tuning_lines(results: Results, family: str) -> str:
    lines = []
    for arm in ARMS:
        chosen, cells = chosen_rate(results, family, arm), []
        for rate in tried_rates(results, family, arm):
            trials = trials_at("tuning", family, arm, rate)
            if len(results.of(trials)) == len(trials):
                text = f"{rate:g}: {100 * tuned_accuracy(results, family, arm, rate):.1f}"
                cells.append(f"**{text}**" if rate == chosen else text)
        lines.append(f"- {title(arm)}: {', '.join(cells) or 'nothing yet'}")
    return "\n".join(lines)


def title(arm: str) -> str:
    """What the arm's recipe calls itself."""
    return load_recipe(recipe_of(arm)).description


def share(rows: Sequence[Row], name: str) -> str:
    values = [100 * getattr(row, name) for row in rows]
    width = half_width(values)
    return f"{fmean(values):.1f}" if width is None else f"{fmean(values):.1f} ± {width:.1f}"


def mean(rows: Sequence[Row], name: str) -> float:
    return fmean(getattr(row, name) for row in rows)


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
