"""The keys of a recipe that may change when a run resumes from a checkpoint.

Every key of a recipe is classified here, by its own path or by its section's. A key that is
forgotten counts as fixed, and a test names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Literal

from mgrpo.config.explain import shortened
from mgrpo.config.method_view import MethodView
from mgrpo.config.run import RunConfig

OnResume = Literal["fixed", "free", "onward", "evaluation", "length", "phases"]
"""fixed: the finished steps would have been different. free: no number of training depends on
it, but for rounding. onward: one that stopped a run, so what is done did not need it. evaluation:
free, but evaluations before and after are of different things. length: free, but not below what is
done; see `schedule_warning`. phases: free, as far as they leave the finished steps as they were."""

NO_RESULT: tuple[OnResume, ...] = ("free", "onward")
"""Classes of keys on which no result of a run depends."""

ON_RESUME: dict[str, OnResume] = {
    "name": "free",  # a run's folder that was copied: the copy goes on by itself
    "description": "free",
    "method": "free",
    "paper": "free",
    "seed": "fixed",
    "steps": "length",
    "prompts_per_step": "fixed",
    "model": "fixed",
    "model.from_run": "free",
    "data.train": "fixed",
    "data.train.on_disk": "free",
    "data.train.sources.*.on_disk": "free",
    "data.heldout": "evaluation",
    "data.max_prompt_tokens": "fixed",
    "data.max_dropped_fraction": "free",
    "data.sampler": "fixed",
    "layers": "fixed",
    "layers.*.num_engines": "free",
    "source": "fixed",  # but for settings of which its class says otherwise
    "sampling": "fixed",
    "engines.shared": "free",
    "engines.num_shared_engines": "free",
    "engines.tensor_parallel_size": "free",
    "engines.dtype": "fixed",
    "engines.max_model_len": "free",  # what does not fit is refused, never cut
    "engines.max_num_seqs": "free",
    "engines.gpu_memory_utilization": "free",
    "engines.enforce_eager": "free",
    "engines.cpu_kv_cache_gib": "free",
    "engines.num_cpus": "free",
    "engines.num_threads": "free",
    "engines.extra_args": "fixed",  # vLLM takes settings of sampling there, too
    "rewards.terms": "fixed",
    **{
        f"rewards.terms.*.{key}": "free"  # where a service is and how it is asked, not what it is
        for key in (
            *("http", "url", "auth", "deadline_s", "max_retries", "max_concurrent"),
            *("requests_per_s", "agreement", "device", "num_threads", "batch_size"),
        )
    },
    "rewards.num_processes": "free",
    "rewards.deadline_s": "free",
    "rewards.start_deadline_s": "free",
    "rewards.timeout_is": "free",
    "rewards.memory_gib": "free",
    "rewards.max_failed_fraction": "free",
    "plugins": "fixed",
    "phases": "phases",
    "objective": "fixed",
    "pipeline.max_staleness_steps": "free",  # from the next step on; what is sampled still trains
    "pipeline.new_weights": "free",
    "pipeline.min_done_fraction": "free",
    "learner.num_ranks": "free",
    "learner.zero_stage": "free",
    "learner.learning_rate": "fixed",
    "learner.betas": "fixed",
    "learner.weight_decay": "fixed",
    "learner.warmup_steps": "fixed",
    "learner.schedule": "fixed",
    "learner.max_grad_norm": "fixed",
    "learner.skip_above_grad_norm": "fixed",
    "learner.max_nonfinite_updates": "onward",
    "learner.max_logprob_shift": "onward",
    "learner.on_shifted_logprobs": "onward",
    "learner.microbatch_tokens": "free",
    "learner.merge_prefixes": "free",
    "learner.logprob_chunk_tokens": "free",
    "learner.dtype": "fixed",
    "learner.gradient_checkpointing": "free",
    "learner.num_cpus": "free",
    "learner.num_threads": "free",
    "learner.max_restarts": "free",
    "learner.deepspeed": "fixed",
    "weights": "free",
    "evaluation": "evaluation",
    "evaluation.every_steps": "free",
    "alarms": "free",
    "checkpoints": "free",
    "early_stopping": "free",  # what is done did not need its end
    "output": "free",
    "cluster": "free",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs between a run's recipe and the one that it is to go on with."""

    path: str  # "layers.0.group_size"
    before: object
    now: object
    kind: OnResume

    def __str__(self) -> str:
        return f"{self.path} was {as_written(self.before)} and is now {as_written(self.now)}"


def changes_between(
    before: RunConfig, now: RunConfig, rules: Mapping[str, OnResume] = MappingProxyType({})
) -> list[Change]:
    """Every key that differs, by path.

    Args:
        rules: the class of keys that are not the trainer's own, by path.
    """
    return changes_of_trees(before.model_dump(mode="json"), now.model_dump(mode="json"), rules)


def changes_of_results(before: RunConfig, now: RunConfig) -> list[Change]:
    """Every key that differs and on which a result depends."""
    return [one for one in changes_between(before, now) if one.kind not in NO_RESULT]


def changes_of_trees(before: object, now: object, rules: Mapping[str, OnResume]) -> list[Change]:
    """Every key that differs between two recipes as their files have them, by path."""
    return [
        Change(path, left, right, rules.get(path) or on_resume(path) or "fixed")
        for path, left, right in sorted(differences(before, now, ""), key=itemgetter(0))
    ]


def differences(before: object, now: object, path: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            where = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), now.get(key), where)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (left, right) in enumerate(zip(before, now, strict=True)):
            yield from differences(left, right, f"{path}.{place}")
    elif before != now:
        yield path, before, now


def on_resume(path: str) -> OnResume | None:
    """The class of a key, which its nearest classified section gives it; None: it has none."""
    parts = ["*" if part.isdecimal() else part for part in path.split(".")]
    for length in range(len(parts), 0, -1):
        kind = ON_RESUME.get(".".join(parts[:length]))
        if kind is not None:
            return kind
    return None


def phases_rewrite(
    before: MethodView,
    now: MethodView,
    num_done: int,
    rules: Mapping[str, OnResume] = MappingProxyType({}),
) -> bool:
    """Do the phases give any of the finished steps other settings than it had?"""
    pairs = [(before.at_step(step), now.at_step(step)) for step in range(num_done)]
    different = {(id(one), id(other)): (one, other) for one, other in pairs}.values()
    return any(
        change.kind == "fixed"
        for one, other in different
        for change in changes_of_trees(one.tree(), other.tree(), rules)
    )


def schedule_warning(change: Change, schedule: str) -> str:
    """The effect of another length on a learning rate that decays over the whole run; "": none."""
    if change.kind != "length" or schedule == "constant":
        return ""
    return (
        f"learner.schedule is {schedule}: the finished steps had the learning rates "
        f"of a run of {change.before} steps, the remaining ones have those of a run of "
        f"{change.now}; the result differs from a new run of {change.now} steps"
    )


def as_written(value: object) -> str:
    return "null" if value is None else shortened(value)
