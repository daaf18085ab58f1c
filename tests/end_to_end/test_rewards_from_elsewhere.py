"""A run whose rewards were written for TRL, verl and OpenRLHF, or come from a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import train_in
from tests.rewards.services.loopback import drops, says, serving

FUNCTIONS = """
import re
import torch

BOXED = re.compile(r"\\\\boxed\\{([^{}]*)\\}")


def accuracy(prompts, completions, completion_ids, level, answer, **kwargs):
    assert len(set(map(str, prompts))) == 1 and len(prompts) == len(level)
    assert all(isinstance(token, int) for ids in completion_ids for token in ids)
    boxes = [BOXED.findall(completion[0]["content"]) for completion in completions]
    return [float(found[-1:] == [truth]) for found, truth in zip(boxes, answer)]


async def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {"score": -0.001 * len(solution_str), "level": extra_info["level"]}


def reward_func(queries, prompts, labels, **kwargs):
    answers = [query[len(prompt):] for query, prompt in zip(queries, prompts)]
    rewards = torch.tensor([float(text in queries[0]) for text in answers])
    return {"rewards": rewards, "extra_logs": {"group": torch.full_like(rewards, len(queries))}}
"""


seen: list[Any] = []


async def by_length(request: Any, asked: Any) -> Any:
    """A server's rewards: a completion's characters, and the problem's level as a number beside. It
    drops each request once."""
    if asked not in seen:
        seen.append(asked)
        return await drops(request, asked)
    level = asked["problem"]["metadata"]["level"]
    texts = asked["completions"]
    return await says([{"score": len(text), "level": level} for text in texts])(request, asked)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rewards_of_other_systems_and_of_a_server_train(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "theirs.py").write_text(FUNCTIONS)
    lines = Path(tree["data"]["train"]["path"]).read_text().splitlines()
    rows = [json.dumps({**json.loads(line), "level": 3}) for line in lines]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = {"source": "jsonl", "path": "rows.jsonl", "metadata_fields": ["level"]}
    terms = [
        {"trl": "./theirs.py:accuracy", "messages": True, "correct_at": 1.0},
        {"verl": "./theirs.py"},
        {"openrlhf": "theirs:reward_func", "weight": 0.1},
        {"http": "", "weight": 0.001},
    ]
    with serving(by_length) as server:
        terms[-1]["http"] = f"{server.url}/score"
        changed = {**tree, "data": {"train": source}, "rewards": {"terms": terms}, "steps": 1}
        (row,), _ = train_in(tmp_path, changed)
    assert row["rewards/scored"] == 1.0
    for number, layer in enumerate(changed["layers"], start=1):
        terms_of_layer = f"layer{number}/reward_term"
        assert row[f"{terms_of_layer}/theirs.py_compute_score_level"] == 3.0
        assert row[f"{terms_of_layer}/theirs_reward_func_group"] == layer["group_size"]
        assert row[f"layer{number}/accuracy"] == row[f"{terms_of_layer}/theirs.py_accuracy"]
        lengths = row[f"{terms_of_layer}/theirs.py_compute_score"] / -0.001
        assert row[f"{terms_of_layer}/http"] == pytest.approx(lengths)
        assert row[f"{terms_of_layer}/http_level"] == 3.0
    assert row["layer1/reward_term/http_retries"] > 0.5  # 1, but for equal groups
