"""TRL's own code for advantages and losses, called with stand-ins for everything around it.

Nothing of TRL's formulas is written again here: `GRPOTrainer._generate_and_score_completions` and
`._compute_loss`, and RLOOTrainer's, run as they are. The stand-in for the trainer has the settings
that they read, "samples" the completions that it is given, and answers with given log-probabilities
where they would run a model.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer


class OneProcess:
    """What accelerate does with one process."""

    device = torch.device("cpu")
    is_main_process = True
    num_processes, process_index = 1, 0
    sync_gradients = True

    def gather(self, values: Tensor) -> Tensor:
        return values

    gather_for_metrics = gather

    def reduce(self, values: Tensor, reduction: str = "sum") -> Tensor:
        return values

    def pad_across_processes(self, values: Tensor, **_: Any) -> Tensor:
        return values


def padded(rows: Sequence[Tensor]) -> Tensor:
    """[B, T] with 0 behind each row's end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def unwrapped(method: Any) -> Any:
    """The method without the profiler around it, which asks for a whole trainer."""
    return getattr(method, "__wrapped__", method)


class Stub:
    """The trainer as its methods see it."""

    def __init__(self, lengths: Sequence[int], **settings: Any) -> None:
        args = {
            "delta": None,
            "use_bias_correction_kl": False,
            "steps_per_generation": 1,
            "gradient_accumulation_steps": 1,
            "per_device_train_batch_size": len(lengths),
            "gradient_checkpointing_kwargs": None,
        }
        own = {
            "accelerator": OneProcess(),
            "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
            "ref_model": object(),
            "loss_type": "grpo",
            "importance_sampling_level": "token",
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "beta": 0.0,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "aux_loss_enabled": False,
            "use_vllm": False,
            "vllm_importance_sampling_correction": False,
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_min": None,
            "vllm_importance_sampling_clip_max": 2.0,
            "_entropy_bonus_enabled": False,
            "use_adaptive_entropy": False,
            "current_gradient_accumulation_steps": 1,
            "num_iterations": 1,
            "max_completion_length": 8,
            "scale_rewards": "group",
            "multi_objective_aggregation": "sum_then_normalize",
            "normalize_advantages": False,
            "reward_clip_range": None,
            "reward_weights": torch.ones(1),
            "reward_func_names": ["reward"],
            "reward_funcs": [None],
            "environment_factories": None,
            "environments": None,
            "tools": [],
            "pad_to_multiple_of": None,
            "mask_truncated_completions": False,
            "_tokenizer": SimpleNamespace(pad_token_id=0),
            "log_multimodal": False,
        }
        for name, value in {**own, **settings}.items():
            setattr(self, name, value)
        self.args = SimpleNamespace(**{**args, **settings})
        self.lengths = list(lengths)
        self.given: dict[str, Tensor] = {}
        self._metrics: Any = {"train": defaultdict(list)}
        self._logs: Any = defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list))
        self._pending_extra_logs: dict[str, Any] = {}
        self._pending_metrics: dict[str, Any] = {}

    def get_high_entropy_mask(self, *args: Any) -> Tensor:
        mask: Tensor = unwrapped(GRPOTrainer.get_high_entropy_mask)(self, *args)
        return mask

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        completions = [[1] * length for length in self.lengths]
        prompt_ids = [[1, 2] for _ in self.lengths]
        if isinstance(self, RlooStub):
            return prompt_ids, completions, completions
        sampled = [row.tolist() for row in self.given["rollout"].split(self.lengths)]
        return prompt_ids, completions, None, completions, sampled, {}, None, None

    def _calculate_rewards(self, *_: Any) -> Tensor:
        return self.given["rewards"][:, None]

    def _get_per_token_logps_and_entropies(self, model: Any, *_: Any, **__: Any) -> Any:
        name = "ref" if model is self.ref_model else "policy"
        entropies = self.given.get("entropies", torch.zeros_like(self.given[name]))
        return (
            padded(self.given[name].split(self.lengths)),
            padded(entropies.split(self.lengths)),
            None,
        )

    def inputs(self, advantages: Tensor, old: Tensor, ref: Tensor | None) -> dict[str, Tensor]:
        mask = padded([torch.ones(length) for length in self.lengths])
        found = {
            "prompt_ids": torch.ones(len(self.lengths), 2),
            "prompt_mask": torch.ones(len(self.lengths), 2),
            "completion_ids": mask,
            "completion_mask": mask,
            "advantages": advantages,
            "old_per_token_logps": padded(old.split(self.lengths)),
            "num_items_in_batch": mask.sum(),
        }
        if ref is not None:
            found["ref_per_token_logps"] = padded(ref.split(self.lengths))
        return found


class RewardStub(Stub):
    """The same with TRL's own call of reward functions, for completions that are given as text."""

    def __init__(self, texts: Sequence[Any], ids: Sequence[list[int]], **settings: Any) -> None:
        super().__init__([len(one) for one in ids], report_to=[], **settings)
        self.texts, self.ids = list(texts), list(ids)
        self.state = SimpleNamespace(global_step=0)
        self._has_async_funcs = True
        self._log_completion_extra = lambda column, values: None
        self._log_metric = lambda name, value: None
        self.async_loop = asyncio.new_event_loop()
        threading.Thread(target=self.async_loop.run_forever, daemon=True).start()

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        prompt_ids = [[1, 2] for _ in self.ids]
        sampled = [[0.0] * len(ids) for ids in self.ids]
        return prompt_ids, self.ids, None, self.texts, sampled, {}, None, None

    def _calculate_rewards(self, *given: Any) -> Tensor:
        found: Tensor = unwrapped(GRPOTrainer._calculate_rewards)(self, *given)
        self.rewards = found
        return found


class RlooStub(Stub):
    """The same for RLOOTrainer, which unpacks other things."""


def trl_advantages(
    rewards: Tensor, lengths: Sequence[int], group_size: int, **settings: Any
) -> Tensor:
    """[N] as GRPOTrainer computes them; rows of a group stand together."""
    stub = Stub(lengths, num_generations=group_size, **settings)
    return scored(stub, rewards, lengths)["advantages"]


def trl_rewards(
    functions: Sequence[Any],
    weights: Sequence[float],
    rows: Sequence[dict[str, Any]],
    texts: Sequence[Any],
    ids: Sequence[list[int]],
    group_size: int,
) -> tuple[Tensor, Tensor]:
    """([N, functions] with NaN for None, [N] advantages) as GRPOTrainer computes them.

    Args:
        functions: as its `reward_funcs`.
        weights: of each.
        rows: the data set's row of each completion; those of a group stand together.
        texts: the completions, or lists of messages where prompts are.
        ids: their tokens.
        group_size: completions of each prompt.
    """
    stub = RewardStub(
        texts,
        ids,
        num_generations=group_size,
        reward_funcs=list(functions),
        reward_func_names=[one.__name__ for one in functions],
        reward_processing_classes=[None] * len(functions),
        reward_weights=torch.tensor(weights),
    )
    zeros = torch.zeros(sum(stub.lengths), dtype=torch.float64)
    stub.given = {"policy": zeros, "rollout": zeros}
    found = unwrapped(GRPOTrainer._generate_and_score_completions)(stub, list(rows))
    stub.async_loop.call_soon_threadsafe(stub.async_loop.stop)
    return stub.rewards, found["advantages"]


def trl_rloo_advantages(
    rewards: Tensor,
    lengths: Sequence[int],
    group_size: int,
    *,
    policy: Tensor | None = None,
    ref: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """[N] as RLOOTrainer computes them."""
    stub = RlooStub(lengths, num_generations=group_size, **settings)
    stub.given |= {} if policy is None else {"policy": policy}
    stub.given |= {} if ref is None else {"ref": ref}
    return scored(stub, rewards, lengths, trainer=RLOOTrainer)["advantages"]


def trl_mismatch_weights(
    policy: Tensor, rollout: Tensor, lengths: Sequence[int], **settings: Any
) -> Tensor:
    """[N, T] or [N, 1] as GRPOTrainer weighs for its vLLM engines."""
    stub = Stub(
        lengths,
        num_generations=2,
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        **settings,
    )
    stub.given |= {"policy": policy, "rollout": rollout}
    rewards = torch.zeros(len(lengths), dtype=torch.float64)
    return scored(stub, rewards, lengths)["importance_sampling_ratio"]


def scored(
    stub: Stub, rewards: Tensor, lengths: Sequence[int], *, trainer: Any = GRPOTrainer
) -> dict[str, Tensor]:
    zeros = torch.zeros(sum(lengths), dtype=torch.float64)
    stub.given = {"rewards": rewards, "policy": zeros, "rollout": zeros} | stub.given
    score = unwrapped(trainer._generate_and_score_completions)
    found: dict[str, Tensor] = score(stub, [{"prompt": "q"} for _ in lengths])
    return found


def trl_loss(
    policy: Tensor,
    old: Tensor,
    advantages: Tensor,
    lengths: Sequence[int],
    *,
    ref: Tensor | None = None,
    entropies: Tensor | None = None,
    trainer: Any = GRPOTrainer,
    **settings: Any,
) -> Tensor:
    """GRPOTrainer's loss, with gradient by the [M] log-probabilities."""
    stub = Stub(lengths, **settings)
    stub.given = {"policy": policy}
    if entropies is not None:
        stub.given["entropies"] = entropies
    loss: Tensor = unwrapped(trainer._compute_loss)(stub, None, stub.inputs(advantages, old, ref))
    return loss


def trl_rloo_loss(
    policy: Tensor, old: Tensor, advantages: Tensor, lengths: Sequence[int], **settings: Any
) -> Tensor:
    """RLOOTrainer's loss: a clipped ratio of the whole completion's probability."""
    stub = RlooStub(lengths, **settings)
    stub.given = {"policy": policy}
    inputs = stub.inputs(advantages, old, None)
    inputs["old_logps"] = inputs["old_per_token_logps"].sum(dim=1)
    loss: Tensor = unwrapped(RLOOTrainer._compute_loss)(stub, None, inputs)
    return loss
