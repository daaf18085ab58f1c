"""A short run of the whole program at learning rate 0: nothing may change by it.

It finds what a look at the recipe cannot: weights that change on their way to the engines and back,
an update that does more than its optimizer, engines that sample otherwise after a broadcast.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mgrpo.config.load import load_recipe
from mgrpo.findings import CheckLine
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.metrics.rows import Row
from mgrpo.storage.policies import POLICY_DIR, stepped_policies

NAME, NUM_STEPS, MAX_PROBLEMS = "canary", 2, 64
AT_REST = (
    *(f"name={NAME}", f"steps={NUM_STEPS}", "phases=[]", "early_stopping=null"),
    *("learner.learning_rate=0", "learner.warmup_steps=0", "learner.schedule=constant"),
    *("checkpoints.every_steps=0", "checkpoints.keep_best=null"),
    *("output.policy_every_steps=1", "output.trackers=[]", "output.report=false"),
    *(f"evaluation.max_problems={MAX_PROBLEMS}", "evaluation.every_steps=0"),
)
GAP = "mismatch/logprob_gap_mean"
EXACT_NATS = 1e-5
"""Engines and learner that differ by less compute in float32. With TF32 or 16-bit types they differ
by a hundred times as much."""
ERRORS = 3.0
"""Standard errors of a difference of accuracies that is no chance."""


def canary_lines(recipe: str, overrides: Sequence[str]) -> list[CheckLine]:
    """Train a recipe's first steps at learning rate 0, and compare before with after.

    Raises:
        MgrpoError: the run failed.
    """
    from mgrpo.plan.layout import laid_out_here
    from mgrpo.training.run import run_training

    with tempfile.TemporaryDirectory(prefix="mgrpo-canary-") as folder:
        config, _ = laid_out_here(
            load_recipe(recipe, [*overrides, *AT_REST, f"output.runs_dir={folder}"])
        )
        run_dir = Path(folder) / NAME
        run_training(config, run_dir)
        first, last = stepped_policies(run_dir)[0], run_dir / POLICY_DIR
        gaps = gaps_of(read_metrics(run_dir))
        is_exact = bool(gaps) and max(gaps) < EXACT_NATS
        return [
            weight_line(digests(first), digests(last)),
            gap_line(gaps, config.alarms.mismatch.threshold),
            *accuracy_lines(read_evaluations(run_dir), is_exact=is_exact),
        ]


def digests(policy: Path) -> dict[str, str]:
    """The hash of each file of weights."""
    found = {}
    for path in sorted(policy.glob("*.safetensors")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def weight_line(first: Mapping[str, str], last: Mapping[str, str]) -> CheckLine:
    changed = sorted(name for name in {*first, *last} if first.get(name) != last.get(name))
    if changed or not first:
        said = f"an update at learning rate 0 changed {', '.join(changed) or 'every file'}"
        return CheckLine("fail", "canary weights", f"{said}: the optimizer is not all that steps.")
    return CheckLine("ok", "canary weights", "an update at learning rate 0 changes none")


def gaps_of(metrics: Sequence[Row]) -> list[float]:
    """Engine against learner in each step, mean over its tokens in nats."""
    return [row[GAP] for row in metrics if row.get(GAP) is not None]


def gap_line(gaps: Sequence[float], bound: float | None) -> CheckLine:
    """Whether engine and learner agree on what was sampled before and after a broadcast.

    Args:
        bound: alarms.mismatch.threshold, nats a token; None: any.
    """
    said = (
        f"engine and learner differ by {', then '.join(f'{gap:.3g}' for gap in gaps)} nats a token"
    )
    if bound is not None and (not gaps or max(gaps) > bound):
        return CheckLine("fail", "canary log-probs", f"{said}; alarms.mismatch allows {bound:g}.")
    return CheckLine("ok", "canary log-probs", said)


def accuracy_lines(evaluations: Sequence[Row], *, is_exact: bool) -> Iterator[CheckLine]:
    """The same problems, decoded before and after by the same weights.

    Both evaluations draw with the same seeds: a sampled one repeats its tokens just as a greedy one
    does, and one rule holds for both. In float32 nothing but the last digit of a logit depends on
    what an engine batches, which changes no choice of a token: another accuracy means other weights
    or other requests, and is a failure. In coarser types so much depends on it that now and then
    another token is chosen or drawn, and what follows is as good as sampled anew. Another accuracy
    is then a warning, and a failure if even independent samples of so many problems would hardly
    differ by as much.

    Args:
        is_exact: engines and learner compute in float32.
    """
    if len(evaluations) < 2:
        return
    before, after = evaluations[0]["acc"], evaluations[-1]["acc"]
    turns = list(zip(before, after, strict=True))
    said = [f"Acc@t{turn} {a:.1%} and {b:.1%}" for turn, (a, b) in enumerate(turns, start=1)]
    shown = f"before and after {NUM_STEPS} steps: {', '.join(said)}"
    num_problems = evaluations[-1]["num_problems"]
    if before == after:
        yield CheckLine("ok", "canary accuracy", shown)
    elif is_exact or any(is_no_chance(a, b, num_problems) for a, b in turns):
        yield CheckLine(
            "fail",
            "canary accuracy",
            f"{shown}. With the same weights, engines decode otherwise by more than rounding does: "
            "they have other weights than the learner, or the evaluation is not the same twice.",
        )
    else:
        yield CheckLine(
            "warn",
            "canary accuracy",
            f"{shown}. With the same weights, engines decode a few problems otherwise, as 16-bit "
            "types and TF32 do.",
        )


def is_no_chance(before: float, after: float, num_problems: int) -> bool:
    """Whether accuracies of two independent samples would hardly differ by so much."""
    mean = (before + after) / 2
    error = math.sqrt(2 * mean * (1 - mean) / num_problems)
    return abs(after - before) > ERRORS * error
