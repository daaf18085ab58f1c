"""What recipes cannot combine with a plug-in that has a policy objective of its own."""

from __future__ import annotations

from mgrpo.config import ObjectiveConfig, RunConfig
from mgrpo.errors import ConfigProblem

OWN_OBJECTIVES = ("cispo", "dagrpo", "disco", "gmpo", "gspo", "kl_cov", "reinforce")
"""Our plug-ins with the hook `policy_objective`."""


def own_objective_problems(
    use: str, layers: frozenset[int], config: RunConfig, *, inert: tuple[str, ...]
) -> list[ConfigProblem]:
    """The objective is the whole chain's, there is one of it, and it has its own clip range.

    Args:
        use: the plug-in's name.
        inert: keys of `objective` that do nothing beside it.
    """
    problems = []
    others = [entry.use for entry in config.plugins if entry.use in OWN_OBJECTIVES]
    if len(others) > 1:
        problems.append(
            ConfigProblem(
                "(plug-in)", use, f"a recipe has one policy objective, not {', '.join(others)}."
            )
        )
    if len(layers) < len(config.layers):
        problems.append(
            ConfigProblem(
                "(plug-in)",
                use,
                "is the objective of every layer; it cannot be that of some.",
                "Leave `layers` out of its entry.",
            )
        )
    defaults = ObjectiveConfig.model_fields
    return problems + [
        ConfigProblem(
            f"(objective.{key})",
            str(getattr(config.objective, key)),
            f"has no effect beside {use}.",
            "Remove the key.",
        )
        for key in inert
        if getattr(config.objective, key) != defaults[key].default
    ]


def mean_per_completion_problems(use: str, config: RunConfig) -> list[ConfigProblem]:
    """A ratio of the whole completion must be averaged over completions."""
    return [
        ConfigProblem(
            f"(layers.{number}.aggregation)",
            layer.aggregation,
            f"{use} has one ratio for a whole completion, so completions must weigh the same.",
            "Use aggregation: seq_mean.",
        )
        for number, layer in enumerate(config.layers)
        if layer.loss_weight > 0 and layer.aggregation != "seq_mean"
    ]
