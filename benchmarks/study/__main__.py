"""The command: plan, do what is left, write the page.

Stopped by Ctrl-C, SIGTERM or --minutes, it resumes when it is started again: a run counts as done
if it is finished with its current settings. An unfinished one starts over. A failed run is named,
and the others continue.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import CommandFailed, stop_on_sigterm
from benchmarks.machine import REPOSITORY
from benchmarks.measured_page import write_measured
from benchmarks.study.figure import curves_figure
from benchmarks.study.page import Facts, describe
from benchmarks.study.plan import FOLDER, Job, Study, check_study, plan
from benchmarks.study.results import results_of, scores_of
from benchmarks.study.runs import MGRPO, Runs
from mgrpo.errors import MgrpoError

ARMS = ("grpo", "mgrpo", "strict_fix", "success_only", "igrpo")
RECIPES = tuple(f"{FOLDER}/{name}.yaml" for name in ARMS)
LEARNING_RATES = (2.5e-4, 5e-4)
TITLE = "Methods under one budget"


def main(argv: Sequence[str] | None = None, program: Sequence[str] = MGRPO) -> int:
    """Returns 0, also when --minutes left something; 1 when a run failed; 2 for a bad study."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse(arguments)
    stop_on_sigterm()
    study = Study(
        recipes=tuple(args.recipes),
        seeds=tuple(dict.fromkeys(args.seeds)),
        budget=args.budget,
        learning_rates=tuple(dict.fromkeys(args.learning_rates)),
        steps=args.steps,
        evaluation=args.evaluation,
    )
    runs = Runs(args.runs, program)
    try:
        check_study(study)
        if args.list:
            print(listing(plan(study, runs)))
            return 0
        failures = work(study, runs, minutes=args.minutes)
        show(study, runs, args, arguments)
    except MgrpoError as error:
        tell(f"error: {error}")
        return error.exit_code
    if failures:
        tell(f"{len(failures)} failed: {', '.join(failures)}")
    return 1 if failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description="Compare recipes under one budget of completions per problem.",
    )
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="R")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="the first one tunes"
    )
    parser.add_argument(
        "--budget", type=int, default=16, metavar="N", help="completions per problem and step"
    )
    parser.add_argument(
        "--learning-rates",
        nargs="*",
        type=float,
        default=LEARNING_RATES,
        metavar="X",
        help="tried for every recipe with the first seed; none: the recipes' own",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="default: the recipes' own")
    parser.add_argument(
        "--evaluation", default=f"{FOLDER}/evaluation.yaml", metavar="R", help="scores every policy"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="start nothing new after M minutes"
    )
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "study", metavar="DIR")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "docs" / "results" / "methods.md", metavar="PAGE"
    )
    parser.add_argument("--write", action="store_true", help="update the page and its figure")
    parser.add_argument("--list", action="store_true", help="show what is done and what is left")
    return parser.parse_args(arguments)


def work(study: Study, runs: Runs, *, minutes: float | None) -> list[str]:
    """Do what is left, one job after the other. Returns the labels of those that failed."""
    began = time.monotonic()
    failures: list[str] = []
    while True:
        jobs = plan(study, runs)
        left = [job for job in jobs if job.state == "to do" and name(job) not in failures]
        if not left:
            return failures
        if minutes is not None and time.monotonic() - began >= 60 * minutes:
            tell(f"stopped after {minutes:g} minutes\n{listing(jobs)}")
            return failures
        job, started = left[0], time.monotonic()
        place = f"[{len(jobs) - len(jobs_left(jobs)) + 1}/{len(jobs)}] {name(job)}"
        tell(f"{place} ...")
        try:
            job.run(study, runs)
            check_done(job, plan(study, runs))
        except CommandFailed as error:
            failures.append(name(job))
            tell(str(error))
        else:
            tell(f"{place}: {(time.monotonic() - started) / 60:.1f} min")


def check_done(job: Job, jobs: Sequence[Job]) -> None:
    """A recipe or the program may change while a run goes on; do not repeat that run for ever."""
    if any(name(one) == name(job) and one.state == "to do" for one in jobs):
        raise CommandFailed(
            f"{name(job)} finished with other settings than requested. A recipe or the program may "
            "have changed meanwhile; the same command repeats it."
        )


def jobs_left(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.state != "done"]


def name(job: Job) -> str:
    return f"{job.what} {job.label}"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def listing(jobs: Sequence[Job]) -> str:
    """The plan: a line per job, then the counts."""
    lines = [f"{job.state:<6} {name(job)}" for job in jobs]
    return "\n".join([*lines, f"{len(jobs) - len(jobs_left(jobs))} of {len(jobs)} done"])


def show(study: Study, runs: Runs, args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Print the tables; with --write, update the page and the figure beside it."""
    results = results_of(study, runs)
    start = runs.evaluation(None, study.evaluation)
    jobs = plan(study, runs)
    left = len(jobs_left(jobs))
    figure = args.out.with_suffix(".svg")
    facts = Facts(
        command=shlex.join(["python", "-m", "benchmarks.study", *arguments]),
        unfinished=f"Unfinished: {left} of {len(jobs)} jobs are left." if left else "",
        figure=f"![Held-out accuracy over training]({figure.name})" if args.write else "",
    )
    scores = scores_of(start) if start is not None else None
    page = describe(study, runs, results, scores, facts=facts)
    print(page)
    if args.write:
        write_measured(args.out, page, title=TITLE)
        figure.write_text(curves_figure(results), encoding="utf-8")


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code)
