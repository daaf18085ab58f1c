"""A step of MGRPO-shaped work: ours against TRL's, side by side.

    python -m benchmarks.mgrpo_step_time --rounds 3 --steps 8 --write
    python -m benchmarks.mgrpo_step_time --quick

Eight attempts at each problem and four corrections of each attempt, with the attempt in a chat turn
(review_chat) and as the beginning of the same turn (self_continue). How: benchmarks/step_time.py.
"""

from __future__ import annotations

import sys

from benchmarks.commands import CommandFailed
from benchmarks.step_time import Comparison, main

MGRPO = Comparison(
    name="mgrpo_step_time",
    title="Step time: attempts and corrections against TRL",
    profiles=("mgrpo_review", "mgrpo_continue"),
)

if __name__ == "__main__":
    try:
        sys.exit(main(MGRPO))
    except CommandFailed as failure:
        sys.exit(str(failure))
