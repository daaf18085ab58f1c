"""Pairs of methods: each is refused with a reason, or makes one real update of a tiny policy.

    python -m tests.learner.pair_worker                     # all pairs, a JSON object per line
    python -m tests.learner.pair_worker --sample 60         # some, always the same ones
    python -m tests.learner.pair_worker gspo lead           # one
    python -m tests.learner.pair_worker --write             # all, into docs/methods/combinations.md

A process of its own, since DeepSpeed stays in the one that imports it. Nothing but engines, Ray
and the step's order is left out: plug-ins are loaded and started, signals measured, the loss put
together and the optimizer stepped by the learner that trains elsewhere, in each phase.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.warnings import warnings_of
from mgrpo.errors import ConfigError
from mgrpo.methods.catalog import method_files
from mgrpo.types import EXPERT, Completion, Reward
from tests.learner.builders import save_tiny_llama
from tests.learner.method_cases import made_up_step, save_scorer
from tests.learner.method_pairs import combined
from tests.learner.rank_worker import OneOfSeveral
from tests.repository import REPOSITORY

PAGE = REPOSITORY / "docs" / "methods" / "combinations.md"
SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a pair."""

    first: str
    second: str
    kind: Literal["ran", "refused"]
    reasons: list[str]  # why it was refused; else the warnings
    has_signal: bool = True  # the made-up step moved the policy


class Pairs:
    """The recipes, the tiny policy, and learners one after the other."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.model_dir = save_tiny_llama(
            folder / "policy",
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        scorer = save_scorer(folder)
        own = {"ws_grpo": [f"plugins.1.settings.scorer={scorer}"]}
        settings = ["learner.num_threads=1", "model.dtype=float32", "prompts_per_step=2"]
        self.recipes = {
            name: load_recipe(f"methods/{name}", [*settings, *own.get(name, [])])
            for name in method_files()
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def outcome(self, first: str, second: str) -> Outcome:
        """Raises whatever stops an update that the recipe's checks let pass."""
        try:
            config = combined(self.recipes[first], self.recipes[second])
            has_signal = self.update(config)
        except ConfigError as error:
            reasons = [str(problem) for problem in error.problems]
            return Outcome(first=first, second=second, kind="refused", reasons=reasons)
        warnings = [*plugin_warnings(config), *warnings_of(config)]
        return Outcome(
            first=first, second=second, kind="ran", reasons=warnings, has_signal=has_signal
        )

    def update(self, config: RunConfig) -> bool:
        """One update in each phase; false where no phase moved the policy.

        Raises:
            ConfigError: a plug-in refuses the recipe.
        """
        learner = OneOfSeveral(
            config=config,
            model_dir=str(self.model_dir),
            rank=0,
            num_ranks=1,
            master_address="127.0.0.1",
            master_port=self.port,
            device="cpu",
        )
        completions = with_expert(config, made_up_step(config))
        norms = []
        for first_step, _ in config.phase_configs:
            result = learner.update(completions, step=first_step)
            assert result is not None and len(result.verdicts) == len(completions)
            total, count = result.metrics.get("learner/grad_norm", (0.0, 1.0))
            assert math.isfinite(total), f"gradient norm {total}"
            norms.append(total / count)
        learner.engine.destroy()
        return max(norms) > 0


def with_expert(config: RunConfig, completions: list[Completion]) -> list[Completion]:
    """The step with a worked solution in its first group, where the recipe adds such."""
    if all(entry.use != "expert_anchor" for entry in config.plugins):
        return completions
    last = next(one for one in completions if one.layer == len(config.layers))
    expert = dataclasses.replace(
        last,
        id=last.id.apart("expert"),
        rollout_logprobs=[0.0] * len(last.token_ids),
        sampled_mask=[False] * len(last.token_ids),
        train_mask=None,
        spans={},
        augmented_by=EXPERT,
        reward=Reward(value=1.0, correct=True),
    )
    return [*completions, expert]


def chosen_pairs(names: list[str], sample: int | None) -> Iterator[tuple[str, str]]:
    """Every unordered pair of methods, or some of them, always the same for the same methods."""
    pairs = list(itertools.combinations(sorted(names), 2))
    if sample is not None:
        pairs = sorted(random.Random(SEED).sample(pairs, min(sample, len(pairs))))
    yield from pairs


def main() -> int:
    """1 where a pair fails: it is neither refused nor does it run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; none: all")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of the pairs")
    parser.add_argument("--write", action="store_true", help="write the page")
    args = parser.parse_args()
    outcomes, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder))
        for first, second in chosen_pairs(args.names or list(pairs.recipes), args.sample):
            try:
                outcomes.append(pairs.outcome(first, second))
            except Exception as error:  # whatever it is, it is named with its pair
                failed = True
                print(f"{first} + {second}: {type(error).__name__}: {error}", file=sys.stderr)
            else:
                print(json.dumps(dataclasses.asdict(outcomes[-1])))
    if args.write and not failed:
        from tests.learner.pair_page import combinations_page

        PAGE.write_text(combinations_page(outcomes), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
