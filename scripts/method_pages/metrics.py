"""The metrics of a recipe beyond those of plain GRPO, with their meaning."""

from __future__ import annotations

from collections.abc import Iterator

from mgrpo.config import PpoClip, RunConfig, VerifyLayer
from mgrpo.methods.catalog import PluginFacts
from mgrpo.methods.docstrings import entries, parts_of


def method_metrics(config: RunConfig, plugins: list[PluginFacts]) -> dict[str, str]:
    """Meaning by name; names in capitals are placeholders."""
    found = dict(loop_metrics(config))
    has_clip = isinstance(config.objective.loss, PpoClip)
    if config.objective.optimizer_steps > 1 and has_clip:
        found["learner/clip_fraction"] = "share of trained tokens outside the clip range"
    for plugin in plugins:
        found |= entries(parts_of(plugin.doc).get("Metrics", []))
    return found


def loop_metrics(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Those of the chain."""
    for number in range(2, len(config.layers) + 1):
        yield (
            f"layer{number}/...",
            f"accuracy, rewards and lengths of layer {config.layers[number - 1].name}",
        )
        if isinstance(config.layers[number - 1], VerifyLayer):
            yield (
                f"verdict/layer{number}/...",
                "precision and recall of verdicts, accepted, unreadable",
            )
        else:
            yield f"transition/layer{number}/...", "transitions of correctness from turn to turn"
    if config.method_view.max_kl_weight > 0:
        yield "learner/kl", "mean KL estimate of the trained tokens to the reference, nats"
