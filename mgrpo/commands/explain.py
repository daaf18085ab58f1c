"""`mgrpo explain`: replay a recipe on recorded completions, without training on them.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.errors import DataError
from mgrpo.plugin import entries_of

if TYPE_CHECKING:
    from rich.console import Console

    from mgrpo.config import LayerConfig, MethodView, ModelConfig
    from mgrpo.explanation.replay import Explained, Explanation
    from mgrpo.types import Completion

EXAMPLES = """\
examples:
  mgrpo explain quickstart
  mgrpo explain runs/quickstart/rollouts/step-000003.jsonl --recipe success_only
  mgrpo explain rollouts.jsonl --recipe methods/igrpo layers.correct.select=groups_with_success
  mgrpo explain rollouts.jsonl --recipe methods/edge_grpo --layers 1 --model runs/NAME/policy

The loss is each completion's share of the policy loss of its optimizer step where every ratio is 1,
that is -sum(advantage x weight) over its tokens; KL and entropy terms are added to it. Denominators
count the completions of the file, or of a minibatch of it (objective.minibatches): where a run
recorded only some problems of a step (output.rollouts_per_step), shares are larger by that factor.
Plug-ins too see only these completions.
"""


HEADINGS = (
    "Completion",
    "Group",
    "Answer",
    "Reward",
    "Shaped",
    "Advantage",
    "Tokens",
    "Loss",
    "Trains",
)


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo explain` to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "batch",
        metavar="FILE",
        type=Path,
        help="recorded completions: rollouts/step-*.jsonl of a run, the run's folder or name for "
        "its last step, or a JSON array",
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="keys of the recipe")
    parser.add_argument(
        "--recipe", metavar="R", help="a recipe's file or name; default: that of the file's run"
    )
    parser.add_argument(
        "--step", metavar="N", type=whole_number, help="for phases; default: the file's own, or 0"
    )
    parser.add_argument(
        "--layers",
        metavar="N,...",
        type=layer_numbers,
        help="only completions of these layers, 1 for the first; others serve as their parents",
    )
    parser.add_argument(
        "--completion", metavar="ID", action="append", help="show this one; may be repeated"
    )
    parser.add_argument(
        "--tokens", action="store_true", help="show tokens even if all of them are treated alike"
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="the policy that sampled the completions, to measure on the CPU what plug-ins need "
        "and the file lacks: a folder, or what model.path may be",
    )
    parser.add_argument(
        "--annotate",
        action="store_true",
        help="let the recipe's plug-ins mark spans again, with the tokenizer of --model or of the "
        "recipe; without it spans are as recorded",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run_command=run_explain)


def whole_number(text: str) -> int:
    """An argparse type: 0, 1, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def layer_numbers(text: str) -> list[int]:
    """An argparse type: whole numbers from 1 with commas between."""
    found = [whole_number(part.strip()) for part in text.split(",")]
    if 0 in found:
        raise argparse.ArgumentTypeError("layers are numbered from 1")
    return found


def run_explain(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe
    from mgrpo.explanation.recorded import read_recorded, step_of

    batch = recorded_file(args.batch)
    recipe = args.recipe or recipe_of_run(batch)
    config = load_recipe(recipe, args.overrides)
    recorded = read_recorded(batch)
    layers = args.layers or sorted({completion.layer for completion in recorded.completions})
    refuse_other_chain(recorded.completions, layers, config.layers, recipe)
    step = step_of(batch) if args.step is None else args.step
    completions = recorded.completions
    if args.annotate:
        completions = annotate(completions, config.method_view, config.model, args.model)

    from mgrpo.config import StorageConfig
    from mgrpo.explanation.replay import explain_completions
    from mgrpo.models.node_model import driver_model

    explanation = explain_completions(
        completions,
        config.method_view,
        config.learner,
        layers=layers,
        step=step,
        measurements=recorded.measurements,
        model_dir=driver_model(args.model, StorageConfig())() if args.model else None,
    )
    shown = chosen(explanation.completions, args.completion)
    explanation = dataclasses.replace(explanation, completions=shown)
    heading = Heading(
        recipe=config.name,
        method=config.method,
        step=step,
        plugins=[one.name for one in entries_of(config.method_view)[0]],
    )
    if args.json:
        write_json(explanation, heading)
    else:
        show(explanation, heading, with_tokens=args.tokens or bool(args.completion))
    return 0


def recorded_file(given: Path) -> Path:
    """The file that is meant: itself, or the newest of a run by folder or name.

    Raises:
        RunDirectoryError: there is no such run.
        DataError: the run has recorded nothing.
    """
    from mgrpo.storage.run_directory import find_run

    if given.is_dir():
        return last_rollouts(given)
    if given.exists() or given.suffix in (".json", ".jsonl"):
        return given
    return last_rollouts(find_run(str(given)))


def last_rollouts(run_dir: Path) -> Path:
    """The newest step that a run has recorded.

    Raises:
        DataError: it is not a run's folder, or nothing was recorded.
    """
    files = sorted((run_dir / "rollouts").glob("step-*.jsonl"))
    if not files:
        raise DataError(
            f"{run_dir} has no rollouts/step-*.jsonl. Give a run's folder (its recipe must have "
            "output.rollouts_per_step above 0), or a file of completions."
        )
    return files[-1]


def recipe_of_run(batch: Path) -> str:
    """The recipe of the run of a recorded step.

    Raises:
        DataError: the file is not in a run's folder.
    """
    from mgrpo.storage.run_directory import CONFIG_FILE

    config = batch.resolve().parent.parent / CONFIG_FILE
    if not config.is_file():
        raise DataError(f"{batch} is not in a run's folder: name the recipe with --recipe.")
    return str(config)


def refuse_other_chain(
    completions: Sequence[Completion],
    layers: Sequence[int],
    chain: Sequence[LayerConfig],
    recipe: str,
) -> None:
    """Raise DataError where the completions have layers that the recipe lacks."""
    held = sorted({completion.layer for completion in completions})
    known = range(1, len(chain) + 1)
    names = ", ".join(layer.name for layer in chain)
    for number in layers:
        if number not in held:
            raise DataError(f"There is no completion of layer {number}. Layers here: {held}.")
        if number not in known:
            count = sum(completion.layer == number for completion in completions)
            fitting = ",".join(str(one) for one in held if one in known)
            raise DataError(
                f"{count} completions are of layer {number}, and the chain of {recipe} has "
                f"{len(chain)} ({names}). Take a recipe with as many layers, or leave "
                f"them out: --layers {fitting or 1}."
            )


def annotate(
    completions: Sequence[Completion], method: MethodView, model: ModelConfig, path: str | None
) -> list[Completion]:
    """The completions with their spans marked again.

    Args:
        path: of a model with another tokenizer than the recipe's; None: the recipe's.
    """
    from mgrpo.config import StorageConfig
    from mgrpo.explanation.replay import annotated
    from mgrpo.models.node_model import driver_model
    from mgrpo.models.policy_tokenizer import load_builder

    revision = None if path else model.revision
    source = driver_model(path or model.path, StorageConfig(), revision).driver_dir
    return annotated(completions, method, load_builder(source, model))


def chosen(explained: Sequence[Explained], names: Sequence[str] | None) -> list[Explained]:
    """The completions selected by --completion; all without it."""
    if not names:
        return list(explained)
    by_id = {one.completion.completion_id: one for one in explained}
    for name in names:
        if name not in by_id:
            near = difflib.get_close_matches(name, by_id, n=3) or list(by_id)[:3]
            raise DataError(f"There is no completion {name!r}. There is {', '.join(near)}, ...")
    return [by_id[name] for name in names]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What was explained."""

    recipe: str
    method: str
    step: int
    plugins: list[str]


def write_json(explanation: Explanation, heading: Heading) -> None:
    from mgrpo.metrics.log import to_line

    rows = [json_row(explained) for explained in explanation.completions]
    whole = {
        **dataclasses.asdict(heading),
        "notes": explanation.notes,
        "metrics": explanation.metrics,
        "completions": rows,
    }
    print(to_line(whole), end="")


def json_row(one: Explained) -> dict[str, object]:
    """A completion for programs; token ranges are [start, end)."""
    completion = one.completion
    assert completion.reward is not None, "unscored completions were refused"
    return {
        "completion_id": completion.completion_id,
        "problem_id": completion.problem_id,
        "layer": completion.layer,
        "parent_id": completion.parent_id,
        "group": one.group,
        "correct": completion.is_correct,
        "reward": completion.reward.value,
        "status": completion.reward.status,
        "shaped_reward": one.shaped_reward,
        "advantage": one.advantage,
        "selected": one.selected,
        "reason": one.reason,
        "has_gradient": one.has_gradient,
        "loss": one.loss,
        "num_tokens": len(completion.token_ids),
        "tokens": [dataclasses.asdict(tokens) for tokens in one.tokens],
    }


def show(explanation: Explanation, heading: Heading, *, with_tokens: bool) -> None:
    """A table for each problem, and below it the tokens where they differ."""
    import sys

    from rich.console import Console
    from rich.text import Text

    # No terminal limits the width of a pipe.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    parts = ", ".join(heading.plugins) or "none"
    title = f"{heading.recipe}: {heading.method}, step {heading.step}, plug-ins: {parts}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    by_problem: dict[str, list[Explained]] = {}
    for explained in explanation.completions:
        by_problem.setdefault(explained.completion.problem_id, []).append(explained)
    for problem, members in by_problem.items():
        console.print()
        console.print(Text(problem, style="bold"))
        show_problem(console, members, with_tokens=with_tokens)
    console.print()
    for note in explanation.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    console.print(Text(summary(explanation.completions)), soft_wrap=True)


def show_problem(console: Console, members: Sequence[Explained], *, with_tokens: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for index, head in enumerate(HEADINGS):
        is_number = 2 < index < len(HEADINGS) - 1
        table.add_column(
            head, justify="right" if is_number else "left", no_wrap=index < len(HEADINGS) - 1
        )
    for one in members:
        cells = [Text(cell) for cell in cells_of(one)]
        cells[-1].stylize("green" if one.selected and one.has_gradient else "dim")
        table.add_row(*cells)
    console.print(table)
    for one in members:
        if with_tokens or len(one.tokens) > 1:
            for line in token_lines(one):
                console.print(Text(line, style="dim"), soft_wrap=True)


def cells_of(one: Explained) -> list[str]:
    from mgrpo.report.words import number

    completion = one.completion
    assert completion.reward is not None, "unscored completions were refused"
    reward = completion.reward
    answer = "right" if completion.is_correct else "wrong"
    return [
        completion.completion_id,
        one.group,
        answer if reward.is_usable else reward.status,
        number(reward.value),
        "=" if one.shaped_reward == reward.value else number(one.shaped_reward),
        number(one.advantage),
        str(len(completion.token_ids)),
        number(one.loss + 0.0),
        fate(one),
    ]


def fate(one: Explained) -> str:
    if not one.selected:
        return f"no: {one.reason}"
    if not one.has_gradient:
        return "no: its loss and gradient are 0"
    is_policy_term = any(tokens.advantage * tokens.weight for tokens in one.tokens)
    return "yes" if is_policy_term else "yes: only by its KL or entropy term"


def token_lines(one: Explained) -> Iterator[str]:
    """One line per range of equally treated tokens; the last index is included."""
    from mgrpo.report.words import number

    yield f"  {one.completion.completion_id}, by token:"
    for tokens in one.tokens:
        places = (
            f"{tokens.start}"
            if tokens.end - tokens.start == 1
            else (f"{tokens.start}-{tokens.end - 1}")
        )
        parts = [f"advantage {number(tokens.advantage)}", f"weight {number(tokens.weight)}"]
        if tokens.entropy_weight:
            parts.append(f"entropy weight {number(tokens.entropy_weight)}")
        parts += [f"in {name}" for name in spans_at(one.completion, tokens.start)]
        yield f"    {places:>9}  {', '.join(parts)}"


def spans_at(completion: Completion, place: int) -> list[str]:
    return [
        name
        for name, ranges in completion.spans.items()
        if any(start <= place < end for start, end in ranges)
    ]


def summary(explained: Sequence[Explained]) -> str:
    from mgrpo.report.words import number

    training = [one for one in explained if one.selected and one.has_gradient]
    shaped = sum(
        one.completion.reward is not None and one.shaped_reward != one.completion.reward.value
        for one in explained
    )
    total = round(sum(row.loss for row in training), 12) + 0.0  # advantages that cancel leave 1e-17
    return (
        f"{len(training)} of {len(explained)} completions train, {shaped} have a shaped reward; "
        f"policy loss at ratio 1: {number(total)}"
    )
