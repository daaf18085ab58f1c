"""Real engines: drafts change how many decode steps a completion takes, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from tests.actors.test_stop_tokens import ENGINE_ENVIRONMENT, REPOSITORY

LARGEST_GAP = 1e-3
"""In nats, as without drafts (tests/end_to_end/test_training.py)."""
TEMPERATURES = ("0.0", "0.7", "1.0")
pytestmark = pytest.mark.timeout(300)

Samples = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Samples]:
    """What the engine without drafts and the one with drafts sampled of the same prompts."""
    output = tmp_path_factory.mktemp("drafted") / "samples.json"
    script = REPOSITORY / "tests" / "actors" / "sample_drafted.py"
    done = subprocess.run(
        [sys.executable, str(script), str(SHIPPED_DEFAULT_DIR), str(output)],
        env={**os.environ, **ENGINE_ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


def completions(samples: Samples, name: str) -> list[dict[str, Any]]:
    return [one for group in samples[name] for one in group]


@pytest.mark.parametrize("name", ["undrafted", *TEMPERATURES])
def test_completions_are_those_without_drafts(found: dict[str, Samples], name: str) -> None:
    """Greedy and sampled, of requests with drafts and of those beside them without."""
    plain, drafting = found["plain"], found["drafting"]
    assert drafting["prompts"] == plain["prompts"]
    for one, other in zip(completions(drafting, name), completions(plain, name), strict=True):
        for key in ("token_ids", "finish_reason", "text", "version_spans"):
            assert one[key] == other[key]
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=LARGEST_GAP)


@pytest.mark.parametrize("name", TEMPERATURES)
def test_drafts_save_decode_steps_and_are_counted(found: dict[str, Samples], name: str) -> None:
    own = completions(found["drafting"], name)
    tokens = sum(len(one["token_ids"]) for one in own)
    drafted = sum(one["num_drafted"] for one in own)
    accepted = sum(one["num_accepted"] for one in own)
    print(f"{tokens} tokens, {drafted} drafted, {accepted} accepted")
    assert 0 < accepted <= drafted
    assert tokens / (tokens - accepted) > 1.05
    assert all(one["num_accepted"] < len(one["token_ids"]) for one in own)


def test_requests_without_speculation_are_not_drafted(found: dict[str, Samples]) -> None:
    alone = completions(found["drafting"], "undrafted")
    assert {one["num_drafted"] for one in [*alone, *completions(found["plain"], "1.0")]} == {0}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_log_probabilities_are_the_models(found: dict[str, Samples], name: str) -> None:
    """Of each token, also of one that was drafted: a forward pass of transformers' model."""
    model = AutoModelForCausalLM.from_pretrained(SHIPPED_DEFAULT_DIR, dtype=torch.float32)
    samples = found["drafting"]
    for prompt, group in zip(samples["prompts"], samples[name], strict=True):
        for one in group:
            ids = torch.tensor([[*prompt, *one["token_ids"]]])
            with torch.inference_mode():
                logits = model(ids).logits[0, len(prompt) - 1 : -1]
            scaled = logits / (float(name) or 1.0)
            expected = scaled.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
            assert one["logprobs"] == pytest.approx(expected.tolist(), abs=LARGEST_GAP)
