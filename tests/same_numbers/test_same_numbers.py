"""Every recipe's updates have the numbers that were recorded: losses, gradients, weights.

    python -m pytest tests/same_numbers                          # one rank, and two for some
    python -m pytest tests/same_numbers -m methods -k gspo       # on 1, 2 and 4 ranks

A number that is meant to change is recorded again by `python -m tests.same_numbers.record`, and
the change says why.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.same_numbers.adapter import save_models, shipped
from tests.same_numbers.cases import CASES, YOUNGER
from tests.same_numbers.compare import differences
from tests.same_numbers.record import MODELS, RANKS, kept, measured, models_now

ON_TWO = (
    *("quickstart", "success_only", "qwen2.5_math_7b"),
    *("methods/gcpo", "methods/mgrpo_replay", "methods/nthr", "methods/scrpo", "methods/veripo"),
)
"""By default on two ranks as well: with ZeRO-3, replay, pairs, contexts and token influences."""


def parameters() -> list[Any]:
    """Each recipe with each number of ranks."""
    return [
        pytest.param(
            recipe,
            ranks,
            marks=[]
            if ranks == 1 or (ranks == 2 and recipe in ON_TWO)
            else [pytest.mark.methods, pytest.mark.timeout(1800)],
        )
        for ranks in RANKS
        for recipe in CASES
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same_numbers")
    save_models(folder)
    return folder


class Measurements:
    """The numbers of the chosen tests' recipes; one start of the processes serves them all."""

    def __init__(self, folder: Path, wanted: dict[int, list[str]]) -> None:
        self.folder, self.wanted = folder, wanted
        self.found: dict[int, dict[str, list[dict[str, Any]]]] = {}

    def of(self, recipe: str, ranks: int) -> list[dict[str, Any]]:
        if ranks not in self.found:
            self.found[ranks] = measured(self.wanted[ranks], ranks, self.folder)
        return self.found[ranks][recipe]


@pytest.fixture(scope="module")
def measurements(request: pytest.FixtureRequest, folder: Path) -> Measurements:
    wanted: dict[int, list[str]] = {}
    for item in request.session.items:
        if item.originalname == "test_the_numbers_are_those_recorded":
            chosen = item.callspec.params
            wanted.setdefault(chosen["ranks"], []).append(chosen["recipe"])
    return Measurements(folder, wanted)


@pytest.mark.parametrize(("recipe", "ranks"), parameters())
def test_the_numbers_are_those_recorded(
    recipe: str, ranks: int, measurements: Measurements
) -> None:
    now = measurements.of(recipe, ranks)
    # How many tokens ranks read is a matter of which trees are where, not of numbers.
    found = differences(recipe, kept(recipe)[str(ranks)], now, same_ranks=ranks == 1)
    assert not found, "\n".join(found)


def test_every_recipe_that_ships_has_a_case() -> None:
    assert shipped() - YOUNGER == set(CASES)


def test_the_models_are_those_of_the_record(folder: Path) -> None:
    """Where not, random numbers or the tiny models changed, and no other number can be equal."""
    assert models_now(folder) == json.loads(MODELS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("recipe", CASES)
def test_the_recorded_numbers_do_not_depend_on_the_ranks(recipe: str) -> None:
    one, *others = (kept(recipe)[str(ranks)] for ranks in RANKS)
    for other in others:
        found = differences(recipe, one, other, same_ranks=False)
        assert not found, "\n".join(found)


def test_the_recorded_updates_train() -> None:
    """A case whose gradient or change is 0 would say nothing."""
    for recipe in CASES:
        for update in kept(recipe)["1"]:
            assert update["metrics"]["learner/grad_norm"][0] > 0, recipe
            assert update["change"]["norm"] > 1e-4, recipe


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        (("metrics", "learner/loss", 0), 1 + 1e-4),
        (("metrics", "learner/grad_norm", 0), 1 + 1e-5),
        (("metrics", "learner/tokens", 1), 2),
        (("metrics", "learner/entropy", 0), 1 + 1e-5),
        (("advantages", 0), 1 + 1e-5),
        (("gradients", 0, "norm"), 1 + 1e-5),
        (("gradients", 0, "projections", 1), 1 + 1e-4),
        (("change", "projections", 0), 1 + 1e-2),
    ],
)
def test_a_number_that_is_not_the_same_is_found(path: tuple[Any, ...], factor: float) -> None:
    old = kept("quickstart")["1"]
    new = copy.deepcopy(old)
    *parents, last = path
    node: Any = new[1]
    for key in parents:
        node = node[key]
    node[last] *= factor
    assert not differences("quickstart", old, old)
    assert len(differences("quickstart", old, new)) == 1
