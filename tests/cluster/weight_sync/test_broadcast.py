"""One broadcast, step by step: what is asked of whom, and that each proof can stop the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cluster.weight_sync.broadcast import GroupSettings, SyncReport, WeightBroadcaster
from cluster.weight_sync.engine_client import SentWeights
from mgrpo.config import WeightsConfig
from mgrpo.errors import WeightSyncError
from tests.cluster.asked import Asked, AskedActor

SENT = {"embed": 11, "norm": 22}
PROBE = [-1.0, -2.0, -3.0]
ENGINES: list[Any] = [AskedActor(f"layer{n}-engine-0") for n in (1, 2)]
LEARNER: list[Any] = [AskedActor(f"learner-rank-{n}") for n in (0, 1)]


class Told(WeightBroadcaster):
    """Notes what is asked of whom; engines and learner answer as they should, or as told."""

    def __init__(self, answers: Mapping[str, Any] | None = None, **config: Any) -> None:
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []
        self.answers = answers or {}
        super().__init__(
            LEARNER,
            group=GroupSettings(
                backend="gloo", workers_per_engine=2, shares_gpus=False, deadline_s=1
            ),
            config=WeightsConfig(**config),
            dtype="float32",
            probe_token_ids=[4, 5, 6, 7],
        )

    def connect(self, engines: Any) -> None:
        self.engines = list(engines)
        self.asked.append(("all", "connect", ()))

    def wait(self, calls: Any, doing: str | None = None) -> list[Any]:
        method = calls[0].method
        side = "learner" if [call.actor for call in calls] == LEARNER else "engines"
        self.asked.append((side, method, calls[0].args))
        if f"{side} {method}" in self.answers:
            return self.answers[f"{side} {method}"]
        good = {
            "send_weights": SentWeights(SENT, 12),
            "weight_version": "9",
            "received_checksums": [SENT, SENT],  # of two workers
            "probe_logprobs": PROBE,
        }
        return [good.get(method) for _ in calls]


def broadcast(answers: Mapping[str, Any] | None = None, **config: Any) -> tuple[Told, SyncReport]:
    told = Told(answers, **config)
    return told, told.broadcast(9, ENGINES)


def refusal(answers: Mapping[str, Any], **config: Any) -> str:
    told = Told(answers, **config)
    with pytest.raises(WeightSyncError) as caught:
        told.broadcast(9, ENGINES)
    return str(caught.value)


def test_a_broadcast_pauses_sends_proves_and_resumes_in_this_order() -> None:
    told, report = broadcast()
    probe = ("probe_logprobs", ([4, 5, 6, 7],))
    assert told.asked == [
        ("all", "connect", ()),
        ("engines", "pause", ()),
        ("learner", "send_weights", (9,)),
        ("engines", "weight_version", ()),
        ("engines", "received_checksums", ()),
        ("learner", *probe),
        ("engines", "resume", ()),
        ("engines", *probe),
    ]
    assert (report.policy_version, report.num_tensors, report.probe_gap_max) == (9, 2, 0.0)
    assert report.num_bytes == 12


def test_the_same_engines_need_no_new_group_and_others_do() -> None:
    told = Told()
    for engines in (ENGINES, ENGINES, ENGINES[:1]):
        told.broadcast(9, engines)
    assert [method for _, method, _ in told.asked].count("connect") == 2


@pytest.mark.parametrize("config", [{}, {"verify_checksums": False, "verify_probe": False}])
@pytest.mark.parametrize("version", ["8", "10", "", "09"])
def test_an_engine_of_another_version_stops_the_run_whatever_else_is_checked(
    version: str, config: dict[str, Any]
) -> None:
    said = refusal({"engines weight_version": ["9", version]}, **config)
    assert "layer2-engine-0 reports policy version" in said and "version 9" in said


@pytest.mark.parametrize(
    "received",
    [{"embed": 11, "norm": 23}, {"embed": 11}, {**SENT, "more": 1}, {}, {"embed": 22, "norm": 11}],
)
def test_a_tensor_that_is_not_as_sent_stops_the_run_in_any_worker(
    received: dict[str, int],
) -> None:
    said = refusal({"engines received_checksums": [[SENT, SENT], [SENT, received]]})
    assert "layer2-engine-0 (worker 1)" in said and "not as sent" in said


@pytest.mark.parametrize(
    "found",
    [
        [-1.0, -2.0, -3.02],  # one token beyond ten tolerances, the mean beyond one
        [-1.002, -2.002, -3.002],
        [-1.0, -2.0, float("nan")],
        [-1.0, -2.0],
    ],
)
def test_a_probe_that_differs_stops_the_run(found: list[float]) -> None:
    assert "layer2-engine-0's probe log-probabilities differ" in refusal(
        {"engines probe_logprobs": [PROBE, found]}
    )


def test_the_report_has_the_largest_gap_of_all_engines() -> None:
    other = [-1.0005, -2.0, -3.0]
    _, report = broadcast({"engines probe_logprobs": [other, PROBE]})
    assert report.probe_gap_max == pytest.approx(0.0005)


def test_checks_that_are_turned_off_are_not_asked_for() -> None:
    told, report = broadcast(verify_checksums=False, verify_probe=False)
    methods = [method for _, method, _ in told.asked]
    assert "received_checksums" not in methods and "probe_logprobs" not in methods
    assert "weight_version" in methods and report.probe_gap_max is None


def test_a_group_has_a_place_for_every_worker_of_every_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[tuple[str, dict[str, Any]]] = []

    def wait_for(calls: list[Asked], **_: Any) -> list[Any]:
        joined.extend((one.actor.name, one.keys) for one in calls if one.method == "connect")
        return [("10.0.0.1", 29500) for _ in calls]

    monkeypatch.setattr("cluster.weight_sync.broadcast.wait_for", wait_for)
    broadcaster = WeightBroadcaster(
        LEARNER,
        group=GroupSettings(backend="gloo", workers_per_engine=2, shares_gpus=False, deadline_s=1),
        config=WeightsConfig(),
        dtype="float32",
        probe_token_ids=[1, 2],
    )
    broadcaster.connect([*ENGINES, AskedActor("layer2-engine-1")])
    expected = {"backend": "gloo", "address": "10.0.0.1", "port": 29500, "num_receivers": 6}
    assert joined == [("learner-rank-0", expected), ("learner-rank-1", expected)]
    assert len(broadcaster.engines) == 3 and broadcaster.num_groups == 1
