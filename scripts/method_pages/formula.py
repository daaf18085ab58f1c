"""A recipe's loss in formulas, composed from its keys; plug-ins add their own.

p: the policy's probability of a token, p_old: under the weights at the start of the step, p_ref:
under
the frozen starting policy, p_rollout: as the engine reported it. ρ = p / p_old. r: a completion's
reward, A: its advantage, |y| its length. Objectives J are maximised, losses L minimised. k3 of a
token is not bounded, as in TRL; verl bounds it at 10.
"""

from __future__ import annotations

from mgrpo.config import CorrectLayer, GroupZ, LayerConfig, RunConfig, Truncate
from mgrpo.config.losses import NoImportance
from mgrpo.config.parts import Part

RHO = "\N{GREEK SMALL LETTER RHO}_t"  # spelt out: it looks like a p

MEANS = {
    "seq_mean": "mean over completions of the mean over their tokens",
    "token_mean": "mean over all tokens",
    "fixed_length": "mean over completions of the sum over their tokens / {length}",
}
COMPARED = {
    "parent": "the corrections of one attempt",
    "query": "the corrections of one problem",
    "batch": "all corrections of the step",
}


def loss_lines(config: RunConfig) -> list[str]:
    """The whole loss, a line per quantity."""
    trained = [layer for layer in config.layers if layer.loss_weight > 0]
    lines = []
    for layer in trained:
        where = f"{layer.name}: " if len(config.layers) > 1 else ""
        lines.append(f"{where}{advantage_line(layer)}")
    lines.append(objective_line(config))
    weight = importance_words(config.objective.importance)
    for layer in trained:
        where = f"_{layer.name}" if len(config.layers) > 1 else ""
        mean = MEANS[layer.aggregation].format(length=layer.max_completion_tokens)
        lines.append(f"L{where} = {mean} of  -{weight}J_t{kl_words(config, layer)}")
    if len(trained) > 1:
        parts = [f"{factor(layer.loss_weight)}L_{layer.name}" for layer in trained]
        lines.append(f"L = {' + '.join(parts)}{order_words(config)}")
    return lines


def advantage_line(layer: LayerConfig) -> str:
    own = layer.advantage
    if isinstance(own, Part):
        return f"A_i: those of {own.type}, below"
    group = COMPARED[layer.group_by] if isinstance(layer, CorrectLayer) else "the group"
    if isinstance(own, GroupZ):
        centred = f"r_i - mean r over {group}"
        if own.scale_by_std:
            return f"A_i = ({centred}) / (std r + {own.epsilon:g})"
        return f"A_i = {centred}"
    return {
        "improvement": "A_i = r_i - r of its attempt",
        "const_positive": "A_i = 1 for each success, else 0",
        "raw_reward": "A_i = r_i",
        "none": "A_i = 0: the KL term, or the loss's own coefficients, train it",
    }[own.type]


def objective_line(config: RunConfig) -> str:
    own = config.objective.loss
    if isinstance(own, Part):
        return f"J_t: that of {own.type}, below"
    line = f"J_t = min({RHO} A, clip({RHO}, {1 - own.clip_low:g}, {1 + own.clip_high:g}) A)"
    if own.dual_clip is not None:
        line += f", not below {own.dual_clip:g} A where A < 0"
    if config.is_on_policy:
        line += f"   (one update per rollout: {RHO} = 1, nothing is clipped)"
    return line


def importance_words(own: Truncate | NoImportance | Part) -> str:
    if isinstance(own, Part):
        return ""  # its hooks weigh the advantages
    return f"min(p_old / p_rollout, {own.cap:g}) " if isinstance(own, Truncate) else ""


def kl_words(config: RunConfig, layer: LayerConfig) -> str:
    kl = config.objective.kl
    weight = kl.weight if layer.kl_weight is None else layer.kl_weight
    return f" + {weight:g} {kl.estimator}(p, p_ref)" if weight > 0 else ""


def order_words(config: RunConfig) -> str:
    order = config.objective.update_order
    return {
        "joint": "   (one update)",
        "sequential": "   (an update for each layer, one after the other)",
        "alternate_steps": "   (steps take turns: each trains one layer)",
        "pooled_errors": "   (steps train one or the other: see error_pool)",
    }.get(order, f"   ({order})")


def factor(value: float) -> str:
    return "" if value == 1 else f"{value:g} "
