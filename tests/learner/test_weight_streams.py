"""Weights under ZeRO-3 are whole for readers on any CUDA stream, whatever checks are off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.progress_board import ProgressBoard
from learner import deepspeed_learner
from learner.deepspeed_learner import DeepSpeedLearner
from learner.hub_weights import HubWeights


class Gathers:
    """Stands for DeepSpeed's: notes when parameters are whole and when they are given back."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.zero = self

    @contextmanager
    def GatheredParameters(self, parameters: list[Any], **keys: Any) -> Iterator[None]:
        self.events.append(f"gather {len(parameters)}")
        yield
        self.events.append("give back")


def events_of(monkeypatch: pytest.MonkeyPatch, *, zero_stage: int, device: str) -> list[str]:
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("rest"))
    monkeypatch.setattr(deepspeed_learner, "GATHER_BUCKET_BYTES", 1)  # a bucket each
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4,
            hidden_size=4,
            intermediate_size=4,
            num_hidden_layers=0,
            num_attention_heads=1,
            tie_word_embeddings=True,
        )
    )
    for parameter in policy.parameters() if zero_stage == 3 else ():
        parameter.ds_shape = parameter.shape  # as DeepSpeed marks what it has split up
    learner: Any = object.__new__(DeepSpeedLearner)
    learner.recipe = SimpleNamespace(model_dtype="float32")
    learner.device, learner._dtype = torch.device(device), torch.float32
    learner._hub_weights = HubWeights(policy)
    learner._deepspeed, learner.board = Gathers(events), ProgressBoard()
    for name, _ in learner.iter_weights():
        events.append(name)
    return events


EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"


def test_the_device_rests_before_a_bucket_is_read_and_before_its_memory_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert events_of(monkeypatch, zero_stage=3, device="cuda") == [
        *("gather 1", "rest", EMBEDDING, "rest", "give back"),
        *("gather 1", "rest", NORM, "rest", "give back"),
    ]


def test_nothing_rests_where_nothing_is_gathered_or_there_are_no_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert events_of(monkeypatch, zero_stage=2, device="cuda") == [EMBEDDING, NORM]
    assert "rest" not in events_of(monkeypatch, zero_stage=3, device="cpu")
