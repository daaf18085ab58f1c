"""An evaluation's completions as numbers.

Everything is counted over *chains*: a first attempt, one correction of it, one correction of
that, and so on. A chain with a check that failed (timeout, error) is left out of every turn, so
that all turns cover the same attempts and, for any two consecutive turns, exactly

    accuracy after - accuracy before = wrong_to_right - right_to_wrong

The definitions are SCoRe's (arXiv 2409.12917), which MGRPO (arXiv 2506.04746) uses too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from actors.layers import stable_seed
from mgrpo.config import EvaluationConfig
from mgrpo.config.evaluation import DecodeSelectConfig
from mgrpo.evaluation.decode_select import selected_vote
from mgrpo.evaluation.statistics import (
    CONFIDENCE,
    Floats,
    accuracy_intervals,
    maj_at_k,
    pass_at_k,
)
from mgrpo.metrics.transitions import (
    Transitions,
    count_transitions,
    final_answer,
    is_answer_known,
    is_usable,
)
from mgrpo.metrics.verdicts import count_verdicts
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion, CompletionId
from rewards.answer_text import key, tidy


@dataclass(frozen=True, slots=True)
class Chain:
    """One attempt with its successive corrections."""

    turns: tuple[Completion, ...]  # by layer: the attempt, its correction, the correction of that
    verdicts: tuple[Completion, ...] = ()  # of verify layers, which leave the answer as it is
    phrase: int | None = None  # of guidance, of the first later layer; those behind it keep it

    @property
    def tree(self) -> CompletionId:
        """The problem's tree, which differs also between repeated problems."""
        return self.turns[0].id.tree

    @property
    def domain(self) -> str:
        return self.turns[0].domain

    @property
    def is_usable(self) -> bool:
        return all(is_usable(completion) for completion in (*self.turns, *self.verdicts))


def chains_of(completions: Sequence[Completion], num_turns: int) -> list[Chain]:
    """Every complete chain, in the order of the first attempts: those that reach the last layer,
    and those that a verdict ended, with the attempt that it accepted in the turns from there on."""
    by_id = {completion.id: completion for completion in completions}
    read = {completion.id.parent for completion in completions}
    chains = []
    for completion in completions:
        is_accepted = bool(completion.accepts) and completion.id not in read
        if completion.layer == num_turns or is_accepted:
            lineage = [completion]
            while lineage[0].parent_id is not None:
                lineage.insert(0, by_id[lineage[0].id.parent])
            chains.append(chain_of(lineage, num_turns))
    return chains


def chain_of(lineage: Sequence[Completion], num_turns: int) -> Chain:
    """
    Args:
        lineage: an attempt and what followed from it, verdicts too.
    """
    answers = [one for one in lineage if one.accepts is None]
    by_layer = [
        [one for one in answers if one.layer <= layer][-1] for layer in range(1, num_turns + 1)
    ]
    return Chain(
        turns=tuple(by_layer),
        verdicts=tuple(one for one in lineage if one.accepts is not None),
        phrase=lineage[1].guidance_id if len(lineage) > 1 else None,
    )


@dataclass(frozen=True)
class Evaluation:
    """All completions of one evaluation; `summary` turns them into numbers.

    Args:
        completions: of all turns.
        num_layers: turns of the chain.
        settings: sampling settings, and the statistics to compute.
        seed: of the sampling and of the bootstrap.
        anchors: the greedy answers of all turns, if samples are compared with them.
        verify_layers: those that give verdicts; the answer after one is that before it.
    """

    completions: list[Completion]
    num_layers: int
    settings: EvaluationConfig
    seed: int = 0
    anchors: Sequence[Completion] = ()
    verify_layers: frozenset[int] = frozenset()

    @property
    def bootstrap_seed(self) -> int:
        """Never negative: numpy's generators refuse negative seeds."""
        return stable_seed(self.seed, "bootstrap")

    @cached_property
    def chains(self) -> list[Chain]:
        """The chains without failed checks."""
        return [c for c in chains_of(self.completions, self.num_layers) if c.is_usable]

    @property
    def phrases(self) -> list[int]:
        """Phrases used for every attempt; none if each attempt has its own draw."""
        if self.settings.guidance == "random":
            return []
        return sorted({chain.phrase for chain in self.chains if chain.phrase is not None})

    def accuracy(self, turn: int, *, domain: str | None = None) -> float:
        """Share of right answers of one turn."""
        chains = [chain for chain in self.chains if domain in (None, chain.domain)]
        return accuracies(chains, self.num_layers)[turn - 1]

    def by_problem(self) -> dict[CompletionId, list[Chain]]:
        """Place of a problem -> its chains, in the order of the problems."""
        return grouped(self.chains, lambda chain: chain.tree)

    def summary(self) -> JsonObject:
        """A line of evaluation.jsonl, without step, label and settings."""
        num_turns = self.num_layers
        domains = sorted({c.domain for c in self.completions})
        by_phrase = [
            accuracies([chain for chain in self.chains if chain.phrase == phrase], num_turns)
            for phrase in self.phrases
        ]
        numbers = {
            **outcome(self.completions, self.chains, num_turns, self.verify_layers),
            "acc_range": ranges(accuracies(self.chains, num_turns), by_phrase),
            "phrases": [
                {"index": phrase, "acc": values}
                for phrase, values in zip(self.phrases, by_phrase, strict=True)
            ],
            "domains": {
                domain: outcome(
                    [c for c in self.completions if c.domain == domain],
                    [chain for chain in self.chains if chain.domain == domain],
                    num_turns,
                    self.verify_layers,
                )
                for domain in domains
            },
            "num_failed_checks": sum(not is_usable(c) for c in self.completions),
        }
        return numbers | self.verdicts() | self.intervals() | self.several_samples()

    def verdicts(self) -> dict[str, object]:
        """`verdicts`: one entry per verify layer, if there is one."""
        if not self.verify_layers:
            return {}
        counted = {
            layer: count_verdicts(
                (chain.turns[layer - 1], verdict)
                for chain in self.chains
                for verdict in chain.verdicts
                if verdict.layer == layer
            )
            for layer in sorted(self.verify_layers)
        }
        return {
            "verdicts": [
                {"layer": layer, **one.shares(), "counts": dataclasses.asdict(one)}
                for layer, one in counted.items()
            ]
        }

    def intervals(self) -> dict[str, object]:
        """`ci`, if there is more than one problem."""
        problems = list(self.by_problem().values())
        if self.settings.bootstrap_resamples == 0 or len(problems) < 2:
            return {}
        correct_PT, num_chains_P = problem_table(problems, self.num_layers)
        acc, delta = accuracy_intervals(
            correct_PT,
            num_chains_P,
            num_resamples=self.settings.bootstrap_resamples,
            seed=self.bootstrap_seed,
        )
        return {
            "ci": {
                "level": CONFIDENCE,
                "resamples": self.settings.bootstrap_resamples,
                "acc": [list(interval) for interval in acc],
                "delta": list(delta) if self.num_layers > 1 else None,
            }
        }

    def several_samples(self) -> dict[str, object]:
        """`pass_at` and `maj_at`: k -> one value per turn, if there are several samples."""
        if self.settings.samples_per_problem == 1:
            return {}
        turns = range(self.num_layers)
        ks = self.settings.ks
        pass_at = {str(k): [self.mean_over_problems(turn, k, passes) for turn in turns] for k in ks}
        if not any(is_answer_known(completion) for completion in self.completions):
            return {"pass_at": pass_at}  # these checks read no answer to vote on
        maj_at = {str(k): [self.mean_over_problems(turn, k, votes) for turn in turns] for k in ks}
        return {"pass_at": pass_at, "maj_at": maj_at, **self.selected()}

    def selected(self) -> dict[str, object]:
        """`selected`: accuracy of the selected samples' vote, and the number of voting samples, by
        turn."""
        config = self.settings.decode_select
        if config is None:
            return {}
        turns = [self.selected_turn(turn, config) for turn in range(self.num_layers)]
        return {
            "selected": {
                **config.model_dump(mode="json"),
                "acc": [acc for acc, _ in turns],
                "kept_fraction": [kept for _, kept in turns],
            }
        }

    def selected_turn(
        self, turn: int, config: DecodeSelectConfig
    ) -> tuple[float | None, float | None]:
        """Means over a problem's phrases, then over problems; None if there is nothing.

        With the greedy answer as anchor, a problem whose greedy chain has a failed check is left
        out.
        """
        anchors = {
            (chain.tree, self.phrase_of(chain)): chain.turns[turn]
            for chain in chains_of(self.anchors, self.num_layers)
            if chain.is_usable
        }
        rights, kepts = [], []
        for tree, chains in self.by_problem().items():
            found = []
            for phrase, group in grouped(chains, self.phrase_of).items():
                anchor = anchors.get((tree, phrase))
                if anchor is None and config.anchor == "greedy":
                    continue
                samples = [chain.turns[turn] for chain in group]
                found.append(selected_vote(samples, anchor, config, vote))
            if found:
                rights.append(sum(one.is_right for one in found) / len(found))
                kepts.append(sum(one.num_kept / one.num_samples for one in found) / len(found))
        return share(sum(rights), len(rights)), share(sum(kepts), len(kepts))

    def phrase_of(self, chain: Chain) -> int | None:
        """The group key of samples that vote together; None if each had its own draw."""
        return None if self.settings.guidance == "random" else chain.phrase

    def mean_over_problems(
        self, turn: int, k: int, statistic: Callable[[Sequence[Completion], int], float]
    ) -> float | None:
        """A statistic of a problem's samples, averaged over its phrases, then over problems.

        Samples of different phrases are never mixed. A problem with fewer than k samples without
        failed checks does not count; None if no problem is left.
        """
        values = []
        for chains in self.by_problem().values():
            by_phrase = grouped(chains, self.phrase_of)
            here = [
                statistic([chain.turns[turn] for chain in group], k)
                for group in by_phrase.values()
                if len(group) >= k
            ]
            if here:
                values.append(sum(here) / len(here))
        return sum(values) / len(values) if values else None


def passes(samples: Sequence[Completion], k: int) -> float:
    return pass_at_k(len(samples), sum(c.is_correct for c in samples), k)


def votes(samples: Sequence[Completion], k: int) -> float:
    return maj_at_k([vote(c) for c in samples], [c.is_correct for c in samples], k)


def vote(completion: Completion) -> str | None:
    """The final answer in its canonical spelling; None if there is none."""
    answer = final_answer(completion)
    return None if answer is None else key(tidy(answer))


def outcome(
    completions: Sequence[Completion],
    chains: Sequence[Chain],
    num_turns: int,
    verify_layers: frozenset[int],
) -> dict[str, object]:
    """Accuracies and transitions of some problems, to every turn that may change the answer; with
    several of these also first to last."""
    whole_chain = count_moves(chains, 1, num_turns)
    later = [turn for turn in range(2, num_turns + 1) if turn not in verify_layers]
    numbers: dict[str, object] = {
        "num_problems": len({completion.id.tree for completion in completions}),
        "acc": accuracies(chains, num_turns),
        "delta": whole_chain.delta if later else None,
        "transitions": [
            transition_summary(turn, count_moves(chains, turn - 1, turn)) for turn in later
        ],
    }
    if len(later) > 1:
        numbers["whole_chain"] = transition_summary(num_turns, whole_chain)
    return numbers


def accuracies(chains: Sequence[Chain], num_turns: int) -> list[float]:
    """[num_turns] share of right answers of each turn."""
    return [
        sum(chain.turns[turn].is_correct for chain in chains) / max(1, len(chains))
        for turn in range(num_turns)
    ]


def ranges(pooled: Sequence[float], by_phrase: Sequence[Sequence[float]]) -> list[list[float]]:
    """[turns] of [lowest, highest] over the phrases; the first turn comes before any phrase."""
    if not by_phrase:
        return [[value, value] for value in pooled]
    columns = list(zip(*by_phrase, strict=True))
    return [[pooled[0], pooled[0]], *([min(column), max(column)] for column in columns[1:])]


def count_moves(chains: Iterable[Chain], before: int, after: int) -> Transitions:
    """The 2x2 counts between two turns, which count from 1."""
    return count_transitions((chain.turns[before - 1], chain.turns[after - 1]) for chain in chains)


def transition_summary(layer: int, transitions: Transitions) -> dict[str, object]:
    return {
        "layer": layer,
        **transitions.fractions(),
        "delta": transitions.delta,
        "copy_fraction": share(transitions.num_copies, transitions.num_answers_known),
        "copy_fraction_of_wrong": share(
            transitions.num_copies_of_wrong, transitions.num_answers_known_of_wrong
        ),
        "counts": dataclasses.asdict(transitions),
    }


def share(count: float, total: int) -> float | None:
    """None if the denominator is 0."""
    return count / total if total else None


def problem_table(problems: Sequence[Sequence[Chain]], num_turns: int) -> tuple[Floats, Floats]:
    """Right answers [P, T] and chains [P] of each problem."""
    correct = [
        [sum(chain.turns[turn].is_correct for chain in chains) for turn in range(num_turns)]
        for chains in problems
    ]
    return np.array(correct, dtype=np.float64), np.array([len(c) for c in problems], np.float64)


def grouped(chains: Iterable[Chain], name: Callable[[Chain], Any]) -> dict[Any, list[Chain]]:
    groups: dict[Any, list[Chain]] = {}
    for chain in chains:
        groups.setdefault(name(chain), []).append(chain)
    return groups
