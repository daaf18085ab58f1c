"""Records the numbers of every case on 1, 2 and 4 ranks, into `updates/`.

    python -m tests.same_numbers.record                      # all; takes some minutes
    python -m tests.same_numbers.record methods/gspo quickstart

Run it on the code whose numbers are to be kept, before that code changes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.same_numbers.adapter import save_models
from tests.same_numbers.cases import CASES
from tests.same_numbers.worker import compact, fingerprint, rounded

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("updates")
MODELS = FOLDER / "models.json"
RANKS = (1, 2, 4)
EVERYWHERE = {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"}
"""PyTorch adds up in another order where the machine has AVX-512."""
SECONDS_PER_CASE, SECONDS_TO_START = 20, 120  # a bound, also where other work takes the cores


def measured(
    recipes: Sequence[str], num_ranks: int, folder: Path, *, port: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The numbers of each update of each case, from processes of their own.

    Args:
        folder: of the models; logs and results are left there too.

    Raises:
        RuntimeError: a rank failed or did not end in time; with the end of its log.
    """
    port = port or free_port()
    deadline_s = SECONDS_TO_START + SECONDS_PER_CASE * num_ranks * len(recipes)
    logs = [folder / f"rank-{rank}-of-{num_ranks}.log" for rank in range(num_ranks)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.same_numbers.worker"),
                *(str(rank), str(num_ranks), str(port), str(folder), *recipes),
            ],
            cwd=REPOSITORY,
            env=os.environ | EVERYWHERE,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank, log in enumerate(logs)
    ]
    codes: list[int | None] = []
    try:
        codes += [process.wait(timeout=deadline_s) for process in processes]
    except subprocess.TimeoutExpired:
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(code != 0 for code in codes):
        ends = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)
        raise RuntimeError(
            f"{num_ranks} ranks ended with codes {codes} (None: not within {deadline_s} s).\n{ends}"
        )
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (folder / f"numbers-{num_ranks}.json").read_text(encoding="utf-8")
    )
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kept(recipe: str) -> dict[str, list[dict[str, Any]]]:
    """What was recorded of a case, by number of ranks ("1", "2", "4")."""
    text = (FOLDER / CASES[recipe].file_name).read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


def models_now(folder: Path) -> dict[str, dict[str, Any]]:
    """Fingerprints of the models in `folder`, by name."""
    return {
        file.parent.name: rounded(fingerprint(load_file(file)))
        for file in sorted(folder.glob("*/*.safetensors"))
    }


def main(recipes: Sequence[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        MODELS.write_text(compact(models_now(folder)), encoding="utf-8")
        by_ranks = {number: measured(recipes, number, folder) for number in RANKS}
    for recipe in recipes:
        found = {str(number): by_ranks[number][recipe] for number in RANKS}
        (FOLDER / CASES[recipe].file_name).write_text(compact(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
