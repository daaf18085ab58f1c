"""One rank in a process of its own: trains cases with the real learner and writes their numbers.

    python -m tests.same_numbers.worker RANK NUM_RANKS PORT FOLDER RECIPE...

FOLDER holds the models of `adapter.save_models`; rank 0 leaves `numbers-NUM_RANKS.json` there.
Importing DeepSpeed takes seconds, so all cases share the process, each with a learner of its own.
"""

from __future__ import annotations

import gc
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.same_numbers.adapter import Row, Session, account, key_of, set_up_process
from tests.same_numbers.cases import CASES, Case, Update

INPUTS = Path(__file__).with_name("inputs.json")
NUM_PROJECTIONS = 3
DIGITS = 10
"""That a number is kept with: far more than the comparison needs."""


def numbers_of(case: Case, session: Session, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each update of a case reports and changes."""
    found = []
    before = dict(session.weights())
    on_pairs = [update.step for update in case.updates if update.pairs]
    if on_pairs:
        session.measure_pairs(inputs["pairs"], step=on_pairs[0])
    for update in case.updates:
        rows = rows_of(update, case, inputs["sets"])
        replayed = inputs["sets"][update.replays] if update.replays else []
        pairs = inputs["pairs"] if update.pairs else []
        result, gradients = session.update(update, rows, replayed, pairs)
        after = dict(session.weights())
        if result is not None:
            found.append(
                {
                    **account(result),
                    "gradients": [fingerprint(one) for one in gradients],
                    "change": fingerprint({name: after[name] - before[name] for name in before}),
                }
            )
        before = after
    return found


def rows_of(update: Update, case: Case, sets: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The update's completions of the layers that the case has, with those that are changed."""
    if not update.rows:
        return []
    changed = {key_of(row): row for row in sets[update.changed]} if update.changed else {}
    rows = [changed.pop(key_of(row), row) for row in sets[update.rows]]
    return [row for row in [*rows, *changed.values()] if len(row["path"]) <= case.num_layers]


def fingerprint(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The norm of all tensors together, and their products with three fixed random vectors."""
    square, products = 0.0, torch.zeros(NUM_PROJECTIONS, dtype=torch.float64)
    for name in sorted(tensors):
        flat = tensors[name].detach().double().flatten()
        square += float(flat @ flat)
        products += directions(name, flat.numel()) @ flat
    return {"norm": square**0.5, "projections": products.tolist()}


@cache
def directions(name: str, size: int) -> Tensor:
    """[NUM_PROJECTIONS, size] normal numbers, seeded by the weight's name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn((NUM_PROJECTIONS, size), generator=generator, dtype=torch.float64)


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def main(rank: int, num_ranks: int, port: int, folder: Path, recipes: Sequence[str]) -> None:
    set_up_process()
    gc.freeze()  # DeepSpeed collects garbage at every start, and the libraries' objects are many
    inputs = json.loads(INPUTS.read_text(encoding="utf-8"))
    found = {}
    for name in recipes:
        print(name, flush=True)
        session = Session(
            CASES[name],
            folder=folder,
            rank=rank,
            num_ranks=num_ranks,
            port=port,
            problems=inputs["problems"],
        )
        found[name] = rounded(numbers_of(CASES[name], session, inputs))
        session.close()
    if rank == 0:
        (folder / f"numbers-{num_ranks}.json").write_text(compact(found), encoding="utf-8")


if __name__ == "__main__":
    rank, num_ranks, port = (int(argument) for argument in sys.argv[1:4])
    main(rank, num_ranks, port, Path(sys.argv[4]), sys.argv[5:])
