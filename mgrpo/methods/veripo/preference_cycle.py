"""Steps on rollouts and steps on preference pairs of them, in turn (VerIPO).

While rollouts train, the verifier's pairs of them are kept. When a phase of pairs begins, its pairs
are fixed, and so is the reference of their objective: the policy as it is then. Its log-probability
of each completion is a number, measured once, so no second model is held and a checkpoint resumes
the phase exactly.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from mgrpo.methods.veripo.pair_side import PairSide
from mgrpo.methods.veripo.preference_pairs import (
    PreferencePair,
    make_consistency_check,
    pairs_of_group,
)
from mgrpo.methods.veripo.settings import PairKind, PreferenceSettings
from mgrpo.records.json_object import JsonObject
from mgrpo.types import STORED_PAIR, Completion, CompletionId


class PreferenceCycle:
    """The pairs of a run: those waiting, and those of the phase that trains on them."""

    def __init__(self, config: PreferenceSettings, *, seed: int, prompts_per_step: int) -> None:
        self.config, self.seed, self.prompts_per_step = config, seed, prompts_per_step
        self.is_consistent = make_consistency_check(self.config.verifier)
        self.waiting: deque[PreferencePair] = deque(maxlen=self.config.capacity)
        self.phase_pairs: list[PreferencePair] = []
        self.ref_logprobs: list[float] = []  # chosen, rejected, chosen, ... of phase_pairs
        self.num_taken = 0  # of phase_pairs, repetitions counted
        self.num_phases = 0
        self.is_training_pairs = False
        self.solved: set[str] = set()  # problems answered right every time since the last phase
        self.dropped: set[str] = set()  # problems that are never asked again

    # --- steps on rollouts ---

    def add(self, completions: Sequence[Completion]) -> dict[str, int]:
        """Keep the pairs of a step's completions, and which problems are solved.

        Returns:
            Pairs by kind.
        """
        self.is_training_pairs = False
        groups: dict[tuple[int, str, bytes], list[Completion]] = {}
        for one in completions:
            prompt = (one.layer, one.group_key, one.prompt_token_ids.tobytes())
            groups.setdefault(prompt, []).append(one)
        counts: dict[str, int] = dict.fromkeys(get_args(PairKind), 0)
        for group in groups.values():
            for pair in pairs_of_group(group, self.config, self.is_consistent):
                self.waiting.append(pair)
                counts[pair.kind] += 1
            self.note_solved(group)
        return counts

    def note_solved(self, group: Sequence[Completion]) -> None:
        """A problem is solved while every first attempt at it is right."""
        correctness = [one.is_correct for one in group if one.reward and one.reward.is_usable]
        if group[0].layer == 1 and correctness:
            change = self.solved.add if all(correctness) else self.solved.discard
            change(group[0].problem_id)

    # --- steps on pairs ---

    def begin(self, measure: Callable[[list[Completion]], list[float]], num_problems: int) -> None:
        """Fix the pairs of a phase and their reference, and drop solved problems.

        Args:
            measure: the policy's log-probability of each completion, under its weights now.
            num_problems: of the training data; at least a step's worth is never dropped.
        """
        self.is_training_pairs = True
        self.phase_pairs, self.num_taken = list(self.waiting), 0
        self.waiting.clear()
        random.Random(f"{self.seed}/pairs/{self.num_phases}").shuffle(self.phase_pairs)
        sides = [one for pair in self.phase_pairs for one in (pair.chosen, pair.rejected)]
        self.ref_logprobs = measure(sides) if sides else []
        self.drop_solved(num_problems)
        self.num_phases += 1

    def drop_solved(self, num_problems: int) -> None:
        config = self.config
        rng = random.Random(f"{self.seed}/solved/{self.num_phases}")
        candidates = sorted(self.solved - self.dropped)
        always = max(self.prompts_per_step, config.min_problems)
        wanted = round(config.drop_solved_fraction * len(candidates))
        allowed = max(0, num_problems - len(self.dropped) - always)
        self.dropped |= set(rng.sample(candidates, min(wanted, allowed)))
        self.solved.clear()

    def take(self, step: int) -> list[Completion]:
        """The two sides of the next pairs, as completions of their own groups; [] where there are
        none left."""
        total = len(self.phase_pairs)
        left = self.config.pairs_per_step
        if self.config.when_exhausted == "skip":
            left = min(left, total - self.num_taken)
        places = [(self.num_taken + n) % total for n in range(min(left, total))]
        self.num_taken += len(places)
        rows: list[Completion] = []
        for slot, place in enumerate(places):
            pair = self.phase_pairs[place]
            logprobs = self.ref_logprobs[2 * place : 2 * place + 2]
            rows += pair_rows(pair, CompletionId(step, slot), logprobs)
        return rows

    # --- checkpoints ---

    def state_dict(self) -> JsonObject:
        """Plain values, fit for JSON."""
        return {
            "waiting": [pair_json(pair) for pair in self.waiting],
            "phase_pairs": [pair_json(pair) for pair in self.phase_pairs],
            "ref_logprobs": self.ref_logprobs,
            "num_taken": self.num_taken,
            "num_phases": self.num_phases,
            "is_training_pairs": self.is_training_pairs,
            "solved": sorted(self.solved),
            "dropped": sorted(self.dropped),
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue where `state_dict` was taken."""
        self.waiting = deque(map(pair_of, state["waiting"]), maxlen=self.config.capacity)
        self.phase_pairs = [pair_of(row) for row in state["phase_pairs"]]
        self.ref_logprobs = list(state["ref_logprobs"])
        self.num_taken, self.num_phases = state["num_taken"], state["num_phases"]
        self.is_training_pairs = bool(state["is_training_pairs"])
        self.solved, self.dropped = set(state["solved"]), set(state["dropped"])


def pair_rows(
    pair: PreferencePair, tree: CompletionId, ref_logprobs: Sequence[float]
) -> list[Completion]:
    """The chosen and the rejected completion, named after their slot in a step.

    They have no parents: pairs are compared with each other alone. An older policy sampled their
    tokens, so what was recorded then says nothing of this one.
    """
    of_chosen, of_rejected = ref_logprobs
    return [
        stored_side(pair.chosen, tree, 0, PairSide(pair.kind, 1, of_chosen)),
        stored_side(pair.rejected, tree, 1, PairSide(pair.kind, -1, of_rejected)),
    ]


def stored_side(one: Completion, tree: CompletionId, number: int, side: PairSide) -> Completion:
    stored = replace(
        one,
        id=tree.child(number),
        group_key=str(tree),
        parent_id=None,
        augmented_by=STORED_PAIR,
        sampled_mask=np.zeros(len(one.token_ids), dtype=np.bool_),
    )
    return side.on(stored)


def pair_json(pair: PreferencePair) -> dict[str, object]:
    return {
        "kind": pair.kind,
        "chosen": pair.chosen.to_json(),
        "rejected": pair.rejected.to_json(),
    }


def pair_of(row: JsonObject) -> PreferencePair:
    return PreferencePair(
        kind=row["kind"],
        chosen=Completion.from_json(row["chosen"]),
        rejected=Completion.from_json(row["rejected"]),
    )
