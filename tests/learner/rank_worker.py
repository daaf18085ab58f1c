"""One learner rank in a process of its own: runs every scenario with real DeepSpeed engines.

    python -m tests.learner.rank_worker RANK NUM_RANKS PORT FOLDER

FOLDER holds the models "tiny", "tied", "towers" and "reference"; rank 0 leaves
`results-NUM_RANKS.pt` there.
Importing DeepSpeed takes seconds, so all scenarios share the process, each with a new learner.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import distributed as dist

from learner import deepspeed_learner
from learner.columns import StepBatch
from learner.deepspeed_learner import DeepSpeedLearner
from learner.plugin import EmaSchedule, LearnerPlugin, Measurement
from learner.policy_loading import merge_where_possible
from learner.policy_proofs import prove_policy
from learner.recipe import learner_recipe
from learner.rows import text
from learner.state_files import Piece, StateReader
from learner.token_states import TokenStates
from learner.zero_parts import kinds_in
from mgrpo.errors import LearnerError, ModelError, RunDirectoryError
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    begin_checkpoint,
    fault_of_files,
    finish_checkpoint,
)
from mgrpo.types import Completion, Replayed, Reward, UpdateResult
from tests.learner import set_scenarios
from tests.learner.builders import (
    Planted,
    completion,
    layer,
    random_completions,
    random_episodes,
    run_config,
    solve_layer,
)

SGD_RATE = 1000.0
"""So large that weights after one step are the gradient, to float32's precision."""
SMALL_BUDGET = 100
HOST_OPTIMIZER = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
KL_WEIGHT = 0.05
LAYER_KL_WEIGHTS = {1: 0.1, 2: 0.02}
PHASE_STEP, PHASE_TEMPERATURE = 5, 0.7
REPLAY_WEIGHT = 2.0
EMA_DECAY, EMA_EVERY = 0.75, 2
MINIBATCH_RATE = 0.3
"""So large that ratios of later minibatches leave the clip range."""
MINIBATCHES = (("p0", "p1"), ("p2",), ("p3",))
MINIBATCH_PROBLEMS = 4
MOVES = {
    1: ((0, "2-2"), (1, "2-3"), (2, "1-0"), (3, "1-2"), (3, "2-2")),
    2: ((0, "2-3"), (2, "1-3"), (3, "1-0"), (3, "2-2")),
}
"""By number of ranks: at which stage they go on, and from which ranks' and stage's state."""
MOVE_DEADLINE_S = 240.0
ENTROPY_ADVANTAGE = {"use": "entropy_advantage"}


class OneOfSeveral(DeepSpeedLearner):
    """DeepSpeed remembers the group of ranks, so learners of one process share it."""

    def join_ranks(self, address: str, port: int, *, backend: str) -> None:
        if not dist.is_initialized():
            super().join_ranks(address, port, backend=backend)

    def leave_ranks(self) -> None:
        pass

    def start_engine(self) -> Any:
        self.held_when_loaded = sum(one.numel() for one in self.policy.parameters())
        return super().start_engine()


class SgdLearner(OneOfSeveral):
    """Steps by the bare gradient, so that weights tell it."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        trained = [one for one in self.policy.parameters() if one.requires_grad]
        return torch.optim.SGD(trained, lr=self.settings.learning_rate)


class Ranks:
    """Where this process stands among the ranks, and how it makes learners."""

    def __init__(self, rank: int, num_ranks: int, port: int, folder: Path) -> None:
        self.rank, self.num_ranks, self.port, self.folder = rank, num_ranks, port, folder

    def learner(self, kind: type[DeepSpeedLearner] = OneOfSeveral, **sections: Any) -> Any:
        # Weights of the tiny model are all below DeepSpeed's threshold for not sharding.
        shard_all = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
        # The completions' log-probabilities are made up.
        own = {"deepspeed": shard_all, "max_logprob_shift": None}
        settings = {**own, **sections.pop("learner", {})}
        model = sections.pop("model_name", "tiny")
        # DeepSpeed collects garbage at every start and end, and the libraries' objects are many.
        gc.freeze()
        return kind(
            recipe=learner_recipe(run_config(learner=settings, **sections)),
            model_dir=str(self.folder / model),
            reference_dir=str(self.folder / (model if model == "towers" else "reference")),
            rank=self.rank,
            num_ranks=self.num_ranks,
            master_address="127.0.0.1",
            master_port=self.port,
            device="cpu",
        )


def weights_of(learner: DeepSpeedLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.iter_weights()}


def gradient(
    ranks: Ranks, *, zero_stage: int, budget: int, model_name: str = "tiny", **learner_settings: Any
) -> Any:
    """The gradient of one update, by the change of the weights."""
    learner = ranks.learner(
        SgdLearner,
        model_name=model_name,
        learner={
            "zero_stage": zero_stage,
            "microbatch_tokens": budget,
            "learning_rate": SGD_RATE,
            "max_grad_norm": 1e9,
            "logprob_chunk_tokens": 5,
            **learner_settings,
        },
        objective={"kl": {"weight": KL_WEIGHT}},
    )
    before = weights_of(learner)
    result = learner.update(random_completions())
    after = weights_of(learner)
    found = {
        "gradient": {name: (before[name] - after[name]) / SGD_RATE for name in before},
        "metrics": None if result is None else result.metrics,
        "metadata": learner.weight_metadata(),
        "held_when_loaded": learner.held_when_loaded,
        "frequencies": [
            buffer.clone()
            for model in (learner.policy, *learner.offload.frozen)
            for name, buffer in model.named_buffers()
            if name.endswith("inv_freq") and "original" not in name
        ],
        "shapes": {name: tuple(tensor.shape) for name, tensor in after.items()},
    }
    learner.close()
    return found


def method_gradient(
    ranks: Ranks,
    *,
    zero_stage: int = 2,
    budget: int = SMALL_BUDGET,
    step: int = 0,
    replayed: Any = (),
    completions: Sequence[Completion] | None = None,
    **sections: Any,
) -> Any:
    """The gradient of one update, where a method changes what is learned."""
    settings = {"microbatch_tokens": budget, "learning_rate": SGD_RATE, "max_grad_norm": 1e9}
    learner = ranks.learner(SgdLearner, learner={"zero_stage": zero_stage, **settings}, **sections)
    before = weights_of(learner)
    given = random_completions() if completions is None else completions
    learner.update(given, step=step, replayed=replayed)
    after = weights_of(learner)
    learner.close()
    return {name: (before[name] - after[name]) / SGD_RATE for name in before}


STREAMED_LAYERS = (
    {"aggregation": "token_mean"},
    {"select": "groups_with_success", "denominator": "per_parent", "loss_weight": 0.5},
)
"""Denominators that nothing but the end of a step tells, another for each layer."""
STREAMED_ONE_BY_ONE = ((0, "float32"), (3, "float32"))


def streamed(ranks: Ranks, *, zero_stage: int, dtype: str = "float32") -> Any:
    """Gradients of one update of whole steps, and of trees that come one or two at a time.

    One at a time where parameters are whole and where they are sharded, in float32.
    """
    parts_by_name: dict[str, Any] = {"whole": None, "two": [[1, 2], [], [0]]}
    if (zero_stage, dtype) in STREAMED_ONE_BY_ONE:
        parts_by_name["one"] = [[2], [0], [1]]
    settings = {"microbatch_tokens": SMALL_BUDGET, "learning_rate": SGD_RATE, "max_grad_norm": 1e9}
    first, second = STREAMED_LAYERS
    found: dict[str, Any] = {}
    for name, parts in parts_by_name.items():
        learner = ranks.learner(
            SgdLearner,
            learner={"zero_stage": zero_stage, "dtype": dtype, **settings},
            layers=[solve_layer(**first), layer(**second)],
            objective={"kl": {"weight": KL_WEIGHT}},
        )
        before = weights_of(learner)
        result = update_in_parts(learner, random_completions(), parts)
        after = weights_of(learner)
        learner.close()
        found[name] = {
            "gradient": {key: (before[key] - after[key]) / SGD_RATE for key in before},
            "metrics": None if result is None else result.metrics,
            "version": learner.policy_version,
        }
    return found


def update_in_parts(learner: Any, completions: list[Completion], parts: Any) -> Any:
    """One update, of whole trees in this order; None: of all of them at once."""
    replayed = replayed_corrections()
    if parts is None:
        return learner.update(completions, replayed=replayed)
    learner.begin_update()
    learner.add_trees(completions[:16])  # this update is never finished, and leaves nothing behind
    learner.begin_update()
    for part in parts:
        names = {f"p{number}" for number in part}
        learner.add_trees([one for one in completions if one.problem_id in names])
    return learner.finish_update(replayed=replayed)


def in_minibatches(ranks: Ranks, zero_stage: int) -> Any:
    """The weights before and after one update of an optimizer step on each part of its problems."""
    learner = ranks.learner(
        SgdLearner,
        learner={
            "zero_stage": zero_stage,
            "microbatch_tokens": SMALL_BUDGET,
            "learning_rate": MINIBATCH_RATE,
            "max_grad_norm": 1e9,
        },
        prompts_per_step=MINIBATCH_PROBLEMS,
        objective={"kl": {"weight": KL_WEIGHT}, "minibatches": len(MINIBATCHES)},
    )
    before = weights_of(learner)
    result = learner.update(random_completions(MINIBATCH_PROBLEMS))
    found = {
        "before": before,
        "after": weights_of(learner),
        "metrics": None if result is None else result.metrics,
        "version": learner.policy_version,
    }
    learner.close()
    return found


def replayed_corrections() -> list[Replayed]:
    """Three corrections of another step, whose ratios lie on both sides of the clip range."""
    corrections = [one for one in random_completions(seed=3) if one.layer == 2]
    return [
        Replayed(completion=one, advantage=advantage, weight=REPLAY_WEIGHT)
        for one, advantage in zip(corrections, (0.5, 1.0, 1.5), strict=False)
    ]


def method_gradients(ranks: Ranks) -> dict[str, Any]:
    phase = {
        "name": "cooler",
        "from_step": PHASE_STEP,
        "changes": {"sampling": {"temperature": PHASE_TEMPERATURE}},
    }
    plain = {"importance": "none"}
    own = {**ENTROPY_ADVANTAGE, "settings": {"detach": False}}
    return {
        "entropy": method_gradient(
            ranks, zero_stage=3, step=PHASE_STEP, plugins=[ENTROPY_ADVANTAGE], phases=[phase]
        ),
        "entropy_not_detached": method_gradient(ranks, plugins=[own], objective=plain),
        # Sharded and cut into micro-batches where there are two ranks, in one piece on one.
        "nthr": method_gradient(
            ranks,
            zero_stage=3 if ranks.num_ranks > 1 else 0,
            budget=SMALL_BUDGET if ranks.num_ranks > 1 else 8192,
            plugins=[{"use": "nthr", "settings": {"threshold_scale": 0.0}}],
        ),
        "layer_kl": method_gradient(
            ranks,
            layers=[
                solve_layer(advantage="none", kl_weight=LAYER_KL_WEIGHTS[1]),
                layer(kl_weight=LAYER_KL_WEIGHTS[2]),
            ],
        ),
        "replayed": method_gradient(
            ranks,
            replayed=replayed_corrections(),
        ),
        "two_turns": method_gradient(
            ranks, completions=random_episodes(), objective={"kl": {"weight": KL_WEIGHT}}
        ),
    }


def read(ranks: Ranks, zero_stage: int) -> Any:
    """What a plug-in can read of the policy: states at the end, and a sum over visited tokens."""
    learner = ranks.learner(
        learner={
            "zero_stage": zero_stage,
            "microbatch_tokens": SMALL_BUDGET,
            "logprob_chunk_tokens": 5,
        }
    )
    reader = learner._trainer.reader
    every = [text(one.prompt_token_ids, one.token_ids) for one in random_completions()]
    own = range(ranks.rank, len(every), ranks.num_ranks)
    rows = [every[place] for place in own]
    total = torch.zeros(64, reader.hidden_size)

    def add(states: TokenStates) -> None:
        total.add_(states.errors(torch.arange(64)).T @ states.hidden)

    reader.visit(rows, add, measurement="test")
    states = torch.zeros(len(every), reader.hidden_size)
    states[list(own)] = reader.last_states(rows)
    found = {"states": reader.sum(states), "products": reader.sum(total)}
    learner.close()
    return found


def measured_without_attempts(ranks: Ranks) -> Any:
    """Corrections alone train, compared with attempts that are only told of; then nothing does."""
    learner = ranks.learner(
        layers=[solve_layer(), layer(advantage="improvement", select="none")],
        plugins=[ENTROPY_ADVANTAGE],
    )
    completions = random_completions()
    attempts = [one for one in completions if one.layer == 1]
    corrections = [one for one in completions if one.layer == 2]
    results = [learner.update(corrections, attempts), learner.update([], attempts)]
    version = learner.policy_version
    learner.close()
    return {
        "metrics": [one.metrics for one in results if one is not None],
        "selections": [len(one.selections) for one in results if one is not None],
        "version": version,
    }


def improvement(ranks: Ranks) -> Any:
    """Log-probabilities of a rewarded and of an unrewarded completion, before and after."""
    learner = ranks.learner(learner={"zero_stage": 2})
    good = completion("q/1", 1.0, prompt=[1], token_ids=[5, 6], rollout_logprobs=[-4, -4])
    bad = completion("q/2", 0.0, prompt=[1], token_ids=[7, 8], rollout_logprobs=[-4, -4])
    results, probes = [], [probe(learner)]
    for _ in range(3):
        results.append(learner.update([good, bad]))
        probes.append(probe(learner))
    learner.close()
    return {
        "probes": probes,
        "versions": [one.policy_version for one in results if one is not None],
        "metrics": [one.metrics for one in results if one is not None],
        "selections": [one.selections for one in results if one is not None],
    }


def lone_row(ranks: Ranks) -> Any:
    """One row trains, so that with two ranks one of them has nothing but dummies."""
    learner = ranks.learner(
        SgdLearner,
        layers=[solve_layer(), layer(advantage="const_positive")],
        learner={"zero_stage": 3, "learning_rate": 1.0},
    )
    learner.update([completion("q/1/1", 1.0), completion("q/1/2", 0.0)])
    after = weights_of(learner)
    learner.close()
    return after


def probe(learner: DeepSpeedLearner) -> tuple[float, float]:
    return sum(learner.probe_logprobs([1, 5, 6])), sum(learner.probe_logprobs([1, 7, 8]))


def two_passes(ranks: Ranks) -> Any:
    learner = ranks.learner(objective={"updates_per_rollout": 2}, learner={"learning_rate": 0.05})
    result = learner.update(random_completions())
    learner.close()
    return None if result is None else result.metrics


def skipped_update(ranks: Ranks) -> Any:
    """All rewards equal: nothing to learn, but the version goes on."""
    learner = ranks.learner()
    before = weights_of(learner)
    equal = [
        dataclasses.replace(one, reward=Reward(value=1.0, correct=True))
        for one in random_completions()
    ]
    result = learner.update(equal)
    after = weights_of(learner)
    version = learner.policy_version
    learner.close()
    return {
        "unchanged": all(torch.equal(before[name], after[name]) for name in before),
        "version": version,
        "metrics": None if result is None else result.metrics,
    }


def large_gradient(ranks: Ranks, zero_stage: int) -> Any:
    """Three updates: the first and the last by a gradient above the bound."""
    learner = ranks.learner(learner={"zero_stage": zero_stage, "learning_rate": 0.01})
    moved, skipped = [], []
    for limit in (1e-9, 1e9, 1e-9):
        learner.settings = learner._trainer.settings = learner.settings.model_copy(
            update={"skip_above_grad_norm": limit}
        )
        before = weights_of(learner)
        result = learner.update(random_completions())
        after = weights_of(learner)
        moved.append(any(not torch.equal(before[name], after[name]) for name in before))
        if result is not None:
            skipped.append(result.metrics["learner/skipped_updates"])
    version = learner.policy_version
    learner.close()
    return {"moved": moved, "skipped": skipped, "version": version}


def refused_update(ranks: Ranks, zero_stage: int, spoil: Callable[..., list[Completion]]) -> Any:
    """What the learner says to a value that is not finite, and whether the weights moved."""
    learner = ranks.learner(learner={"zero_stage": zero_stage})
    before = weights_of(learner)
    message = ""
    try:
        learner.update(spoil(learner, random_completions()))
    except LearnerError as error:
        message = str(error)
    after = weights_of(learner)
    learner.close()
    return {
        "message": message,
        "unchanged": all(torch.equal(before[name], after[name]) for name in before),
    }


def left_out_updates(
    ranks: Ranks, zero_stage: int, *, dtype: str = "float32", is_streamed: bool = False
) -> Any:
    """An update that is not finite between two that are, beside a learner that never had it."""

    def updated(learner: DeepSpeedLearner, given: list[Completion]) -> UpdateResult | None:
        if not is_streamed:
            return learner.update(given)
        learner.begin_update()
        learner.add_trees(given)
        return learner.finish_update()

    found: dict[str, Any] = {"message": ""}
    for name in ("without", "with"):
        learner = ranks.learner(
            learner={"zero_stage": zero_stage, "max_nonfinite_updates": 1, "dtype": dtype}
        )
        results = [updated(learner, random_completions(seed=1))]
        if name == "with":
            results.append(updated(learner, spoil_rollout(learner, random_completions(seed=3))))
        results.append(updated(learner, random_completions(seed=2)))
        found |= {name: weights_of(learner), "results": results}
        if name == "with":
            try:
                for _ in range(2):
                    updated(learner, spoil_rollout(learner, random_completions()))
            except LearnerError as error:
                found["message"] = str(error)
        learner.close()
    return found


def shifted_updates(ranks: Ranks) -> Any:
    """Two completions' log-probabilities are off: named, and then refused."""
    learner = ranks.learner(learner={"zero_stage": 2, "max_logprob_shift": 3.0})
    given = random_completions()
    for place, nats, engine in ((0, 20.0, "engine-0"), (32, -40.0, "engine-1")):
        spoilt = [logprob + nats for logprob in given[place].rollout_logprobs.tolist()]
        given[place] = dataclasses.replace(given[place], rollout_logprobs=spoilt, engine=engine)
    warned = learner.update(given)
    before = weights_of(learner)
    learner.settings = learner._trainer.settings = learner.settings.model_copy(
        update={"on_shifted_logprobs": "stop"}
    )
    message = ""
    try:
        learner.update(given)
    except LearnerError as error:
        message = str(error)
    after = weights_of(learner)
    learner.close()
    return {
        "warned": warned,
        "message": message,
        "unchanged": all(torch.equal(before[name], after[name]) for name in before),
    }


def unlimited_gradient(ranks: Ranks, zero_stage: int) -> Any:
    """Every element of the gradient is finite, and its norm is not."""
    learner = ranks.learner(learner={"zero_stage": zero_stage, "max_nonfinite_updates": 1})

    def blow_up(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grad: grad * 1e25)

    learner.policy.causal_lm.model.norm.register_forward_hook(blow_up)
    before = weights_of(learner)
    result = learner.update(random_completions())
    after = weights_of(learner)
    learner.close()
    return {
        "unchanged": all(torch.equal(before[name], after[name]) for name in before),
        "warnings": None if result is None else result.warnings,
    }


def broken_weights(ranks: Ranks) -> str:
    """What the probe of a broadcast says of weights that are not finite."""
    learner = ranks.learner()
    with torch.no_grad():
        learner.policy.causal_lm.model.norm.weight[0] = math.nan
    try:
        learner.probe_logprobs([1, 2, 3])
    except LearnerError as error:
        return str(error)
    finally:
        learner.close()
    return ""


def spoil_rollout(_: DeepSpeedLearner, completions: list[Completion]) -> list[Completion]:
    """The engine reports NaN for one completion."""
    first = completions[0]
    spoilt = dataclasses.replace(first, rollout_logprobs=[float("nan")] * len(first.token_ids))
    return [spoilt, *completions[1:]]


def spoil_gradient(learner: DeepSpeedLearner, completions: list[Completion]) -> list[Completion]:
    """The loss is finite, the backward pass is not."""

    def spoil_output(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grad: grad * float("inf"))

    learner.policy.causal_lm.model.layers[0].mlp.register_forward_hook(spoil_output)
    return completions


def saved_policy(ranks: Ranks, zero_stage: int) -> Any:
    """Save twice over the same folder, after an update."""
    learner = ranks.learner(
        learner={"zero_stage": zero_stage}, model={"path": "tiny", "dtype": "bfloat16"}
    )
    folder = ranks.folder / f"saved-{ranks.num_ranks}-{zero_stage}"
    learner.save_policy(str(folder))
    learner.update(random_completions())
    learner.save_policy(str(folder))
    found = {"folder": str(folder), "weights": weights_of(learner)}
    learner.close()
    return found


def planted_shards(ranks: Ranks) -> dict[str, str]:
    """What is said of a whole checkpoint in which one of the learner's files is a pickle that runs
    code, by its name. Each lies in a folder of its own, with its mark beside it."""
    learner = ranks.learner(**sections_of_resume(2))
    learner.update(random_completions(seed=1))
    learner.save_state(str(ranks.folder / "planted" / "saved"))
    found = {}
    for shard in sorted((ranks.folder / "planted" / "saved").iterdir()):
        unfinished = begin_checkpoint(ranks.folder / "planted" / shard.name, 1)
        shutil.copytree(shard.parent, unfinished / LEARNER_DIR)
        planted = Planted(mark_of(ranks.folder, shard.name))
        state = {"policy_version": 1, "plugins": [], "more": planted}
        torch.save(state, unfinished / LEARNER_DIR / shard.name)
        checkpoint = finish_checkpoint(unfinished, {"num_steps": 1})
        assert fault_of_files(checkpoint) == ""
        try:
            learner.load_state(str(checkpoint / LEARNER_DIR))
            found[shard.name] = "was loaded"
        except RunDirectoryError as error:
            found[shard.name] = str(error)
    learner.close()
    return found


def mark_of(folder: Path, shard: str) -> Path:
    """What the code that is planted in a shard makes."""
    return folder / "planted" / f"{shard}.was-run"


def sections_of_resume(zero_stage: int) -> dict[str, Any]:
    # A plug-in that remembers earlier steps: what it knows must come back too.
    grouping = {"use": "agro", "settings": {"warmup_steps": 0, "learning_rate": 0.01}}
    return {"learner": {"zero_stage": zero_stage, "warmup_steps": 3}, "plugins": [grouping]}


def resumed(ranks: Ranks, zero_stage: int) -> Any:
    """Two updates in a row, and the second once more by a learner that resumed after the first."""
    folder = str(ranks.folder / f"state-{ranks.num_ranks}-{zero_stage}")
    sections = sections_of_resume(zero_stage)
    first = ranks.learner(**sections)
    first.update(random_completions(seed=1))
    first.save_state(folder)
    saved = weights_of(first)
    first.update(random_completions(seed=2))
    uninterrupted = weights_of(first)
    first.close()
    if ranks.rank == 0:
        Path(f"{folder}.whole").touch()

    second = ranks.learner(**sections)
    message = ""
    try:
        second.load_state(str(ranks.folder / "nowhere"))
    except RunDirectoryError as error:
        message = str(error)
    second.load_state(folder)
    second.update(random_completions(seed=2))
    found = {
        "saved": saved,
        "uninterrupted": uninterrupted,
        "resumed": weights_of(second),
        "remembered": second.plugins[0].num_updates,
        "version": second.policy_version,
        "message": message,
    }
    second.close()
    return found


def moved(ranks: Ranks, zero_stage: int, saved: str) -> Any:
    """Goes on from what other ranks saved, at another stage, and saves it again in its own files.

    Args:
        saved: "NUM_RANKS-STAGE", of `resumed`.
    """
    source = ranks.folder / f"state-{saved}"
    target = ranks.folder / f"state-{saved}-to-{ranks.num_ranks}-{zero_stage}"
    end = time.monotonic() + MOVE_DEADLINE_S
    while not Path(f"{source}.whole").exists():
        assert time.monotonic() < end, f"nobody saved {source}"
        time.sleep(0.05)
    learner = ranks.learner(**sections_of_resume(zero_stage))
    learner.load_state(str(source))
    loaded = weights_of(learner)
    learner.save_state(str(target))
    learner.update(random_completions(seed=2))
    found = {
        "loaded": loaded,
        "before": whole_state(source),
        "after": whole_state(target),
        "next": weights_of(learner),
        "remembered": learner.plugins[0].num_updates,
        "version": learner.policy_version,
        "files": sorted(file.name for file in target.iterdir()),
    }
    learner.close()
    return found


def whole_state(folder: Path) -> dict[str, Any]:
    """Every weight and state of the optimizer, put together from all files."""
    found: dict[str, Any] = {}
    for kind in kinds_in(folder):
        with StateReader(folder, kind) as saved:
            for name, pieces in saved.pieces.items():
                whole = pieces[0][0].whole
                found[f"{kind} {name}"] = torch.full((whole,), torch.nan)
                saved.read(Piece(name, 0, whole, whole), found[f"{kind} {name}"])
            found |= {f"values {name}": dict(values) for name, values in saved.values.items()}
    return found


def offloaded(ranks: Ranks, **learner_settings: Any) -> Any:
    """Three updates, and the same by a learner that leaves its GPU after each, as it does when an
    engine shares it; it is saved while it is away, and one that resumed makes the last update."""
    folder = str(ranks.folder / "-".join(["away", str(ranks.num_ranks), *learner_settings]))
    sections = {
        "learner": {"zero_stage": 2, "learning_rate": 0.01, **learner_settings},
        "objective": {"kl": {"weight": KL_WEIGHT}},
    }
    staying = ranks.learner(**sections)
    sent, policies, probes = [], [], []
    away = set()
    for seed in range(3):
        staying.update(random_completions(seed=seed))
        policies.append(weights_of(staying))
        probes.append(probe(staying))
    staying.close()

    moving = ranks.learner(**sections)
    found_probes = []
    for seed in range(3):
        moving.update(random_completions(seed=seed))
        moving.offload.leave("optimizer")
        sent.append(weights_of(moving))
        found_probes.append(probe(moving))
        moving.offload.leave("weights")
        away |= {state.value for state in moving.engine.optimizer.offloaded_states}
        if seed == 1:
            moving.save_state(folder)
        moving.offload.come_back()
    moving.close()

    resumed = ranks.learner(**sections)
    resumed.load_state(folder)
    resumed.update(random_completions(seed=2))
    found = {
        "policies": policies,
        "sent": sent,
        "probes": probes,
        "found_probes": found_probes,
        "resumed": weights_of(resumed),
        "away": away,
    }
    resumed.close()
    return found


class WantsAverage(LearnerPlugin):
    """Looks at the policy's average, and at nothing else."""

    requires: ClassVar[frozenset[Measurement]] = frozenset({"ema_logprobs"})

    def ema(self) -> EmaSchedule:
        return EmaSchedule(decay=EMA_DECAY, every_updates=EMA_EVERY)

    def shape_rewards(self, batch: StepBatch, rewards: torch.Tensor) -> torch.Tensor:
        batch.metrics["ema_sum"] = (float(batch.total(batch.measurements["ema_logprobs"])), 1.0)
        return rewards


def averaged(ranks: Ranks, zero_stage: int, *, keeps_small_whole: bool = False) -> Any:
    """Two updates, a checkpoint, two more; and the last two again by a learner that resumed."""
    folder = str(ranks.folder / f"ema-{ranks.num_ranks}-{zero_stage}-{keeps_small_whole}")
    settings: dict[str, Any] = {"zero_stage": zero_stage, "microbatch_tokens": SMALL_BUDGET}
    if keeps_small_whole:
        settings["deepspeed"] = {}
    sections = {"learner": settings, "plugins": [{"use": f"{__name__}:WantsAverage"}]}
    first = ranks.learner(**sections)
    policies, averages, sums = [weights_of(first)], [average_of(first)], []
    for seed in range(4):
        result = first.update(random_completions(seed=seed))
        sums.append(None if result is None else result.metrics["ema_sum"][0])
        policies.append(weights_of(first))
        averages.append(average_of(first))
        if seed == 1:
            first.save_state(folder)
    first.close()

    second = ranks.learner(**sections)
    second.load_state(folder)
    for seed in (2, 3):
        second.update(random_completions(seed=seed))
    found = {
        "leaves_gpu": second.ema in second.offload.frozen,
        "policies": policies,
        "averages": averages,
        "sums": sums,
        "resumed": average_of(second),
        "files": sorted(path.name for path in (Path(folder) / "ema").iterdir()),
        "shards": [
            getattr(one, "ds_tensor", one).numel() for one in second.ema.average.parameters()
        ],
    }
    second.close()
    return found


def average_of(learner: Any) -> dict[str, torch.Tensor]:
    """Weights of the average, whole."""
    found = {}
    for name, parameter in learner.ema.average.causal_lm.named_parameters():
        with learner._gathered([parameter]):
            found[name] = parameter.detach().clone()
    return found


def averaged_bf16(ranks: Ranks) -> Any:
    """How far the average is from its definition in float32, as it is kept and as it is read."""
    learner = ranks.learner(
        learner={"zero_stage": 3, "dtype": "bfloat16"},
        plugins=[{"use": f"{__name__}:WantsAverage"}],
    )
    expected = [value.clone() for _, value in learner.ema._values()]
    for seed in range(EMA_EVERY):
        learner.update(random_completions(seed=seed))
    for value, parameter in zip(expected, learner.policy.parameters(), strict=True):
        value += (1 - EMA_DECAY) * (parameter.ds_tensor.float() - value)
    kept = [value for _, value in learner.ema._values()]
    read = [one.ds_tensor.float() for one in learner.ema.average.parameters()]
    found = {
        name: max(
            float((one - other).abs().max()) for one, other in zip(values, expected, strict=True)
        )
        for name, values in (("kept", kept), ("read", read))
    }
    learner.close()
    return found


def with_towers(ranks: Ranks, zero_stage: int) -> Any:
    """An update of a model that also reads images: its gradient, and what is saved and resumed."""
    folder = ranks.folder / f"towers-{ranks.num_ranks}-{zero_stage}"
    settings = {"zero_stage": zero_stage, "learning_rate": SGD_RATE, "max_grad_norm": 1e9}
    sections: dict[str, Any] = {"model_name": "towers", "learner": settings}
    learner = ranks.learner(SgdLearner, **sections)
    before = weights_of(learner)
    learner.update(random_completions())
    after = weights_of(learner)
    learner.save_policy(str(folder / "saved"))
    learner.save_state(str(folder / "state"))
    found = {
        "gradient": {name: (before[name] - after[name]) / SGD_RATE for name in before},
        "after": after,
        "metadata": learner.weight_metadata(),
        "folder": str(folder / "saved"),
    }
    learner.close()
    resumed = ranks.learner(SgdLearner, **sections)
    resumed.load_state(str(folder / "state"))
    found["resumed"] = weights_of(resumed)
    resumed.close()
    return found


def incomplete_models(ranks: Ranks) -> dict[str, str]:
    """What is said of checkpoints with a weight too few and one too many, where they are sharded
    as they are read."""
    found = {}
    for name in ("headless", "overfull"):
        try:
            ranks.learner(model_name=name, learner={"zero_stage": 3}).close()
            found[name] = "loaded"
        except ModelError as error:
            found[name] = str(error)
    return found


def mixture(ranks: Ranks) -> Any:
    """What is sent of a mixture of experts, in bfloat16 by a learner that computes in float32."""
    learner = ranks.learner(
        model_name="mixture",
        learner={"zero_stage": 3},
        model={"path": "mixture", "dtype": "bfloat16"},
    )
    found = {"metadata": learner.weight_metadata(), "sent": weights_of(learner)}
    learner.close()
    return found


def schedule(ranks: Ranks) -> Any:
    learner = ranks.learner(
        learner={"learning_rate": 0.01, "warmup_steps": 2, "schedule": "linear"}
    )
    results = [learner.update(random_completions()) for _ in range(4)]
    learner.close()
    return [one.metrics["learner/learning_rate"][0] for one in results if one is not None]


def of_sets(ranks: Ranks) -> dict[str, Any]:
    """Gradients of losses of several rows, sharded and not."""
    bare = {"microbatch_tokens": SMALL_BUDGET, "learning_rate": SGD_RATE, "max_grad_norm": 1e9}
    kinds = {
        "pairs": set_scenarios.pairs,
        "contexts": set_scenarios.in_contexts,
        "distilled": set_scenarios.distilled,
    }
    return {
        f"zero{stage}_{name}": make(ranks, SgdLearner, stage, **bare)
        for name, make in kinds.items()
        for stage in (0, 3)
    }


def all_scenarios(ranks: Ranks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in (0, 1, 2, 3):
        found[f"zero{stage}"] = gradient(ranks, zero_stage=stage, budget=SMALL_BUDGET)
        found[f"zero{stage}_streamed"] = streamed(ranks, zero_stage=stage)
    for stage in (0, 2, 3):  # 1 keeps whole weights by the code of 2
        found[f"zero{stage}_read"] = read(ranks, stage)
        found[f"zero{stage}_ema"] = averaged(ranks, stage)
        found[f"zero{stage}_large"] = large_gradient(ranks, stage)
    found["zero3_whole_ema"] = averaged(ranks, 3, keeps_small_whole=True)
    found["zero3_bf16_ema"] = averaged_bf16(ranks)
    for stage in (1, 2, 3):
        found[f"zero{stage}_bf16_streamed"] = streamed(ranks, zero_stage=stage, dtype="bfloat16")
    for stage in (0, 2):
        found[f"zero{stage}_minibatches"] = in_minibatches(ranks, stage)
    for stage in (0, 2, 3):
        found[f"zero{stage}_towers"] = with_towers(ranks, stage)
    for stage in (2, 3):
        found[f"zero{stage}_tied"] = gradient(
            ranks, zero_stage=stage, budget=SMALL_BUDGET, model_name="tied"
        )
    found |= method_gradients(ranks)
    found |= of_sets(ranks)
    found["incomplete"] = incomplete_models(ranks)
    found["mixture"] = mixture(ranks)
    found["measured_without_attempts"] = measured_without_attempts(ranks)
    found["lone_row"] = lone_row(ranks)
    found["zero3_refused"] = refused_update(ranks, 3, spoil_gradient)
    found["zero3_saved"] = saved_policy(ranks, 3)
    found["zero2_resumed"] = resumed(ranks, 2)
    found["zero3_resumed"] = resumed(ranks, 3)
    found["improvement"] = improvement(ranks)
    found["zero2_offloaded"] = offloaded(ranks)
    found["host_optimizer_offloaded"] = offloaded(ranks, deepspeed=HOST_OPTIMIZER)
    if ranks.num_ranks == 2:
        for name, dtype in (("zero3_checkpointed", "float32"), ("zero3_bf16", "bfloat16")):
            found[name] = gradient(
                ranks, zero_stage=3, budget=SMALL_BUDGET, dtype=dtype, gradient_checkpointing=True
            )
        found["zero2_left_out"] = left_out_updates(ranks, 2, is_streamed=True)
        found["zero3_left_out"] = left_out_updates(ranks, 3)
        found["shifted"] = shifted_updates(ranks)
    if ranks.num_ranks == 1:
        found["one_batch"] = gradient(ranks, zero_stage=0, budget=8192)
        found["checkpointed"] = gradient(
            ranks, zero_stage=0, budget=8192, gradient_checkpointing=True
        )
        found["padded"] = gradient(ranks, zero_stage=0, budget=SMALL_BUDGET, merge_prefixes=False)
        found["zero0_bf16"] = gradient(ranks, zero_stage=0, budget=SMALL_BUDGET, dtype="bfloat16")
        found["zero0_resumed"] = resumed(ranks, 0)
        found["two_passes"] = two_passes(ranks)
        found["skipped"] = skipped_update(ranks)
        found["zero0_refused"] = refused_update(ranks, 0, spoil_gradient)
        found["rollout_refused"] = refused_update(ranks, 0, spoil_rollout)
        found["broken_weights"] = broken_weights(ranks)
        found["zero0_left_out"] = left_out_updates(ranks, 0)
        found["zero1_left_out"] = left_out_updates(ranks, 1, dtype="bfloat16", is_streamed=True)
        for stage in (0, 2):
            found[f"zero{stage}_unlimited"] = unlimited_gradient(ranks, stage)
        found["zero0_saved"] = saved_policy(ranks, 0)
        found["planted"] = planted_shards(ranks)
        found["schedule"] = schedule(ranks)
        found["bf16_offloaded"] = offloaded(ranks, dtype="bfloat16")
    for stage, saved in MOVES[ranks.num_ranks]:
        found[f"{saved}-to-{ranks.num_ranks}-{stage}"] = moved(ranks, stage, saved)
    dist.destroy_process_group()
    return found


def proved_once() -> Callable[..., None]:
    """`prove_policy` of the first learner of each model, stage and way to read rows: the start of
    every other would repeat it. All of them merge prefixes where they can."""
    proved: set[Any] = set()

    def prove(
        policy: Any,
        engine: Any,
        *,
        merge_prefixes: bool,
        max_row_tokens: int | None,
        **settings: Any,
    ) -> None:
        own = {"merge_prefixes": merge_prefixes, "max_row_tokens": max_row_tokens}
        model = policy.causal_lm.config.to_json_string()
        kind = (model, engine.zero_optimization_stage(), *own.values())
        if kind not in proved:
            prove_policy(policy, engine, **own, **settings)
            proved.add(kind)
        elif merge_prefixes:
            merge_where_possible(policy, max_row_tokens)

    return prove


if __name__ == "__main__":
    deepspeed_learner.prove_policy = proved_once()
    rank, num_ranks, port = (int(argument) for argument in sys.argv[1:4])
    folder = Path(sys.argv[4])
    scenarios = all_scenarios(Ranks(rank, num_ranks, port, folder))
    if rank == 0:
        torch.save(scenarios, folder / f"results-{num_ranks}.pt")
    # Threads of gloo that still run when Python ends now and then abort the process.
    sys.stdout.flush()
    os._exit(0)
