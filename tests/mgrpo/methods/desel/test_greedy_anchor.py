"""How likely the greedy answer is travels with the completions."""

from __future__ import annotations

import pytest

from actors.plugin import RolloutPlugin
from cluster.fleet.leases import FixedEngines
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from mgrpo.types import Generation
from tests.actors.plugins.scripted_rollout import plugin, rollout, sampled
from tests.learner.builders import run_config


class Recorder:
    """An engine that remembers temperatures and answers with fixed log-probabilities."""

    name, num_inflight = "recorder", 0

    def __init__(self):
        self.asked = []

    async def generate(self, prompt, *, num_samples, max_tokens, temperature, **other):
        self.asked.append((num_samples, temperature, max_tokens))
        logprobs = [-0.2, -0.4] if temperature == 0 else [-1.0]
        one = Generation(
            token_ids=[55] * len(logprobs),
            logprobs=logprobs,
            finish_reason="stop",
            version_spans=((0, 0),),
            text="7",
        )
        return [one] * num_samples


def test_one_greedy_answer_is_asked_for_and_its_mean_logprob_kept():
    engine = Recorder()
    parts = rollout(lambda prompt, index: "", [plugin("greedy_anchor", max_tokens=9)])
    parts.engines = FixedEngines({1: [engine]})
    completions = sampled(parts)
    assert [one.metadata for one in completions] == [
        {"greedy_logprob_mean": pytest.approx(-0.3)}
    ] * 4
    assert {type(one.metadata["greedy_logprob_mean"]) for one in completions} == {float}
    assert [number for number, _, _ in engine.asked] == [4, 1]
    assert engine.asked[1] == (1, 0.0, 9)
    assert engine.asked[0][1] == 1.0
    assert parts.num_plugin_tokens == 2  # not the four of the step's own


def test_other_temperatures_cannot_be_compared_with_it():
    config = run_config(plugins=[{"use": "greedy_anchor"}], sampling={"temperature": 0.7})
    with pytest.raises(ConfigError, match=r"temperature = 0\.7: .*which are at 1"):
        load_plugins(config.method_view, RolloutPlugin)
