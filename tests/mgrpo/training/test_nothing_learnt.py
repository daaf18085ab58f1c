"""The first step that changes nothing is said at once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mgrpo.training.hooks import NothingLearnt, StepDone
from mgrpo.training.progress import TrainProgress


def said(first_step: int, step: int, values: dict[str, float]) -> str:
    console = Console(file=io.StringIO(), width=1000, highlight=False)
    hook = NothingLearnt(TrainProgress(9, "sums", num_layers=1, console=console))
    hook.before_run(first_step)
    done = StepDone(step)
    for name, value in values.items():
        done.sums.add(name, value)
    hook.after_step(done)
    return console.file.getvalue()


SILENT = {"learner/skipped_updates": 1.0, "layer1/truncated_fraction": 1.0}


@pytest.mark.parametrize("first", [0, 4])
def test_the_first_step_of_a_start_says_why_and_what_to_try(first: int) -> None:
    text = said(first, first, SILENT)
    assert text.startswith(f"warning: step {first} changed nothing. 100% of the first attempts ran")
    assert "layers.0.max_completion_tokens" in text and "--sample" in text


def test_later_steps_and_steps_that_changed_something_say_nothing() -> None:
    assert said(0, 1, SILENT) == ""
    assert said(0, 0, {"learner/grad_norm": 0.2, "learner/skipped_updates": 0.0}) == ""
