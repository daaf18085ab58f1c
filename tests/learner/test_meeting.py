"""Where learner ranks cannot meet, they say so at once."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
import torch

from cluster.progress_board import ProgressBoard
from learner.deepspeed_learner import DeepSpeedLearner
from learner.recipe import learner_recipe
from mgrpo.errors import LearnerError
from tests.learner.builders import run_config


def test_a_port_that_was_taken_meanwhile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # as it was, afterwards
    rank = SimpleNamespace(
        recipe=learner_recipe(run_config()),
        rank=0,
        num_ranks=1,
        device=torch.device("cpu"),
        _deepspeed=None,
        board=ProgressBoard(),
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LearnerError, match=f"cannot meet the others at 127.0.0.1:{port}"):
            DeepSpeedLearner.join_ranks(rank, "127.0.0.1", port, backend="gloo")
