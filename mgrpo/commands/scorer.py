"""`mgrpo scorer train`: a prefix scorer from recorded completions, for WS-GRPO.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgrpo.errors import DataError, RunDirectoryError

if TYPE_CHECKING:
    from rich.console import Console

    from mgrpo.methods.ws_grpo.scorer_training import EpochResult, Fit
    from mgrpo.types import Completion

KINDS = ("mlp_on_embeddings", "reward_head")
EXAMPLES = """\
examples:
  mgrpo scorer train --rollouts runs/quickstart --model default --output scorers/sums
  mgrpo scorer train --rollouts runs/*/rollouts --model runs/quickstart/policy \\
      --output scorers/sums-head --kind reward_head --learning-rate 1e-4

--model should be the model that a run will start from: the scorer reads its hidden states.
"""


def add_scorer(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `mgrpo scorer` to its parser."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    train = actions.add_parser(
        "train",
        help="learn from recorded completions which prefixes lead to right answers",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "--rollouts",
        metavar="PATH",
        nargs="+",
        required=True,
        help="runs, their rollouts/ folders, or files of completions (.jsonl)",
    )
    train.add_argument(
        "--model", metavar="M", required=True, help="the base model: any value of model.path"
    )
    train.add_argument("--output", metavar="DIR", required=True, help="where to write the scorer")
    train.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="an MLP on the frozen model's hidden states (default), or a linear head with the "
        "model trained too",
    )
    train.add_argument(
        "--epochs",
        metavar="N",
        type=number_type(int, above=0),
        help="passes over the pairs; default: 10 for an MLP, 2 for a reward head",
    )
    train.add_argument(
        "--learning-rate",
        metavar="X",
        type=number_type(float, above=0),
        help="default: 1e-3 for an MLP, 1e-5 for a reward head",
    )
    train.add_argument(
        "--hidden-units",
        metavar="N",
        type=number_type(int, above=0),
        default=512,
        help="width of the MLP; default: 512",
    )
    train.add_argument(
        "--pairs-per-problem",
        metavar="N",
        type=number_type(int, above=0),
        default=64,
        help="maximum number of pairs per problem; default: 64",
    )
    train.add_argument(
        "--prefixes",
        metavar="N",
        type=number_type(int, at_least=0),
        default=4,
        help="also learn from the prompt and the first 1/N, 2/N, ... of each completion; 0: only "
        "from whole completions, as in the paper; default: 4",
    )
    train.add_argument(
        "--holdout",
        metavar="SHARE",
        type=number_type(float, at_least=0, below=1),
        default=0.1,
        help="share of the problems that are held out and only evaluated; default: 0.1",
    )
    train.add_argument("--seed", metavar="N", type=number_type(int, at_least=0), default=0)
    train.set_defaults(run_command=run_scorer_train)


def number_type(
    kind: type[int] | type[float],
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
) -> Callable[[str], float]:
    """An argparse type: a number within bounds."""
    bounds = [
        text
        for bound, text in ((above, f"above {above}"), (at_least, f"{at_least} or more"))
        if bound is not None
    ] + ([f"below {below}"] if below is not None else [])

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        is_sound = (
            (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (below is None or value < below)
            and abs(value) != float("inf")
        )
        if not is_sound:
            noun = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {noun} {' and '.join(bounds)}")
        return value

    return read


def run_scorer_train(args: argparse.Namespace) -> int:
    """Read, pair, split, train, save; print the results."""
    from rich.console import Console

    from mgrpo.config import StorageConfig
    from mgrpo.methods.ws_grpo.scorer_files import refuse_existing
    from mgrpo.models.node_model import driver_model

    output = Path(args.output).expanduser()
    refuse_existing(output)  # before the minutes that training takes
    model_dir = driver_model(args.model, StorageConfig())()
    completions = read_completions(args.rollouts)

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Saving a model makes transformers import DeepSpeed, which warns where it is left to guess.
    os.environ.setdefault("DS_ACCELERATOR", device)
    from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
    from mgrpo.methods.ws_grpo.scorer_pairs import make_pairs, split_by_problem
    from mgrpo.methods.ws_grpo.scorer_training import ScorerTraining

    pairs = make_pairs(completions, max_per_problem=args.pairs_per_problem, seed=args.seed)
    train, held_out = split_by_problem(pairs, holdout=args.holdout, seed=args.seed)
    scorer = PrefixScorer.create(
        model_dir,
        kind=args.kind,
        hidden_units=args.hidden_units,
        base_model=args.model,
        seed=args.seed,
        device=device,
    )
    settings = ScorerTraining(
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        prefixes=args.prefixes,
        seed=args.seed,
    )
    console = Console(highlight=False)
    console.print(
        f"{args.kind} on {args.model}: {describe(train)} to train on, {describe(held_out)} "
        f"held out, from {len(completions):,} completions",
        soft_wrap=True,
    )
    train_with_progress(console, scorer, train, held_out, settings)
    scorer.save(output)
    console.print(f"scorer saved to {output}", soft_wrap=True)
    return 0


def train_with_progress(
    console: Console,
    scorer: Any,
    train: Sequence[Any],
    held_out: Sequence[Any],
    settings: Any,
) -> list[EpochResult]:
    """Train with a live line on a terminal; everywhere, a line per epoch."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from mgrpo.methods.ws_grpo.scorer_training import train_scorer

    is_live = console.is_terminal and not console.is_dumb_terminal
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not is_live) as live:
        task = live.add_task("batch", total=None)

        def show_epoch(result: EpochResult) -> None:
            live.console.print(epoch_line(result), soft_wrap=True)

        return train_scorer(
            scorer,
            train,
            held_out,
            settings,
            on_progress=lambda done, total: live.update(task, completed=done, total=total),
            on_epoch=show_epoch,
        )


def epoch_line(result: EpochResult) -> str:
    """An epoch's fits, the same names in the same order every time."""
    when = f"epoch {result.epoch}" if result.epoch else "untrained"
    line = f"{when:<9}  train: {fit_words(result.train)}"
    return line if result.held_out is None else f"{line}  held out: {fit_words(result.held_out)}"


def fit_words(fit: Fit) -> str:
    from mgrpo.report.words import percent

    prefixes = "" if fit.prefix_accuracy is None else f", prefixes {percent(fit.prefix_accuracy)}"
    return f"pairs ordered {percent(fit.accuracy)}{prefixes}, loss {fit.loss:.4f}"


def describe(pairs: Sequence[Any]) -> str:
    """Some pairs, in numbers."""
    from mgrpo.report.words import plural

    return f"{plural(len(pairs), 'pair')} of {plural(len({p.problem for p in pairs}), 'problem')}"


def read_completions(paths: Sequence[str]) -> list[Completion]:
    """Every completion of some runs, rollouts folders and files; each file once, in order.

    Raises:
        DataError: a path does not exist, holds no completions, or a line is none.
    """
    from mgrpo.metrics.log import read_rollouts

    completions: list[Completion] = []
    files = [file for path in paths for file in files_of(Path(path).expanduser())]
    for file in dict.fromkeys(file.resolve() for file in files):
        try:
            completions += read_rollouts(file)
        except RunDirectoryError as error:
            raise DataError(
                f"{file} does not hold recorded completions: {error}. Give the rollouts of a run, "
                "or completions that an evaluation saved."
            ) from error
    return completions


def files_of(path: Path) -> list[Path]:
    """The files of completions of a path."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"There is no {path}. Give a run, its rollouts/ folder, or a .jsonl file.")
    folder = path / "rollouts" if (path / "rollouts").is_dir() else path
    files = sorted(folder.glob("step-*.jsonl"))
    if not files:
        raise DataError(
            f"{folder} holds no recorded completions (step-*.jsonl). A run writes them where "
            "output.rollouts_per_step is above 0."
        )
    return files
