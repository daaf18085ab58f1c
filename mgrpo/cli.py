"""The command line: `mgrpo train`, `check`, `eval`, `methods`, `explain` and others.

Nothing heavy is imported here: each command imports what it needs when it runs, so that
`mgrpo --help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cluster.folders import check_current_folder, settle_home
from mgrpo import __version__
from mgrpo.commands.chat import add_chat
from mgrpo.commands.compare import add_compare
from mgrpo.commands.completion import add_completion
from mgrpo.commands.dashboard import add_dashboard
from mgrpo.commands.explain import add_explain
from mgrpo.commands.init import add_init
from mgrpo.commands.jobs import add_logs, add_status, add_stop
from mgrpo.commands.keys import add_keys
from mgrpo.commands.methods import add_methods
from mgrpo.commands.plan import add_plan
from mgrpo.commands.push import add_push
from mgrpo.commands.report import add_report
from mgrpo.commands.runs import add_runs
from mgrpo.commands.scorer import add_scorer
from mgrpo.commands.serve import add_serve
from mgrpo.commands.simulate import add_simulate
from mgrpo.commands.submit import add_submit
from mgrpo.commands.suites import add_suites
from mgrpo.commands.sweep import add_sweep
from mgrpo.errors import MgrpoError, RunInterrupted
from mgrpo.records.secret_values import redacted_arguments

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE_EXIT_CODE = (
    141  # 128 + SIGPIPE: the reader of our output, such as head, closed the pipe
)
MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG),
)
"""What a full disk, a lost mount, missing rights and limits raise: no bug of ours."""

EXAMPLES = """\
examples:
  mgrpo init sums                               a recipe, data and a reward to change
  mgrpo check quickstart                        find errors in a recipe: seconds, no GPU
  mgrpo plan qwen2.5_math_7b --gpus 8xH100-80GB
                                                placement, memory and step sizes
  mgrpo train quickstart                        train a small policy on this machine
  mgrpo train quickstart steps=20 layers.correct.group_size=8 --run wide
  mgrpo eval runs/wide                          accuracy of the trained policy
  mgrpo eval runs/wide --against default        ... and is the gain significant?
  mgrpo eval default --decoding sampled --samples 8 --pass-k 1,8
  mgrpo eval runs/wide --suite gsm8k            ... on a benchmark; mgrpo suites lists them
  mgrpo runs                                    list runs; status, logs, report: of one
  mgrpo methods                                 list methods; methods NAME: explain one
  mgrpo explain runs/wide/rollouts/step-000039.jsonl --recipe methods/igrpo

Set MGRPO_DEBUG=1 to see where an error was raised.
"""
RECIPE_HELP = "a recipe's file, or a shipped recipe's name (quickstart, igrpo, ...)"
OVERRIDES_HELP = (
    "change a key of the recipe: steps=20, layers.correct.group_size=8, "
    "data.train.path=sums.jsonl. Layers go by name or number; values are YAML"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Errors with a message for the user are printed without a traceback; others are bugs and keep it.
    """
    args = parse(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no text, on no terminal, is an error to print
            stream.reconfigure(errors="backslashreplace")
    try:
        check_current_folder()
        if said := settle_home():
            print(f"note: {said}", file=sys.stderr)
        code: int = args.run_command(args)
        print(end="", flush=True)  # unlike sys.stdout.flush(), also where there is no stdout
    except MgrpoError as error:
        if is_debugging():
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT_CODE
    except OSError as error:
        if error.errno not in MACHINE_ERRORS or is_debugging():
            raise
        print(
            f"error: the operating system refused: {error}. MGRPO_DEBUG=1 shows where.",
            file=sys.stderr,
        )
        return MgrpoError.exit_code
    return code


def is_debugging() -> bool:
    return os.environ.get("MGRPO_DEBUG", "") not in ("", "0")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, with overrides allowed on both sides of the options."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    strange = [text for text in rest if text.startswith("-") or "=" not in text]
    if strange or (rest and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(redacted_arguments(strange or rest))}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


class Parser(argparse.ArgumentParser):
    """Answers a command that does not exist with the one that looks like it."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = list(action.choices or ())
        if not isinstance(action, argparse._SubParsersAction) or value in choices:
            super()._check_value(action, value)
            return
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There is {', '.join(choices)}."
        raise argparse.ArgumentError(action, f"no such command: {value!r}. {hint}")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mgrpo",
        description="Train language models to reason and to correct themselves.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"mgrpo {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add_init(commands.add_parser("init", help="write a recipe for your own data and reward"))

    train = commands.add_parser("train", help="check a recipe, then train it or resume its run")
    add_recipe(train)
    train.add_argument("--run", metavar="NAME", help="the run's name, instead of the recipe's")
    train.add_argument(
        "--from",
        dest="from_run",
        metavar="RUN",
        help="begin with the policy of this run: the best one if it keeps that, else the newest",
    )
    train.add_argument(
        "--overwrite", action="store_true", help="delete an earlier run of the same name first"
    )
    train.set_defaults(run_command=run_train)

    check = commands.add_parser("check", help="find errors in a recipe, in seconds")
    add_recipe(check)
    check.add_argument("--json", action="store_true", help="write the findings as JSON")
    check.add_argument(
        "--sample",
        action="store_true",
        help="also start engines, and show prompts and a few graded completions",
    )
    check.add_argument(
        "--canary",
        action="store_true",
        help="also train two steps at learning rate 0, which may change nothing: minutes",
    )
    add_live_cluster(check)
    check.set_defaults(run_command=run_check)

    add_plan(commands.add_parser("plan", help="placement on GPUs, memory, layouts"))
    add_simulate(
        commands.add_parser("simulate", help="how long steps take and how busy GPUs are, simulated")
    )

    add_eval(commands.add_parser("eval", help="accuracy of a model or a run, turn by turn"))
    add_suites(commands.add_parser("suites", help="list the benchmarks of eval, or explain one"))
    add_models(commands.add_parser("models", help="list or prepare the named models"))

    add_methods(commands.add_parser("methods", help="list the methods, or explain one"))
    add_explain(
        commands.add_parser(
            "explain", help="replay a recipe on recorded completions, without training"
        )
    )
    add_scorer(commands.add_parser("scorer", help="train the prefix scorer of WS-GRPO"))

    add_submit(commands.add_parser("submit", help="train on a cluster, as a Ray job, or resume"))
    add_status(commands.add_parser("status", help="the state of a run, or the jobs of a cluster"))
    add_logs(commands.add_parser("logs", help="print the logs of a run"))
    add_stop(commands.add_parser("stop", help="stop a submitted run; it leaves a checkpoint"))
    add_dashboard(
        commands.add_parser("dashboard", help="serve curves and alerts of a cluster's runs")
    )

    add_runs(commands.add_parser("runs", help="list the runs of this machine"))
    add_compare(commands.add_parser("compare", help="runs and seeds side by side, with a test"))
    add_chat(commands.add_parser("chat", help="ask a run's policy, and read its corrections"))
    add_serve(commands.add_parser("serve", help="serve a run's policy by vLLM's OpenAI server"))
    add_push(commands.add_parser("push", help="upload a run's policy to a model hub"))
    add_sweep(commands.add_parser("sweep", help="train a recipe with several values of its keys"))
    add_report(
        commands.add_parser("report", help="write or serve the page about a run, or several")
    )

    add_keys(commands.add_parser("keys", help="find keys of a recipe by words"))
    schema = commands.add_parser("schema", help="print the JSON schema of recipes, for editors")
    schema.set_defaults(run_command=run_schema)

    add_completion(
        commands.add_parser("completion", help="print a script that completes commands in a shell"),
        build_parser,
    )
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run_command=run_version)
    return parser


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument("overrides", metavar="key=value", nargs="*", help=OVERRIDES_HELP)


def add_live_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("a running cluster")
    cluster.add_argument(
        "--address",
        metavar="URL",
        help="also compare with this cluster; its job server: http://HOST:8265",
    )
    cluster.add_argument(
        "--cluster", metavar="FILE", help="... and with what its cluster file lets it grow to"
    )
    cluster.add_argument(
        "--wait-s",
        metavar="S",
        type=float,
        default=0.0,
        help="seconds to wait for nodes that are still starting; default: 0",
    )


def add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="MODEL_OR_RUN", help="a run's folder or name, or any value of model.path"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help=OVERRIDES_HELP)
    parser.add_argument("--recipe", metavar="R", help=f"{RECIPE_HELP}; default: the run's own")
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="a benchmark's problems, grader and sampling; mgrpo suites lists them",
    )
    parser.add_argument(
        "--against",
        metavar="MODEL_OR_RUN",
        help="also evaluate this one by the same recipe, problems, seeds; test the difference",
    )
    parser.add_argument("--problems", metavar="N", type=positive, help="at most N problems")
    sampling = parser.add_argument_group("sampling", "each defaults to the recipe's evaluation")
    sampling.add_argument("--decoding", choices=("greedy", "sampled"))
    sampling.add_argument(
        "--samples", metavar="N", type=positive, help="first attempts per problem; needs sampled"
    )
    sampling.add_argument("--temperature", metavar="T", type=float, help="for sampled decoding")
    sampling.add_argument(
        "--guidance",
        metavar="G",
        type=guidance_choice,
        help="phrases that open a correction: all, first, random, or numbers from 0 such as 0,3",
    )
    sampling.add_argument(
        "--feedback",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether corrections read the check's feedback, for layers with guidance from: check",
    )
    sampling.add_argument(
        "--pass-k", metavar="K,...", type=numbers, help="the k of pass@k and maj@k, such as 1,4,8"
    )
    sampling.add_argument(
        "--select",
        metavar="RATIO",
        type=float,
        help="also vote among the samples at least RATIO times as likely as the greedy answer "
        "(DeSel; 0.6 is usual)",
    )
    sampling.add_argument("--seed", metavar="N", type=int, help="of sampling and intervals")
    shown = parser.add_argument_group("output")
    form = shown.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write the numbers as JSON")
    form.add_argument("--markdown", action="store_true", help="write a block of Markdown")
    shown.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write there, not to the terminal; the suffixes .json and .md select the format",
    )
    shown.add_argument(
        "--save-completions",
        metavar="FILE",
        type=Path,
        help="also write every completion, one JSON object per line",
    )
    parser.set_defaults(run_command=run_eval)


def add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the named models, and which are ready")
    listing.add_argument("--json", action="store_true", help="write a list")
    listing.set_defaults(run_command=run_models_list)
    prepare = actions.add_parser("prepare", help="make a model ready to train")
    prepare.add_argument("name", metavar="NAME", help="default, smollm2, ...")
    prepare.add_argument("--rebuild", action="store_true", help="make it again if it exists")
    prepare.add_argument("--output", metavar="DIR", help="where to write it")
    prepare.set_defaults(run_command=run_models_prepare)


def positive(text: str) -> int:
    """An argparse type: a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers with commas between."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,3")
    return [int(part) for part in parts]


def guidance_choice(text: str) -> str | list[int]:
    """An argparse type: a word, or numbers of phrases. The recipe's rules check the word."""
    return numbers(text) if text[:1].isdecimal() else text


def run_train(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe
    from mgrpo.library.start import CheckFailed, train_recipe

    overrides = [*args.overrides, *([f"name={quoted(args.run)}"] if args.run is not None else [])]
    config = load_recipe(args.recipe, overrides)
    if args.from_run is not None:
        from mgrpo.library.begin_from import begun_from

        config = begun_from(args.from_run, config)
        print(f"beginning from {config.model.from_run}")
    try:
        train_recipe(config, overwrite=args.overwrite)
    except CheckFailed as failed:  # what it found is on the screen
        return failed.exit_code
    except RunInterrupted as stop:
        print(f"{stop} The same command resumes the run.")
        return stop.exit_code
    return 0


def run_check(args: argparse.Namespace) -> int:
    from mgrpo.check import check_recipe
    from mgrpo.config.load import load_recipe
    from mgrpo.findings import console
    from mgrpo.plan.layout import laid_out_here

    config, layout = load_recipe(args.recipe, args.overrides), ""
    if args.address is None:
        config, layout = laid_out_here(config)
    report = check_recipe(config, layout=layout, on_cluster=args.address is not None)
    if args.address is not None:
        from cluster.allocations import placement_recipe
        from mgrpo.check.cluster import check_cluster

        report.add(
            check_cluster(
                placement_recipe(config),
                args.address,
                run=config.name,
                cluster_file=args.cluster,
                wait_s=args.wait_s,
            )
        )
    if args.canary and not report.failures:
        from mgrpo.check.canary import canary_lines

        report.add(canary_lines(args.recipe, args.overrides))
    shown = report.to_json()
    if not args.json:
        report.show(console())
    if args.sample and not report.failures:
        from mgrpo.commands.check_sample import sample_recipe, sampled_json, show_sampled

        sampled = sample_recipe(config)
        shown["sample"] = sampled_json(sampled)
        if not args.json:
            show_sampled(console(), sampled)
    if args.json:
        print(json.dumps(shown, indent=2))
    return report.exit_code


def run_eval(args: argparse.Namespace) -> int:
    from mgrpo.commands.evaluate import evaluate_command

    return evaluate_command(
        args.target,
        recipe=args.recipe,
        overrides=args.overrides,
        suite=args.suite,
        max_problems=args.problems,
        decoding=args.decoding,
        settings={
            "samples_per_problem": args.samples,
            "temperature": args.temperature,
            "guidance": args.guidance,
            "feedback": args.feedback,
            "pass_at": args.pass_k,
        },
        select_ratio=args.select,
        seed=args.seed,
        against=args.against,
        as_json=args.json,
        as_markdown=args.markdown,
        output=args.output,
        save_completions=args.save_completions,
    )


def run_models_list(args: argparse.Namespace) -> int:
    from mgrpo.models.catalog import DESCRIPTIONS, is_complete, prepared_dir

    if args.json:
        models = [
            {
                "name": name,
                "description": text,
                "path": str(prepared_dir(name)),
                "is_ready": is_complete(prepared_dir(name)),
            }
            for name, text in DESCRIPTIONS.items()
        ]
        print(json.dumps(models, indent=2))
        return 0
    for name, description in DESCRIPTIONS.items():
        folder = prepared_dir(name)
        state = (
            f"ready in {folder}"
            if is_complete(folder)
            else f"not ready: mgrpo models prepare {name}"
        )
        print(f"{name:<10} {description}\n{'':<10} {state}")
    return 0


def run_models_prepare(args: argparse.Namespace) -> int:
    from mgrpo.models.catalog import prepare

    prepare(args.name, rebuild=args.rebuild, output=args.output)
    return 0


def run_schema(args: argparse.Namespace) -> int:
    from mgrpo.config.schema import schema_text

    print(schema_text(), end="")
    return 0


def run_version(args: argparse.Namespace) -> int:
    print(f"mgrpo {__version__}")
    return 0


def quoted(name: str) -> str:
    """A name as YAML text, so that a run called 7 stays a word."""
    return "'" + name.replace("'", "''") + "'"
