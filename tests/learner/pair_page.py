"""The page of the pairs of methods: what goes together, what warns, what is refused and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tests.learner import method_pairs

if TYPE_CHECKING:
    from tests.learner.pair_worker import Outcome

COMMAND = "python -m tests.learner.pair_worker --write"
GENERAL = {
    r"a recipe has one policy objective": "A recipe has one policy objective, and both bring one.",
    r"has estimate_advantages, and so has": "Only one plug-in of a recipe may estimate advantages.",
    r"uses no rewards or advantages": (
        "`disco` uses no rewards or advantages, so what the other does to them would have no "
        "effect or a wrong one."
    ),
    r"averages scores per completion|compares right with wrong answers: layer": (
        "`disco` averages scores per completion over whole groups: its layers need aggregation: "
        "seq_mean, denominator: sampled and select: none."
    ),
    r"has no effect beside": "A clip key of the one has no effect beside the other's objective.",
    r"has one ratio for a whole completion, so completions": (
        "`gmpo` and `gspo` have one ratio for a whole completion, so completions must weigh the "
        "same: aggregation: seq_mean."
    ),
    r"would tear pairs apart": "`dpo` trains whole pairs, and the other leaves completions out.",
    r"rewards are the advantages, and nothing is compared": (
        "`raft` takes rewards for advantages: every layer needs advantage: raw_reward."
    ),
    r"has a clipped ratio": "`raft` with a clipped ratio, and the other's `reinforce` has none.",
    r"works on a layer that another one corrects": (
        "`expert_anchor` would add solutions to a layer that another one corrects."
    ),
}
"""Reasons that differ only in names, said once."""


def combinations_page(outcomes: Sequence[Outcome]) -> str:
    """Markdown: the counts, the rule, then refusals and warnings by reason."""
    refused = [one for one in outcomes if one.kind == "refused"]
    ran = [one for one in outcomes if one.kind == "ran"]
    warned = [(one, text) for one in ran for text in map(shortened, one.reasons) if text]
    methods = {name for one in outcomes for name in (one.first, one.second)}
    rule = method_pairs.__doc__ or ""
    return "\n".join(
        [
            "# Which methods go together",
            "",
            f"Every pair of the {len(methods)} recipes under `recipes/methods/`, {len(outcomes)} "
            f"in all, made one recipe and tried on a tiny policy: **{len(ran)} make a real update, "
            f"{len(refused)} are refused before anything starts**, each with a reason. Pairs that "
            "are not listed below run without a word. A refusal often names the one key to change; "
            "the pair then runs.",
            "",
            f"Written by `{COMMAND}`; `make test-methods` tries all of them again.",
            "",
            "## How two methods become one recipe",
            "",
            rule.partition("\n\n")[2].strip(),
            "",
            "## Refused",
            "",
            *table(
                ("Reason", "Pairs"),
                grouped((general(one.reasons[0]), pair(one)) for one in refused),
            ),
            "",
            "## Run, with a warning",
            "",
            *table(("Warning", "Pairs"), grouped((text, pair(one)) for one, text in warned)),
            "",
        ]
    )


def pair(one: Outcome) -> str:
    return f"{one.first}\xa0+\xa0{one.second}"


def general(reason: str) -> str:
    """The reason without the names that differ from pair to pair."""
    for pattern, words in GENERAL.items():
        if re.search(pattern, reason):
            return words
    return re.sub(r"^plugins\.\d+\.(use|settings\.\S+) = ([^:]+): ", r"`\2` ", reason)


def shortened(warning: str) -> str:
    """A plug-in's warning without its place; "" for those of the recipe alone."""
    found = re.match(r"plugins\.\d+ \((\w+)\): (.*)", warning)
    if found is not None:
        return f"`{found[1]}`: {found[2]}"
    return warning if "no effect" in warning else ""


def grouped(entries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs by what is said of them, what concerns most first."""
    found: dict[str, dict[str, None]] = {}
    for text, name in entries:
        found.setdefault(text, {})[name] = None
    ordered = sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    return [(text, ", ".join(names)) for text, names in ordered]


def table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return lines + [f"| {first.replace('|', '¦')} | {second} |" for first, second in rows]
