"""`mgrpo suites`: the benchmarks of `mgrpo eval --suite`, or one of them in full.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mgrpo.config.suites import Suite


def add_suites(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo suites` to its parser."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a suite to explain")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run_command=run_suites)


def run_suites(args: argparse.Namespace) -> int:
    from mgrpo.config.suites import load_suite, suite_files

    names = list(suite_files()) if args.name is None else [args.name]
    suites = {name: load_suite(name) for name in names}
    if args.json:
        print(json.dumps({name: one.model_dump() for name, one in suites.items()}, indent=2))
    elif args.name is None:
        width = max(map(len, suites))
        for name, one in suites.items():
            print(f"{name:<{width}}  {one.num_problems:>5,}  {one.title}")
    else:
        print("\n".join(lines_of(suites[args.name])))
    return 0


def lines_of(suite: Suite) -> Iterator[str]:
    """A suite's facts, a paragraph each, and its sections as a recipe has them."""
    from mgrpo.config.yaml_core import dump_yaml

    yield suite.title
    yield f"{suite.num_problems:,} problems. {suite.rows}."
    if suite.note:
        yield suite.note
    yield from (f"published: {score}" for score in suite.scores)
    sections = suite.sections()
    del sections["data"]["train"]  # an evaluation does not read it
    yield f"\n{dump_yaml({name: held for name, held in sections.items() if held})}"
