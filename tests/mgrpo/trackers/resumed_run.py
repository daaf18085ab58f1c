"""A run of five steps that was interrupted after its checkpoint at step 3, for every tracker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mgrpo.records.turns import Prompt
from mgrpo.trackers import RunFacts, open_trackers
from mgrpo.types import Completion, CompletionId, Reward

COMPLETIONS = [
    Completion(
        id=CompletionId(0, 0, (place,)),
        problem_id="sums/1",
        domain="sums",
        layer=1,
        parent_id=None,
        group_key="s0p0",
        prompt=Prompt.of([1]),
        token_ids=[5, 6],
        rollout_logprobs=[-1.0, -1.0],
        finish_reason="stop",
        version_spans=((0, 0),),
        text=text,
        prompt_text="3 | 4?",
        reference_answer="7",
        reward=reward,
    )
    for place, (text, reward) in enumerate(
        [("so\n7", Reward(value=1.0, correct=True)), ("none", None)]
    )
]
RECIPE = {"steps": 5, "layers": [{"name": "solve"}, {"name": "correct"}], "tags": ["a", "b"]}


def record(config: Any, run_dir: Path, pause_s: float = 0.0) -> None:
    """Steps 0 to 4 are recorded with 0.25, then 3 and 4 again, by a resumed run, with 0.75. Step 0
    also has completions."""
    for first_step, value in ((0, 0.25), (3, 0.75)):
        facts = RunFacts("sums", run_dir, RECIPE, first_step)
        with open_trackers([config], facts) as trackers:
            trackers.warn = raise_it
            for step in range(first_step, 5):
                trackers.write(step, {"layer1/accuracy": value, "learner/kl": float("nan")})
                trackers.write_completions(step, COMPLETIONS)
        time.sleep(pause_s)


def raise_it(message: str) -> None:
    raise AssertionError(message)
