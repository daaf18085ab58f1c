"""One learner rank that makes some updates of a run and leaves its state for other ranks.

    python -m tests.learner.ranks_in_turn RANK NUM_RANKS PORT FOLDER STAGE DTYPE FIRST LAST

It goes on from FOLDER/state-FIRST, unless FIRST is 0, and leaves FOLDER/state-LAST. Memory that is
not written, such as the padding of a last rank's weights, is nan.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.learner.builders import random_completions
from tests.learner.rank_worker import Ranks


def main() -> None:
    rank, num_ranks, port = (int(argument) for argument in sys.argv[1:4])
    folder, dtype = Path(sys.argv[4]), sys.argv[6]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    zero_stage, first, last = (int(sys.argv[place]) for place in (5, 7, 8))
    learner = Ranks(rank, num_ranks, port, folder).learner(
        learner={"zero_stage": zero_stage, "dtype": dtype, "warmup_steps": 2}
    )
    if first:
        learner.load_state(str(folder / f"state-{first}"))
    for step in range(first, last):
        learner.update(random_completions(seed=step))
    assert learner.policy_version == last
    learner.save_state(str(folder / f"state-{last}"))
    learner.close()


if __name__ == "__main__":
    main()
    # Threads of gloo that still run when Python ends now and then abort the process.
    sys.stdout.flush()
    os._exit(0)
