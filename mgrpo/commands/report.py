"""`mgrpo report RUN...`: the page about one run or several, written, or served while they go on.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mgrpo.errors import ConfigError, ConfigFault

PORT = 8011
EXAMPLES = """\
examples:
  mgrpo report wide             writes runs/wide/report.html
  mgrpo report wide plain       writes report-wide-plain.html: outcomes, keys that differ, curves
  mgrpo report wide --live      serves the page until Ctrl-C; it follows the run's steps

From another machine: ssh -L 8011:127.0.0.1:8011 HOST, then http://127.0.0.1:8011 there.
"""


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo report` to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run's folder, or its name under runs/"
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="of several runs; default: report-A-B.html"
    )
    parser.add_argument(
        "--live", action="store_true", help="serve the page to this machine, and keep it up to date"
    )
    parser.add_argument(
        "--port", metavar="N", type=int, help=f"of --live; default: {PORT}, or a free one"
    )
    parser.set_defaults(run_command=run_report)


def run_report(args: argparse.Namespace) -> int:
    from mgrpo.report import write_comparison, write_report
    from mgrpo.storage.run_directory import find_run

    folders = [find_run(run) for run in args.runs]
    if args.port is not None and not args.live:
        refuse("--port", args.port, "belongs to --live.")
    if args.live and args.output is not None:
        refuse("--output", args.output, "is written, and --live serves the page.")
    if args.live:
        return serve(folders, args.port)
    if len(folders) > 1:
        names = "-".join(folder.resolve().name for folder in folders)
        print(write_comparison(folders, args.output or Path(f"report-{names}.html")))
        return 0
    if args.output is not None:
        refuse("--output", args.output, "is for several runs; that of one is in its folder.")
    print(write_report(folders[0]))
    return 0


def serve(folders: list[Path], port: int | None) -> int:
    from cluster.monitoring.services import choose_port
    from mgrpo.report.live import serve_report

    serve_report(
        folders,
        choose_port(port, PORT),
        lambda address: print(f"{address}\nCtrl-C ends it.", flush=True),
    )
    return 0


def refuse(option: str, value: object, reason: str) -> None:
    raise ConfigError([ConfigFault(option, str(value), reason)], source="the command")
