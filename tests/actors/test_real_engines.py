"""Real engines: where completions end, what is begun first, which version wrote what.

Drafts change how many decode steps a completion takes, and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from tests.actors.test_stop_tokens import IM_END, make_base_model

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "PYTHONPATH": str(REPOSITORY),
}

LARGEST_GAP = 1e-3
"""In nats, as without drafts (tests/end_to_end/test_resume.py)."""
TEMPERATURES = ("0.0", "0.7", "1.0")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

Samples = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """What an engine without drafts and one with drafts sampled of the base model."""
    folder = tmp_path_factory.mktemp("sampled")
    model, output = make_base_model(folder / "base"), folder / "samples.json"
    script = REPOSITORY / "tests" / "actors" / "sample_with_engines.py"
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(output)],
        env={**os.environ, **ENGINE_ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


def test_a_real_engine_stops_at_the_templates_end_and_says_which_version_wrote_what(
    found: Samples,
) -> None:
    assert len(found["group"]) == 4
    for sample in found["group"]:
        assert sample["version_spans"] == [[0, 0]]
        assert sample["finish_reason"] == "stop"
        assert sample["token_ids"].index(IM_END) == len(sample["token_ids"]) - 1
        assert len(sample["logprobs"]) == len(sample["token_ids"])
        assert sample["text"].strip().endswith("}")  # the box, and no <|im_end|> behind it
    spans = [one["version_spans"] for one in found["later"]]
    assert spans == [[[0, 0], [count, 1]] for count in found["counts"]]
    assert min(found["counts"]) > 0


def test_a_real_engine_begins_what_was_drawn_first(found: Samples) -> None:
    assert found["order"] == [5, 6, 7]


def test_a_real_engine_keeps_the_shortest_and_aborts_the_others(found: Samples) -> None:
    whole, kept, aborted = found["six"], found["spared"][:2], found["spared"][2:]
    by_length = sorted(whole, key=lambda one: len(one["token_ids"]))  # equal ones in their order
    assert [one["token_ids"] for one in kept] == [
        one["token_ids"] for one in whole if one in by_length[:2]
    ]
    assert {one["finish_reason"] for one in kept} == {"stop"}
    assert len(aborted) == 4
    longest = max(len(one["token_ids"]) for one in kept)
    for one in aborted:
        same = [
            full for full in whole if full["token_ids"][: len(one["token_ids"])] == one["token_ids"]
        ]
        # decided one token early at the least: equal lengths go by their order
        assert same and len(one["token_ids"]) + 1 >= longest
        assert len(one["logprobs"]) == len(one["token_ids"])
    sampled = sum(len(one["token_ids"]) for one in found["spared"])
    assert sampled < sum(len(one["token_ids"]) for one in whole)
    assert found["num_left"] == 0


def test_a_real_engine_ends_completions_at_a_stop_text(found: Samples) -> None:
    pairs = list(zip(found["group"], found["stopped"], strict=True))
    assert any(found["stopped_by"] in whole["text"] for whole, _ in pairs)
    for whole, cut in pairs:
        assert whole["token_ids"][: len(cut["token_ids"])] == cut["token_ids"]
        assert len(cut["logprobs"]) == len(cut["token_ids"])
        assert cut["finish_reason"] == "stop"
        assert cut["text"] == whole["text"].partition(found["stopped_by"])[0]


def completions(samples: Samples, name: str) -> list[dict[str, Any]]:
    return [one for group in samples[name] for one in group]


@pytest.mark.parametrize("name", ["undrafted", *TEMPERATURES])
def test_completions_are_those_without_drafts(found: Samples, name: str) -> None:
    """Greedy and sampled, of requests with drafts and of those beside them without."""
    plain, drafting = found["plain"], found["drafting"]
    assert drafting["prompts"] == plain["prompts"]
    for one, other in zip(completions(drafting, name), completions(plain, name), strict=True):
        for key in ("token_ids", "finish_reason", "text", "version_spans"):
            assert one[key] == other[key]
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=LARGEST_GAP)


@pytest.mark.parametrize("name", TEMPERATURES)
def test_drafts_save_decode_steps_and_are_counted(found: Samples, name: str) -> None:
    own = completions(found["drafting"], name)
    tokens = sum(len(one["token_ids"]) for one in own)
    drafted = sum(one["num_drafted"] for one in own)
    accepted = sum(one["num_accepted"] for one in own)
    print(f"{tokens} tokens, {drafted} drafted, {accepted} accepted")
    assert 0 < accepted <= drafted
    assert tokens / (tokens - accepted) > 1.05
    assert all(one["num_accepted"] < len(one["token_ids"]) for one in own)


def test_requests_without_speculation_are_not_drafted(found: Samples) -> None:
    alone = completions(found["drafting"], "undrafted")
    assert {one["num_drafted"] for one in [*alone, *completions(found["plain"], "1.0")]} == {0}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_log_probabilities_are_the_models(found: Samples, name: str) -> None:
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
