"""A short run of the whole program at learning rate 0: nothing may change by it.

It finds what a look at the recipe cannot: weights that change on their way to the engines and back,
an update that does more than its optimizer, engines that sample otherwise after a broadcast.
"""

from __future__ import annotations

import hashlib
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
        bound = config.alarms.mismatch.threshold
        return [
            weight_line(digests(first), digests(last)),
            gap_line(read_metrics(run_dir), bound),
            *accuracy_lines(read_evaluations(run_dir)),
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


def gap_line(metrics: Sequence[Row], bound: float | None) -> CheckLine:
    """Engine against learner, on what was sampled before and after a broadcast.

    Args:
        bound: alarms.mismatch.threshold, nats a token; None: any.
    """
    gaps = [row[GAP] for row in metrics if row.get(GAP) is not None]
    said = (
        f"engine and learner differ by {', then '.join(f'{gap:.3g}' for gap in gaps)} nats a token"
    )
    if bound is not None and (not gaps or max(gaps) > bound):
        return CheckLine("fail", "canary log-probs", f"{said}; alarms.mismatch allows {bound:g}.")
    return CheckLine("ok", "canary log-probs", said)


def accuracy_lines(evaluations: Sequence[Row]) -> Iterator[CheckLine]:
    """The same problems, decoded before and after."""
    if len(evaluations) < 2:
        return
    before, after = evaluations[0]["acc"], evaluations[-1]["acc"]
    said = [
        f"Acc@t{turn} {one:.1%} and {other:.1%}"
        for turn, (one, other) in enumerate(zip(before, after, strict=True), start=1)
    ]
    shown = f"before and after {NUM_STEPS} steps: {', '.join(said)}"
    if before == after:
        yield CheckLine("ok", "canary accuracy", shown)
    else:
        yield CheckLine(
            "warn",
            "canary accuracy",
            f"{shown}. With the same weights, engines decode otherwise: a few problems in 16-bit "
            "types, none in float32.",
        )
