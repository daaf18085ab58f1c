"""Train the policy half_right, which ships in mgrpo/models/half_right, and write it to a folder."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from mgrpo.models.catalog import HALF_RIGHT, SHIPPED
from scripts.default_policy.right_work.make import FIRST_RIGHT, SECOND_RIGHT, make

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.default_policy.right_work", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=SHIPPED[HALF_RIGHT], metavar="DIR")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/half_right"),
        metavar="DIR",
        help="keeps the policy between the stages (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-right", type=float, default=FIRST_RIGHT)
    parser.add_argument("--second-right", type=float, default=SECOND_RIGHT)
    options = parser.parse_args()
    make(
        options.output,
        options.work,
        seed=options.seed,
        first_right=options.first_right,
        second_right=options.second_right,
        report=functools.partial(print, flush=True),
    )
