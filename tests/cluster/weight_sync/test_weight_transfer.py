"""The parts of the transfer that need no engine: ranks, checksums, reloads."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from vllm.model_executor.model_loader.reload import layerwise

from cluster.weight_sync import weight_sending, weight_transfer
from cluster.weight_sync.broadcast import (
    GroupSettings,
    WeightBroadcaster,
    differences,
    differing_tensors,
)
from cluster.weight_sync.checked_loading import CheckingLoader, ChecksArrivals
from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.engine_client import EngineClient
from cluster.weight_sync.weight_transfer import WeightInspector, forget_partial_layers
from mgrpo.config import WeightsConfig
from mgrpo.errors import WeightSyncError
from tests.cluster.asked import AskedActor


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
        assert name in weight_sending.WeightTransferTrainerFactory._registry


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
