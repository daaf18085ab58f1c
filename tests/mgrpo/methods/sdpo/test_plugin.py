"""SDPO: who teaches whom with what, and the advantages of tokens, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, DataError
from mgrpo.methods.sdpo.teacher_prompts import AROUND, NUM_TOKENS
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.actors.plugins.scripted_rollout import TOKENIZER, rollout, sampled
from tests.actors.plugins.scripted_rollout import plugin as rollout_plugin
from tests.learner.builders import layer, long, plugin, solve_layer

CHAIN = [solve_layer(advantage="raw_reward"), layer(select="none")]


def told(name: str, reward: float, *tokens: int) -> Completion:
    """The last token ends the turn."""
    metadata = {AROUND: [[50, 51], [52]], NUM_TOKENS: len(tokens) - 1}
    return long(name, reward, len(tokens), token_ids=[*tokens], metadata=metadata)


class Teacher:
    """Finds every token of likelihood e^-1, and remembers what it was shown."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []

    def logprobs(self, rows: Any, *, weights: str, measurement: str) -> torch.Tensor:
        self.prompts += [row.prompt_token_ids.tolist() for row in rows]
        return -torch.ones(sum(len(row.token_ids) for row in rows), dtype=torch.float64)


def taught(completions: list[Completion], **settings: Any) -> tuple[dict[str, list[float]], Any]:
    """Advantages of tokens; the policy itself finds the token t of likelihood e^-t."""
    teacher = Teacher()
    own = [float(token) for one in completions for token in one.token_ids]
    batch = build_batch(
        completions,
        CHAIN,
        ObjectiveConfig(),
        plugins=[plugin("sdpo", 1, **settings)],
        measurements={"policy_logprobs": -torch.tensor(own, dtype=torch.float64)},
        policy=teacher,
    )
    return {row.completion_id: row.advantages.tolist() for row in batch.all_rows}, teacher


FAMILY = [
    *(told("q/1", 1.0, 7, 2), told("q/2", 0.0, 3, 1), told("q/3", 0.0, 4, 2)),
    *(told("q/2/1", 1.0, 8, 9, 2), told("q/2/2", 0.0, 5, 2)),
]


def test_a_teacher_is_shown_a_right_correction_of_the_attempt_or_another_s() -> None:
    _, teacher = taught(FAMILY)
    assert teacher.prompts == [
        [50, 51, 8, 9, 52],  # q/1 is right; the only other right one is a correction
        [50, 51, 8, 9, 52],  # q/2 by its own correction
        [50, 51, 8, 9, 52],  # q/3 by a correction before an attempt
    ]


def test_advantages_are_shared_between_reward_and_teacher() -> None:
    """λ = 1/4: of q/2's tokens 3 and 1 the policy says -3 and -1, the teacher -1 of each."""
    found, _ = taught(FAMILY, advantage_share=0.25)
    assert found["q/2"] == pytest.approx([0.75 * 2, 0.75 * 0])
    assert found["q/1"] == pytest.approx([0.25 + 0.75 * 5, 0.25 + 0.75 * 1])  # 6 is cut at 5
    found, _ = taught(FAMILY, advantage_share=0, max_gap=1)
    assert found["q/3"] == pytest.approx([1.0, 1.0])


def test_without_a_solution_there_is_no_teacher() -> None:
    wrong = [told("q/1", 0.0, 7, 2), told("q/2", 0.0, 3, 1)]
    found, teacher = taught([*wrong, told("p/1", 1.0, 3, 2)])
    assert teacher.prompts == []
    assert found == {"q/1": [0, 0], "q/2": [0, 0], "p/1": [0.5, 0.5]}


def test_a_solution_is_shown_as_far_as_there_is_room() -> None:
    _, teacher = taught(FAMILY, max_solution_tokens=1)
    assert teacher.prompts[0] == [50, 51, 8, 52]


def test_what_stands_around_a_solution_and_how_long_it_is() -> None:
    template = "Q: {problem} A: {solution} So:"
    own = rollout_plugin("teacher_prompts", template=template)
    (one, *_) = sampled(rollout(lambda prompt, index: "7", [own]))
    before, behind = map(TOKENIZER.decode, one.metadata[AROUND])
    assert before.endswith("Q: 3+4? A: ") and behind.startswith(" So:")
    assert one.metadata[NUM_TOKENS] == 1 == len(one.token_ids) - 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plugins.1.layers=null"], "teaches first attempts"),
        (["plugins.0.settings.template=x"], "must contain"),
    ],
)
def test_what_it_cannot_work_with_is_refused(overrides: list[str], message: str) -> None:
    config = load_recipe("methods/sdpo", overrides)
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, Plugin)


def test_recorded_completions_alone_do_not_say_what_it_does() -> None:
    with pytest.raises(DataError, match="no policy is loaded"):
        build_batch(FAMILY, CHAIN, ObjectiveConfig(), plugins=[plugin("sdpo", 1)])
