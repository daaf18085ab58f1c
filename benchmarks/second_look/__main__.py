"""The command: do what is left, one policy after the other, and write the page.

    python -m benchmarks.second_look --minutes 120     # goes on where it stopped
    python -m benchmarks.second_look --family chain_sum    # beside the other family's, on two cores
    python -m benchmarks.second_look --list            # what is done and what is left
    python -m benchmarks.second_look --row confirming-chain_sum-mgrpo-0.0002-3  # again, printed
    python -m benchmarks.second_look --scale one_gpu --plan 1xH100-80GB    # before a GPU is used
    python -m benchmarks.second_look --scale one_gpu --minutes 480         # a policy of 1B, on it

A trial's row is written when it is done, so nothing but an unfinished trial is lost by stopping.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.commands import CommandFailed, stop_on_sigterm
from benchmarks.machine import REPOSITORY
from benchmarks.measured_page import write_measured
from benchmarks.second_look.design import ARMS, Trial, trials_at
from benchmarks.second_look.figure import differences_figure
from benchmarks.second_look.page import describe
from benchmarks.second_look.planned import plan_text
from benchmarks.second_look.rows import Results
from benchmarks.second_look.scales import SCALES, Scale
from benchmarks.second_look.tuning import chosen_rate, tuning_trials
from benchmarks.second_look.work import MGRPO, Work
from mgrpo.commands.plan import chosen_shape
from mgrpo.config import ModelConfig
from mgrpo.errors import MgrpoError

TITLE = "When does a second look make a better policy?"
RESULTS = REPOSITORY / "docs" / "results"


def main(argv: Sequence[str] | None = None, program: Sequence[str] = MGRPO) -> int:
    """Returns 0, also when --minutes left something; 1 when a trial failed."""
    args = parse(argv)
    stop_on_sigterm()
    scale: Scale = SCALES[args.scale]
    results = Results(args.results or results_file(scale), scale)
    work = Work(args.runs, program)
    try:
        if args.plan:
            print(plan_text(scale, args.plan, chosen_shape(args, ModelConfig(path=scale.model))))
            return 0
        if args.row:
            print(json.dumps(asdict(work.do(trial_named(args.row, results)))))
            return 0
        if args.list:
            print(listing(results))
            return 0
        families = args.family or list(scale.families)
        failed = do_rest(results, work, families=families, minutes=args.minutes)
        page = describe(results)
        print(page)
        if args.write:
            figure = results.path.with_suffix(".svg")
            figure.write_text(differences_figure(results), encoding="utf-8")
            picture = f"![First turns of each arm against the reference]({figure.name})"
            write_measured(results.path.with_suffix(".md"), f"{page}\n\n{picture}", title=TITLE)
    except (CommandFailed, MgrpoError) as error:
        tell(f"error: {error}")
        return 1
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.second_look",
        description="Compare arms with and without a second look; see docs/results/protocol.md.",
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="small",
        help="the policy and its machine; default: small",
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="start no trial after M minutes")
    every = [family for scale in SCALES.values() for family in scale.families]
    parser.add_argument(
        "--family", nargs="+", choices=every, help="only these; default: all of the scale"
    )
    parser.add_argument(
        "--plan", metavar="1xH100-80GB", help="show memory and hours on such GPUs, and end"
    )
    parser.add_argument(
        "--parameters", metavar="1.5B", help="for --plan: the size of a model that is not here"
    )
    parser.add_argument("--list", action="store_true", help="show what is done and what is left")
    parser.add_argument("--row", metavar="NAME", help="run one trial and print its row")
    parser.add_argument("--write", action="store_true", help="update the page and its figure")
    parser.add_argument("--results", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--runs", type=Path, default=REPOSITORY / "runs" / "second_look", metavar="DIR"
    )
    args = parser.parse_args(argv)
    if unknown := set(args.family or ()) - set(SCALES[args.scale].families):
        parser.error(f"--family {' '.join(unknown)} is not of --scale {args.scale}")
    return args


def results_file(scale: Scale) -> Path:
    """The rows of a scale; beside them the page and its figure."""
    of_scale = "" if scale.name == "small" else f"_{scale.name}"
    return RESULTS / f"second_look{of_scale}.json"


def do_rest(
    results: Results, work: Work, *, families: Sequence[str], minutes: float | None
) -> list[str]:
    """Trial after trial; the names of those that failed."""
    began, failed = time.monotonic(), set[str]()
    while (trial := next(left(results, families, failed), None)) is not None:
        if minutes is not None and time.monotonic() - began >= 60 * minutes:
            tell(f"stopped after {minutes:g} minutes\n{listing(results)}")
            break
        started = time.monotonic()
        tell(f"{trial.name} ...")
        try:
            row = work.do(trial)
        except CommandFailed as error:
            failed.add(trial.name)
            tell(str(error))
            continue
        results.add(row)
        seconds = time.monotonic() - started
        tell(f"{trial.name}: t1 {100 * row.t1:.1f}, t2 {100 * row.t2:.1f} %, {seconds:.0f} s")
    return sorted(failed)


def left(results: Results, families: Sequence[str], failed: set[str]) -> Iterator[Trial]:
    """What is to be done now, in turns over arms, so that a drift of the machine meets all."""
    for trial in known_trials(results):
        is_asked = trial.family in families and trial.name not in failed
        if is_asked and not results.of([trial]):
            yield trial


def known_trials(results: Results) -> list[Trial]:
    """All that tuning asks for so far, then seed by seed what it has decided."""
    pairs = [(family, arm) for family in results.scale.families for arm in ARMS]
    tuning = [tuning_trials(results, family, arm) for family, arm in pairs]
    rates = [chosen_rate(results, family, arm) for family, arm in pairs]
    confirming = [
        trials_at("confirming", family, arm, rate)
        for (family, arm), rate in zip(pairs, rates, strict=True)
        if rate is not None
    ]
    return [*(one for some in tuning for one in some), *in_turns(confirming)]


def in_turns(lists: Sequence[Sequence[Trial]]) -> list[Trial]:
    """The first of each list, then the second of each."""
    return [some[place] for place in range(max(map(len, lists), default=0)) for some in lists]


def trial_named(name: str, results: Results) -> Trial:
    """
    Raises:
        CommandFailed: the study has no such trial.
    """
    for trial in [*known_trials(results), *(row.trial for row in results.rows)]:
        if trial.name == name:
            return trial
    raise CommandFailed(f"There is no trial {name!r}; --list shows those that there are.")


def listing(results: Results) -> str:
    """A line for each trial that is known by now, then the counts."""
    trials = known_trials(results)
    done = {row.trial for row in results.rows}
    lines = [f"{'done' if trial in done else 'to do':<6} {trial.name}" for trial in trials]
    num_done = sum(trial in done for trial in trials)
    scale = results.scale
    undecided = len(scale.families) * len(ARMS) * scale.num_seeds["confirming"] - sum(
        trial.phase == "confirming" for trial in trials
    )
    counts = f"{num_done} of {len(trials)} done"
    return "\n".join(
        [*lines, f"{counts}; {undecided} more wait for the tuning" if undecided else counts]
    )


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code)
