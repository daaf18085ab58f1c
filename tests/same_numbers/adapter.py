"""The only module here that knows today's records, recipes and learner.

Inputs, cases and results are plain data that outlive a redesign. When records, configuration or
the learner change, this module changes with them, and nothing else in this folder does.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from learner.deepspeed_learner import DeepSpeedLearner
from learner.recipe import learner_recipe
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe, shipped_recipes
from mgrpo.methods.veripo.preference_cycle import pair_rows
from mgrpo.methods.veripo.preference_pairs import PreferencePair
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.metrics.log import read_metrics, read_rollouts, rollout_paths
from mgrpo.models.catalog import resolve_model
from mgrpo.types import Completion, CompletionId, Replayed, Reward, UpdateResult
from tests.learner.builders import save_tiny_llama
from tests.repository import REPOSITORY
from tests.same_numbers.cases import Case, Update

Row = Mapping[str, Any]
"""One completion of `inputs.json`."""
RowKey = tuple[int, tuple[int, ...]]
"""The problem's place in its step and the completion's path: (2, (1, 0)) is the first correction
of the second attempt at the third problem."""

COMMON = (
    "model.dtype=float32",
    "learner.num_threads=1",
    # Large, so that the second update differs visibly from the first.
    "learner.learning_rate=0.003",
    # Small, so that every rank has several micro-batches; sequences must then be short.
    "learner.microbatch_tokens=96",
    "data.max_prompt_tokens=32",
)
TWO_UPDATES = ("objective.minibatches=1", "objective.updates_per_rollout=2")
ONE_STEP = ("objective.minibatches=1",)
AS_RECORDED = {
    **{
        f"methods/{name}": TWO_UPDATES
        for name in ("cispo", "dapo", "disco", "gmpo", "gspo", "kl_cov", "raft_plus_plus")
    },
    **{f"methods/{name}": ONE_STEP for name in ("clip_cov", "nthr", "reinforce_rej")},
    "methods/agro": ("plugins.0.settings.features=tokens",),
}
"""Settings of recipes as they were when their numbers were recorded."""
OWN = {
    "methods/dapo": ("plugins.0.settings.max_tokens=8", "plugins.0.settings.buffer_tokens=3"),
    # Entropies are above the recipe's target, and influences of random tokens below its threshold.
    "methods/entropy_bonus": ("plugins.0.settings.target=10",),
    "methods/nthr": ("plugins.0.settings.threshold_scale=0",),
    # Its clip range is so narrow that otherwise nothing would be within it.
    "methods/gspo": ("learner.learning_rate=0.00001",),
    "methods/score": ("phases.0.from_step=1",),
    "methods/veripo": ("phases.0.from_step=1", "phases.0.num_steps=2"),
    # Weights of the tiny policy are all below DeepSpeed's threshold for not sharding. The numbers
    # are recorded on policy.
    "qwen2.5_math_7b": (
        "pipeline.max_staleness_steps=auto",
        "learner.deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0}}",
    ),
}
"""What a case changes in its recipe: so that its special parts take effect on short completions
within two or three steps."""

ADDED_METRICS = (
    *("learner/optimizer_steps", "mismatch/shifted_completions"),
    "unlikeliness/pass_at_group",
)
"""Those that the recorded code did not have."""

STUDY = "study/"
"""What the names of the study's recipes begin with, which are not shipped."""

EARLIER = 1000
"""Step in the names of completions that an update did not sample."""
ADAM_EPSILON = 1e-2
"""About the root mean square of a clipped gradient's elements."""


def save_models(folder: Path) -> None:
    """The policy, a reference that differs from it, and a preference model over prefixes."""
    save_tiny_llama(folder / "policy")
    save_tiny_llama(folder / "reference", initializer_range=0.19)
    PrefixScorer.create(str(folder / "policy"), hidden_units=8).save(str(folder / "scorer"))


def recipe_of(name: str) -> str:
    """A case's recipe as `load_recipe` takes it."""
    if name.startswith(STUDY):
        return f"{REPOSITORY}/benchmarks/study/recipes/{name.removeprefix(STUDY)}.yaml"
    return name


def shipped() -> set[str]:
    """Every recipe that trains, as cases name them."""
    study = (REPOSITORY / "benchmarks" / "study" / "recipes").glob("*.yaml")
    own = set(shipped_recipes()) - {"evaluate"}
    return {*own, *(f"{STUDY}{file.stem}" for file in study)}


def config_of(case: Case, folder: Path) -> RunConfig:
    """The recipe of a case as it is trained here."""
    own = [*AS_RECORDED.get(case.recipe, ()), *OWN.get(case.recipe, ())]
    if case.recipe == "methods/ws_grpo":
        own.append(f"plugins.1.settings.scorer={folder / 'scorer'}")
    short = [f"layers.{place}.max_completion_tokens=16" for place in range(case.num_layers)]
    return load_recipe(recipe_of(case.recipe), [*COMMON, *short, *own])


# --- records ------------------------------------------------------------------------------------


def key_of(row: Row) -> RowKey:
    return row["problem"], tuple(row["path"])


def completion_id(step: int, key: RowKey) -> str:
    return str(CompletionId(step, *key))


def completions_of(rows: Sequence[Row], problems: Sequence[Row], step: int) -> list[Completion]:
    """The rows as completions of a step, with what the sampling plug-ins leave for the learner."""
    contexts = {
        number: answer_contexts(problem, rows, number, step)
        for number, problem in enumerate(problems)
    }
    return [
        completion_of(row, problems[row["problem"]], contexts[row["problem"]], step) for row in rows
    ]


def completion_of(row: Row, problem: Row, contexts: dict[str, Any], step: int) -> Completion:
    place, path = key_of(row)
    parent = completion_id(step, (place, path[:-1])) if len(path) > 1 else None
    metadata: dict[str, Any] = {
        "entities": problem["entities"],
        "greedy_logprob_mean": problem["greedy_logprob_mean"],
    }
    if len(path) == 1:
        metadata |= {"answer_contexts": contexts, "context_samples": row.get("continuations", [])}
    return Completion(
        id=CompletionId(step, place, path),
        problem_id=problem["name"],
        domain=problem["domain"],
        layer=len(path),
        parent_id=parent,
        group_key=parent or f"s{step}p{place}",
        prompt=row["prompt"],
        token_ids=row["tokens"],
        rollout_logprobs=row["logprobs"],
        finish_reason=row["finish"],
        version_spans=((0, step),),
        text=row["text"],
        prompt_text="",
        sampled_mask=row.get("sampled"),
        train_mask=row.get("trained"),
        spans={name: [(a, b) for a, b in spans] for name, spans in row["spans"].items()},
        augmented_by=row.get("augmented", ""),
        metadata=metadata,
        reward=Reward(**row["reward"]),
    )


def answer_contexts(problem: Row, rows: Sequence[Row], number: int, step: int) -> dict[str, Any]:
    """What shows the other answers to a problem (GCPO)."""
    answers = {
        completion_id(step, key_of(row)): row["tokens"]
        for row in rows
        if row["problem"] == number and len(row["path"]) == 1
    }
    return {**problem["contexts"], "answers": answers}


def pairs_of(pairs: Sequence[Row], problems: Sequence[Row]) -> list[PreferencePair]:
    """Pairs of completions of an earlier step."""
    return [
        PreferencePair(
            kind=pair["kind"],
            chosen=completions_of([pair["chosen"]], problems, EARLIER)[0],
            rejected=completions_of([pair["rejected"]], problems, EARLIER)[0],
        )
        for pair in pairs
    ]


# --- the learner ---------------------------------------------------------------------------------


class MeasuredLearner(DeepSpeedLearner):
    """Keeps the gradients of its optimizer steps, before they are clipped.

    Under ZeRO stages above 0 no rank holds the whole gradient, and none is kept. DeepSpeed
    remembers the group of ranks, so learners of one process share it.

    Adam's epsilon is large here. With its usual 1e-8 a weight whose gradient is nothing but
    rounding takes a whole step in a random direction, and a sum in another order would change
    what is compared far more than by rounding.
    """

    def join_ranks(self, address: str, port: int, *, backend: str) -> None:
        if not dist.is_initialized():
            super().join_ranks(address, port, backend=backend)

    def leave_ranks(self) -> None:
        pass

    def make_optimizer(self) -> torch.optim.Optimizer:
        optimizer = super().make_optimizer()
        for group in optimizer.param_groups:
            group["eps"] = ADAM_EPSILON
        self.gradients: list[dict[str, Tensor]] = []
        if self._zero_stage == 0:
            optimizer.register_step_pre_hook(self._keep_gradient)
        return optimizer

    def _keep_gradient(self, *_: Any) -> None:
        gradient = {
            name.removeprefix("causal_lm."): parameter.grad.clone()
            for name, parameter in self.policy.named_parameters()
            if parameter.grad is not None
        }
        self.gradients.append(gradient)


class Session:
    """One learner of one case, update after update."""

    def __init__(
        self, case: Case, *, folder: Path, rank: int, num_ranks: int, port: int, problems: Any
    ) -> None:
        self.problems = problems
        self.learner = MeasuredLearner(
            recipe=learner_recipe(config_of(case, folder)),
            model_dir=str(folder / "policy"),
            reference_dir=str(folder / "reference"),
            rank=rank,
            num_ranks=num_ranks,
            master_address="127.0.0.1",
            master_port=port,
            device="cpu",
        )
        self.learner.gradients.clear()  # DeepSpeed steps once while it starts
        self._pair_logprobs: list[float] = []

    def update(
        self,
        update: Update,
        rows: Sequence[Row],
        replayed: Sequence[Row],
        pairs: Sequence[Row],
    ) -> tuple[UpdateResult | None, list[dict[str, Tensor]]]:
        """Rank 0's account of the update, and the gradients of its optimizer steps."""
        self.learner.gradients.clear()
        step = update.step
        if pairs:
            result = self.learner.update(self._sides(update, pairs), step=step)
            return result, self.learner.gradients
        completions = completions_of(rows, self.problems, step)
        trained = [one for one in completions if one.layer in update.trains]
        given = [one for one in completions if one.layer in update.given]
        earlier = completions_of(replayed, self.problems, EARLIER)
        result = self.learner.update(
            trained,
            given,
            step=step,
            replayed=[
                Replayed(completion=one, advantage=row["advantage"])
                for one, row in zip(earlier, replayed, strict=True)
            ],
        )
        return result, self.learner.gradients

    def _sides(self, update: Update, pairs: Sequence[Row]) -> list[Completion]:
        """Both sides of the update's pairs."""
        known = pairs_of(pairs, self.problems)
        return [
            side
            for slot, number in enumerate(update.pairs)
            for side in pair_rows(
                known[number],
                CompletionId(update.step, slot),
                self._pair_logprobs[2 * number : 2 * number + 2],
            )
        ]

    def measure_pairs(self, pairs: Sequence[Row], step: int) -> None:
        """Make the policy as it is now the reference of all pairs. In a run this is the policy of
        the first step on pairs: every margin would be 0 there, and its sign chance."""
        known = pairs_of(pairs, self.problems)
        sides = [one for pair in known for one in (pair.chosen, pair.rejected)]
        self._pair_logprobs = self.learner.sequence_logprobs(sides, step=step)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight by its name in the model's files, in the order of all ranks."""
        for name, tensor in self.learner.iter_weights():
            yield name, tensor.clone()

    def close(self) -> None:
        self.learner.engine.destroy()


def account(result: UpdateResult) -> dict[str, Any]:
    """What an update reports, by names that stay: metrics as [sum, count], and the advantage and
    the selection of each completion in the order given. Times, and what the recorded code did not
    report, are left out."""
    return {
        "metrics": {
            name: list(value)
            for name, value in sorted(result.metrics.items())
            if not name.endswith("_s") and name not in ADDED_METRICS
        },
        "advantages": [one.advantage for one in result.selections],
        "selected": "".join(str(int(one.selected)) for one in result.selections),
    }


def set_up_process() -> None:
    """One thread, so that sums are in the same order each time."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


# --- runs by the command line --------------------------------------------------------------------

RUN_SETTINGS = (
    *("seed=0", "steps=5", "prompts_per_step=4"),
    *("model.path=default", "model.dtype=float32", "data.train.size=60", "data.heldout=null"),
    *("cluster.address=local", "cluster.device=cpu", "engines.shared=true"),
    *("learner.num_threads=1", "learner.warmup_steps=1", "checkpoints.every_steps=0"),
    *("output.report=false", "output.trackers=[]", "output.rollouts_per_step=1000"),
)
SUMS = (
    "data.train={source: reasoning_gym, size: 60, seed: 1, tasks: [{name: chain_sum, settings: "
    "{min_terms: 2, max_terms: 2, min_digits: 2, max_digits: 2}}]}"
)
FOR_GPUS = (SUMS, "cluster.colocate=false", "engines.max_model_len=null")
"""Recipes for GPUs train the shipped policy on the CPU."""
OWN_RUN_SETTINGS = {
    # Both kinds of steps.
    "methods/scrpo": ("source.capacity=4",),
    "methods/score": ("phases.0.from_step=2",),
    "methods/veripo": (
        *("phases.0.from_step=2", "phases.0.num_steps=2", "phases.0.every_steps=4"),
        "source.pairs_per_step=4",
    ),
    "methods/dapo": ("plugins.0.settings.max_tokens=48",),
    "one_gpu": FOR_GPUS,
    "qwen2.5_math_7b": (
        *(*FOR_GPUS, "learner.num_ranks=2"),
        *("engines.shared=false", "pipeline.max_staleness_steps=auto"),
    ),
}
GROUP_SIZES = (4, 2, 2)
KEPT = (
    *("policy_version", "learner/loss", "learner/grad_norm", "learner/tokens"),
    *("learner/skipped_updates", "tokens/generated", "mismatch/logprob_gap_mean"),
)
KEPT_OF_LAYER = ("accuracy", "reward_mean", "completion_tokens_mean", "completions")


def run_arguments(case: Case, folder: Path) -> list[str]:
    """What follows `mgrpo` on the command line, for a run in `folder`."""
    layers = range(case.num_layers)
    settings = [
        *RUN_SETTINGS,
        *(f"layers.{place}.group_size={GROUP_SIZES[place]}" for place in layers),
        *(f"layers.{place}.max_completion_tokens=48" for place in layers),
        *AS_RECORDED.get(case.recipe, ()),
        *OWN_RUN_SETTINGS.get(case.recipe, ()),
        f"output.runs_dir={folder}",
    ]
    if case.recipe == "methods/ws_grpo":
        scorer = PrefixScorer.create(resolve_model("default"), hidden_units=8)
        scorer.save(str(folder / "scorer"))
        settings.append(f"plugins.1.settings.scorer={folder / 'scorer'}")
    return ["train", recipe_of(case.recipe), *settings, "--run", "run"]


def steps_of_run(folder: Path) -> list[dict[str, Any]]:
    """Numbers of each step of the run in `folder`, and a checksum of the tokens sampled in it."""
    run_dir = folder / "run"
    paths = rollout_paths(run_dir)
    return [
        {
            **{name: row[name] for name in kept_names(row)},
            "tokens": tokens_checksum(read_rollouts(paths[row["step"]])),
        }
        for row in read_metrics(run_dir)
    ]


def kept_names(row: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in sorted(row)
        if name in KEPT or (name.startswith("layer") and name.partition("/")[2] in KEPT_OF_LAYER)
    ]


def tokens_checksum(completions: Sequence[Completion]) -> int:
    """Of all completions' tokens, in whatever order they are."""
    return zlib.crc32(
        repr(sorted([int(token) for token in one.token_ids] for one in completions)).encode()
    )
