"""Which recipes can train on trees while others are still being sampled, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mgrpo.config import LaterLayer, LayerConfig, MethodView, ObjectiveConfig
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.plugin import Plugin, load_plugins


def streaming_obstacles(
    objective: ObjectiveConfig, layers: Sequence[LayerConfig], plugins: Iterable[Plugin]
) -> Iterator[str]:
    """For people: what makes an update wait until its whole step is sampled; nothing if nothing."""
    if objective.update_order.type != "joint":
        yield f"objective.update_order: {objective.update_order.type} trains one layer at a time"
    if objective.minibatches > 1:
        yield f"objective.minibatches: {objective.minibatches} takes several steps on one rollout"
    if objective.updates_per_rollout > 1:
        yield (
            f"objective.updates_per_rollout: {objective.updates_per_rollout} goes over the whole "
            "step again"
        )
    for number, layer in enumerate(layers):
        if isinstance(layer, LaterLayer) and layer.group_by == "batch":
            yield f"layers.{number}.group_by: batch compares corrections of different problems"
    for plugin in plugins:
        if not plugin.works_by_tree():
            yield f"{type(plugin).__name__} looks at all problems of a step together"


def recipe_obstacles(method: MethodView) -> list[str]:
    """Those of a recipe in all of its phases, each once."""
    plugins = load_plugins(method, Plugin)
    return list(
        dict.fromkeys(
            text
            for values in method.ever
            for text in streaming_obstacles(values.objective, values.layers, plugins)
        )
    )


def check_streaming(method: MethodView, pipeline: PipelineConfig) -> None:
    """
    Raises:
        ConfigError: the recipe asks for streaming, and its parts do not allow it.
    """
    if pipeline.max_staleness_steps != 0:
        return
    obstacles = recipe_obstacles(method)
    if obstacles:
        hint = "Use auto: such steps then wait until they are sampled."
        raise ConfigError(
            [
                ConfigFault("pipeline.max_staleness_steps", "0", f"{text}.", hint)
                for text in obstacles
            ]
        )
