"""Five steps of every recipe by the command line give what was recorded in `runs.json`.

    python -m pytest tests/same_numbers/test_same_runs.py -m methods -k gspo

The numbers of a step are compared as long as the steps before it, and itself, sampled the recorded
tokens. A single token that differs changes all that follows, and engines compute log-probabilities
in batches that form as requests come in: where two tokens are nearly as likely, rounding decides.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.same_numbers.cases import CASES
from tests.same_numbers.compare import same_steps, step_differences
from tests.same_numbers.record_runs import DEADLINE_S, recorded, run


@pytest.mark.methods
@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize("recipe", sorted(recorded()))
def test_a_run_has_the_numbers_that_were_recorded(recipe: str) -> None:
    kept, found = recorded()[recipe], run(recipe)
    print(f"{recipe}: {same_steps(kept, found)} of {len(kept)} steps sampled the recorded tokens")
    differences = step_differences(kept, found)
    assert not differences, "\n".join(differences)


def test_only_recipes_that_ship_are_recorded_each_with_five_steps() -> None:
    runs = recorded()
    assert set(runs) <= set(CASES)
    assert {len(steps) for steps in runs.values()} <= {5}


def step(**changes: Any) -> dict[str, Any]:
    return {"tokens": 7, "learner/loss": 0.5, "layer1/accuracy": 0.25, **changes}


def test_numbers_count_while_the_tokens_are_the_recorded_ones() -> None:
    kept = [step(), step(), step()]
    assert not step_differences(kept, [step(), step(), step()])
    assert step_differences(kept, [step(), step(**{"learner/loss": 0.51}), step()])
    assert step_differences(kept, [step(), step(**{"layer1/accuracy": 0.5}), step()])
    other = step(**{"tokens": 8, "learner/loss": 9.0})
    assert not step_differences(kept, [step(), other, other])


def test_the_first_step_samples_the_recorded_tokens() -> None:
    assert step_differences([step()], [step(tokens=8)])
