"""What every outcome of a reward must be, wherever it came from."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict

from mgrpo.types import Problem, Reward
from rewards.conventions import Group
from rewards.score import Outcome, TermReward, combine

GROUP = Group(
    problem=Problem(problem_id="q", question="2 + 2?", answer="4"),
    texts=["4", "5"],
    token_ids=[[1], [2]],
)


def check_outcomes(found: Sequence[Outcome]) -> None:
    """They reach the driver, and make rewards that can train."""
    for outcome in pickle.loads(pickle.dumps(found)):
        reward = combine([TermReward(name="f", weight=0.5, reward=outcome)])
        assert isinstance(reward, Reward) and math.isfinite(reward.value), reward
        assert reward.is_usable or reward.detail, "a failed check does not say why"
        json.dumps(asdict(reward), allow_nan=False)
