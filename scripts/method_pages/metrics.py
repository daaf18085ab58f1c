"""The metrics of a recipe beyond those of plain GRPO, with their meaning."""

from __future__ import annotations

from collections.abc import Iterator

from mgrpo.config import PpoClip, RunConfig
from mgrpo.methods.catalog import PluginFacts
from mgrpo.methods.docstrings import entries, parts_of


def method_metrics(config: RunConfig, plugins: list[PluginFacts]) -> dict[str, str]:
    """Meaning by name; names in capitals are placeholders."""
    found = dict(loop_metrics(config))
    has_clip = isinstance(config.objective.loss, PpoClip)
    if config.objective.updates_per_rollout > 1 and has_clip:
        found["learner/clip_fraction"] = "share of trained tokens outside the clip range"
    for plugin in plugins:
        found |= entries(parts_of(plugin.doc).get("Metrics", []))
    return found


def loop_metrics(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Those of the chain, the sampler and the order of updates."""
    objective = config.objective
    for number in range(2, len(config.layers) + 1):
        yield (
            f"layer{number}/...",
            f"accuracy, rewards and lengths of layer {config.layers[number - 1].name}",
        )
        yield f"transition/layer{number}/...", "transitions of correctness from turn to turn"
    if config.method_view.max_kl_weight > 0:
        yield "learner/kl", "mean KL estimate of the trained tokens to the reference, nats"
    if config.sampling.dynamic is not None:
        yield "dynamic_sampling/rounds", "rounds of sampling that filled the step"
        yield "dynamic_sampling/kept_fraction", "share of the sampled groups that are kept"
    if config.data.robust is not None:
        yield "sampler/DOMAIN", "chance of a domain to be drawn"
    if objective.correction_buffer is not None:
        yield "correction_buffer/replayed", "earlier corrections that train again in this step"
        yield "correction_buffer/size", "corrections held"
    if objective.update_order == "pooled_errors":
        yield "error_pool/added", "wrong attempts that entered the pool"
        yield "error_pool/size", "attempts held"
        yield "error_pool/dropped_stale", "attempts removed because of their age"
        yield "error_pool/is_correction_step", "1 where the step trains corrections, else 0"
    if objective.update_order == "preference_phases":
        yield "pairs/...", "preference pairs that were made, are waiting, and trained"
