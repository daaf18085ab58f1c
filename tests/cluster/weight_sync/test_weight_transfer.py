"""The parts of the transfer that need no engine: ranks, payloads, checksums, NCCL's set-up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from vllm.distributed.weight_transfer import nccl_engine
from vllm.model_executor.model_loader.reload import layerwise

from cluster.weight_sync import weight_transfer
from cluster.weight_sync.broadcast import (
    GroupSettings,
    WeightBroadcaster,
    differences,
    differing_tensors,
)
from cluster.weight_sync.checked_loading import CheckingLoader, ChecksArrivals
from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.engine_client import EngineClient
from cluster.weight_sync.weight_transfer import (
    AbortingClient,
    CheckedNcclReceiver,
    LearnerSource,
    WeightInspector,
    forget_partial_layers,
    open_sender,
)
from mgrpo.config import WeightsConfig
from mgrpo.errors import ActorDiedError, WeightSyncError
from tests.cluster.asked import AskedActor


class TwoWeights:
    """A learner with two tensors that counts how often it is read."""

    def __init__(self) -> None:
        self.tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
        self.num_passes = 0

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, "float32", tuple(t.shape)) for name, t in self.tensors.items()]

    def iter_weights(self) -> Iterator[tuple[str, Tensor]]:
        self.num_passes += 1
        yield from self.tensors.items()


class RecordingClient:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.calls.append(("init", init_info))

    def start_weight_update(self) -> None:
        self.calls.append(("start", None))

    def update_weights(self, update_info: Any) -> None:
        self.calls.append(("update", update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append(("finish", weight_version))


def nccl_sender(rank: int, client: RecordingClient, learner: TwoWeights) -> Any:
    return open_sender(
        learner,
        client,
        backend="nccl",
        rank=rank,
        master_address="10.0.0.1",
        master_port=29600,
        num_receivers=4,
        timeout_s=5,
        with_checksums=True,
        packed_buffer_bytes=1 << 20,
    )


def test_a_rank_that_does_not_send_still_reads_the_weights_and_calls_nobody() -> None:
    client, learner = RecordingClient(), TwoWeights()
    nccl_sender(1, client, learner).send_weights()
    assert learner.num_passes == 1 and client.calls == []


def test_the_gpu_senders_init_info_is_what_our_receiver_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: object())
    client = RecordingClient()
    nccl_sender(0, client, TwoWeights())
    [(call, payload)] = client.calls
    assert call == "init"
    info = CheckedNcclReceiver.init_info_cls(**payload)
    assert (info.master_address, info.master_port) == ("10.0.0.1", 29600)
    assert (info.rank_offset, info.world_size) == (1, 5)
    assert info.packed and info.packed_buffer_size_bytes == 1 << 20


def test_the_source_notes_a_checksum_of_each_tensor_it_sends() -> None:
    learner = TwoWeights()
    source = LearnerSource(learner, with_checksums=True)
    assert [name for name, _ in source] == ["a", "b"] == [m.name for m in source.metadata()]
    assert source.sent == {name: tensor_checksum(t) for name, t in learner.tensors.items()}
    assert source.num_bytes == sum(tensor.nbytes for tensor in learner.tensors.values())


def test_the_loader_notes_a_checksum_and_passes_the_tensors_on() -> None:
    class Model:
        def __init__(self) -> None:
            self.loaded: list[str] = []

        def load_weights(self, pairs: Any) -> None:
            self.loaded += [name for name, _ in pairs]

    model, received = Model(), {}
    CheckingLoader(model, received).load_weights(iter([("w", torch.ones(3))]))
    assert model.loaded == ["w"] and received == {"w": tensor_checksum(torch.ones(3))}


class Receiver:
    """Stands for one of vLLM's: hands what it is told to its model."""

    def __init__(self, model: Any) -> None:
        self.model, self.num_starts = model, 0

    def start_weight_update(self) -> None:
        self.num_starts += 1

    def receive_weights(self, update_info: dict[str, Tensor]) -> None:
        for pair in update_info.items():
            self.model.load_weights([pair])


class CheckedReceiver(ChecksArrivals, Receiver):
    pass


class FailingModel:
    def __init__(self) -> None:
        self.fails = False

    def load_weights(self, pairs: Any) -> None:
        if self.fails:
            raise RuntimeError("a tensor of another shape")


def test_a_receiver_knows_the_tensors_of_its_newest_update_alone() -> None:
    """A tensor that was not sent this time must not pass for the one of the time before."""
    receiver = CheckedReceiver(FailingModel())
    for names in (("a", "b"), ("b",)):
        receiver.start_weight_update()
        receiver.receive_weights({name: torch.full((2,), float(len(names))) for name in names})
        whole = tensor_checksum(torch.full((2,), float(len(names))))
        assert receiver.received == dict.fromkeys(names, whole)
    assert receiver.num_starts == 2


def test_a_receiver_has_its_own_model_again_after_an_update_that_fails() -> None:
    model = FailingModel()
    model.fails = True
    receiver = CheckedReceiver(model)
    receiver.start_weight_update()
    with pytest.raises(RuntimeError):
        receiver.receive_weights({"a": torch.ones(2)})
    assert receiver.model is model


def test_an_engine_reports_its_newest_checksums_and_its_spoilt_weights() -> None:
    worker = WeightInspector()
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    worker.weight_transfer_engine = SimpleNamespace(received={"a": 3}, model=model)
    assert worker.received_checksums() == {"a": 3}
    assert worker.nonfinite_weights() == []
    with torch.no_grad():
        model[0].weight[1, 1] = math.inf
        model[1].bias[0] = math.nan
    assert worker.nonfinite_weights() == ["0.weight", "1.bias"]


def test_each_engine_gets_ranks_of_its_own() -> None:
    seen: list[int] = []

    class Client(EngineClient):
        def wait(self, calls: Any, doing: str | None = None) -> list[Any]:
            seen.extend(call.args[0]["rank_offset"] for call in calls)
            return []

    engines: Any = [AskedActor("e")] * 3
    client = Client(engines, workers_per_engine=2, deadline_s=1)
    client.init_weight_transfer_engine({"rank_offset": 1})
    assert seen == [1, 3, 5]


def test_differences_are_found_on_both_sides() -> None:
    assert differing_tensors({"a": 1, "b": 2}, {"a": 1, "b": 2}) == []
    assert differing_tensors({"a": 1, "b": 2}, {"a": 9, "c": 3}) == ["a", "b", "c"]


def test_the_probes_difference_is_never_lost_in_nan_or_length() -> None:
    assert differences([1.0, 2.0], [1.5, 2.0]) == (0.25, 0.5)
    assert differences([1.0], [1.0, 2.0]) == (math.inf, math.inf)
    assert all(map(math.isnan, differences([1.0, math.nan], [1.0, 2.0])))


class TwentyTokens(WeightBroadcaster):
    """Its engine gives other log-probabilities than the learner's, which are all -1."""

    def __init__(self, gaps: dict[int, float]) -> None:
        group = GroupSettings(backend="gloo", workers_per_engine=1, shares_gpus=False, deadline_s=1)
        config = WeightsConfig(probe_tolerance=0.03)
        super().__init__([], group=group, config=config, dtype="float32", probe_token_ids=[1, 2])
        self.found = [-1.0 + gaps.get(token, 0.0) for token in range(20)]
        self.engines = [cast(Any, AskedActor("layer1-engine-0"))]

    def wait(self, calls: Any, doing: str | None = None) -> list[Any]:
        return [self.found]


def test_the_probe_bounds_the_mean_and_one_token_ten_times_as_wide() -> None:
    expected = [-1.0] * 20
    everywhere = TwentyTokens(dict.fromkeys(range(20), 0.02))
    assert everywhere.check_probe(3, expected) == pytest.approx(0.02)
    assert TwentyTokens({7: 0.25}).check_probe(3, expected) == pytest.approx(0.25)
    for gaps, message in (
        (dict.fromkeys(range(20), 0.05), r"layer1-engine-0's .*: mean 0\.05 nats"),
        ({7: 0.4}, r"mean 0\.02 nats, max 0\.4 \(limits 0\.03 and 0\.3\)"),
        ({7: math.nan}, "mean nan nats"),
    ):
        with pytest.raises(WeightSyncError, match=message):
            TwentyTokens(gaps).check_probe(3, expected)


def test_both_backends_are_registered() -> None:
    for name in weight_transfer.BACKENDS.values():
        assert name in weight_transfer.WeightTransferEngineFactory._registry
        assert name in weight_transfer.WeightTransferTrainerFactory._registry


def test_what_a_failed_broadcast_left_over_is_iterated_so_that_no_rank_waits() -> None:
    learner = TwoWeights()
    source = LearnerSource(learner, with_checksums=True)
    pairs = iter(source)
    next(pairs)  # the broadcast failed after the first tensor
    source.finish_iteration()
    assert next(pairs, None) is None and learner.num_passes == 1
    assert sorted(source.sent) == ["a", "b"]

    source.iterating = None  # it failed before the first tensor, and the others iterate already
    source.finish_iteration()
    assert learner.num_passes == 2


class FailingClient(RecordingClient):
    def update_weights(self, update_info: Any) -> None:
        raise ActorDiedError("layer1-engine-1 died during the call to update_weights")


def test_nccl_s_broadcast_is_aborted_when_an_engine_fails() -> None:
    aborted: list[bool] = []
    client = AbortingClient(FailingClient(), lambda: aborted.append(True))
    client.start_weight_update()
    assert not aborted
    with pytest.raises(ActorDiedError):
        client.update_weights({})
    assert aborted == [True]


def test_the_nccl_sender_aborts_its_own_communicator(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[bool] = []

    class Communicator:
        def destroy(self) -> None:
            destroyed.append(True)

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: Communicator())
    sender = nccl_sender(0, FailingClient(), TwoWeights())
    with pytest.raises(ActorDiedError):
        sender.client.update_weights({})
    assert destroyed == [True] and sender.model_update_group is None
    sender.shutdown()  # a second time does nothing
    assert destroyed == [True]


class TwoPartLayer(torch.nn.Module):
    """Like a fused projection: vLLM waits for all of it, and finds its parameters only once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
        self.second = torch.nn.Parameter(torch.zeros(4), requires_grad=False)

    def load(self, **values: float) -> None:
        parameters = dict(self.named_parameters())
        for name, value in values.items():
            parameter: Any = parameters[name]
            parameter.weight_loader(parameter, torch.full((4,), value))


def test_a_layer_that_a_failed_update_left_half_loaded_is_loaded_whole_by_the_next() -> None:
    layer = TwoPartLayer()
    model = torch.nn.Sequential(layer)
    layerwise.record_metadata_for_reloading(model)
    before = layer.first, layer.second
    layerwise.initialize_layerwise_reload(model)
    layer.load(first=1.0)  # and then the update fails

    forget_partial_layers(model)
    assert layer.first is before[0] and layer.second is before[1]
    assert layer.first.tolist() == [0.0] * 4

    layerwise.initialize_layerwise_reload(model)
    layer.load(first=2.0, second=3.0)
    layerwise.finalize_layerwise_reload(model, SimpleNamespace(dtype=torch.float32))
    assert layer.first.tolist() == [2.0] * 4
    assert layer.second.tolist() == [3.0] * 4
    assert layer.first is before[0], "what CUDA graphs read must stay where it is"


def test_experts_are_packed_again_after_a_reload() -> None:
    packed: list[torch.nn.Module] = []
    experts = SimpleNamespace(process_weights_after_loading=packed.append)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Identity())
    model[0].quant_method = SimpleNamespace()
    model[1].quant_method = SimpleNamespace(moe_kernel=SimpleNamespace(fused_experts=experts))
    model[2].quant_method = SimpleNamespace(moe_kernel=None)
    weight_transfer.repack_experts(model)
    assert packed == [model[1]]
