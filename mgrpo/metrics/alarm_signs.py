"""The detector of each alert: its condition on one step's metrics.

A detector is called once a step with the step's mean metrics and returns, for each layer that it
watches (None: the whole run), whether the step meets its condition. A layer whose numbers are
missing is left out of the result. The number of such steps for an alert is in
`mgrpo.metrics.alarms`.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from mgrpo.config.alarms import EntropyCollapseAlarm

Values = Mapping[str, float | None]
Scope = int | None  # a layer, 1 for the first; None for the whole run

LAYER = re.compile(r"(?:transition/)?layer(\d+)/")
ADVANTAGE_FLOOR = 0.05
"""A layer's mean |advantage| below which equal rewards are no training signal. Group z-scores have
about 0.8 where rewards differ; advantages that are not z-scores can be large in groups whose
rewards are all equal, and such a layer does learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One detector's result for one step."""

    is_bad: bool
    seen: str  # the numbers, without a capital and a full stop
    meaning: str  # a sentence
    advice: str  # a sentence that names config keys


Detector = Callable[[Values], dict[Scope, Sign]]


def known(values: Values, name: str) -> float | None:
    """A metric's value; None if it is missing or not a finite number."""
    value = values.get(name)
    return value if value is not None and math.isfinite(value) else None


def layers_in(values: Values) -> list[int]:
    """The layers with metrics in the step, ascending."""
    return sorted({int(match[1]) for name in values if (match := LAYER.match(name))})


@dataclass(frozen=True, slots=True)
class Copying:
    """Share of corrections of wrong attempts that repeat the wrong answer, by layer."""

    threshold: float
    min_pairs: int

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        signs: dict[Scope, Sign] = {}
        for layer in layers_in(values):
            name = f"transition/layer{layer}"
            share = known(values, f"{name}/copy_fraction_of_wrong")
            num_pairs = (known(values, f"{name}/wrong_to_right_count") or 0.0) + (
                known(values, f"{name}/wrong_to_wrong_count") or 0.0
            )
            if share is not None and num_pairs >= self.min_pairs:
                signs[layer] = self.sign(layer, share, num_pairs)
        return signs

    def sign(self, layer: int, share: float, num_pairs: float) -> Sign:
        key = f"layers.{layer - 1}"
        return Sign(
            is_bad=share > self.threshold,
            seen=f"{share:.1%} of layer {layer}'s {num_pairs:.0f} corrections of wrong attempts "
            f"repeat the wrong answer (threshold {self.threshold:.1%})",
            meaning="The layer copies the attempts in its prompts instead of checking them.",
            advice=f"Try {key}.success: strict_fix, {key}.advantage: improvement or "
            f"{key}.parents: wrong_only, so that copying a right attempt is not rewarded, and "
            f"other {key}.guidance.phrases.",
        )


@dataclass(slots=True)
class FirstTurnFalls:
    """Layer 1's moving average is far below its best, while a later layer's has risen since
    then."""

    threshold: float
    window_steps: int
    recent: dict[int, deque[float]] = field(default_factory=dict)
    best: dict[int, float] = field(default_factory=dict)  # all averages when layer 1 was best

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        averages = self.moving_averages(values)
        if 1 not in averages:
            return {}
        if not self.best or averages[1] >= self.best[1]:
            self.best = averages
        gains = {
            layer: average - self.best[layer]
            for layer, average in averages.items()
            if layer > 1 and layer in self.best
        }
        if not gains:
            return {}
        riser = max(gains, key=lambda layer: gains[layer])
        is_bad = self.best[1] - averages[1] > self.threshold and gains[riser] > 0
        return {1: self.sign(is_bad, averages, riser)}

    def moving_averages(self, values: Values) -> dict[int, float]:
        """By layer, over the last window_steps steps; layers with fewer are left out."""
        averages = {}
        for layer in layers_in(values):
            accuracy = known(values, f"layer{layer}/accuracy")
            if accuracy is None:
                continue
            window = self.recent.setdefault(layer, deque(maxlen=self.window_steps))
            window.append(accuracy)
            if len(window) == self.window_steps:
                averages[layer] = fmean(window)
        return averages

    def sign(self, is_bad: bool, averages: Mapping[int, float], riser: int) -> Sign:
        key = f"layers.{riser - 1}"
        return Sign(
            is_bad=is_bad,
            seen=f"layer 1's accuracy fell from {self.best[1]:.1%} at its best to "
            f"{averages[1]:.1%} (means over {self.window_steps} steps, threshold "
            f"{100 * self.threshold:.1f} points), layer {riser}'s went from "
            f"{self.best[riser]:.1%} to {averages[riser]:.1%}",
            meaning="The gain of corrections comes from worse first attempts, which does not help "
            "single-turn use.",
            advice=f"Raise layers.0.loss_weight or objective.kl.weight, or lower "
            f"{key}.loss_weight or learner.learning_rate.",
        )


@dataclass(frozen=True, slots=True)
class NoSignal:
    """Layers with (nearly) all groups of equal rewards, or with (nearly) no selected
    completions."""

    threshold: float
    trained_layers: Collection[int] | None = None  # None: every layer that reports

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        signs: dict[Scope, Sign] = {}
        for layer in layers_in(values):
            if self.trained_layers is None or layer in self.trained_layers:
                sign = self.look_at(layer, values)
                if sign is not None:
                    signs[layer] = sign
        return signs

    def look_at(self, layer: int, values: Values) -> Sign | None:
        equal = known(values, f"layer{layer}/zero_variance_fraction")
        selected = known(values, f"layer{layer}/selected_fraction")
        advantage = known(values, f"layer{layer}/advantage_abs_mean")
        accuracy = known(values, f"layer{layer}/accuracy")
        if selected is not None and 1 - selected >= self.threshold:
            seen = f"{1 - selected:.1%} of layer {layer}'s completions are not selected"
            return self.sign(layer, True, seen, accuracy)
        if equal is None:
            return None
        is_flat = advantage is None or advantage < ADVANTAGE_FLOOR
        seen = f"the rewards are all equal in {equal:.1%} of layer {layer}'s groups"
        return self.sign(layer, equal >= self.threshold and is_flat, seen, accuracy)

    def sign(self, layer: int, is_bad: bool, seen: str, accuracy: float | None) -> Sign:
        key = f"layers.{layer - 1}"
        found = "" if accuracy is None else f"; its accuracy is {accuracy:.1%}"
        easier = "harder" if accuracy is not None and accuracy > 0.5 else "easier"
        return Sign(
            is_bad=is_bad,
            seen=f"{seen} (threshold {self.threshold:.1%}){found}",
            meaning="Advantages compare rewards within a group, so the layer has no training "
            "signal.",
            advice=f"Use {easier} problems (data.train), a larger {key}.group_size, a higher "
            f"sampling.temperature, or another {key}.select.",
        )


@dataclass(slots=True)
class EntropyCollapse:
    """Entropy below an absolute bound, or below a share of its initial value."""

    config: EntropyCollapseAlarm
    first: list[float] = field(default_factory=list)  # of the run's first steps

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        entropy = known(values, "learner/entropy")
        if entropy is None:
            return {}
        bounds = []
        if self.config.threshold is not None:
            bounds.append((self.config.threshold, "threshold"))
        if len(self.first) < self.config.start_steps:
            self.first.append(entropy)
        elif self.config.fraction_of_start is not None:
            start = fmean(self.first)
            share = f"{self.config.fraction_of_start:.1%} of the initial {start:.3g}"
            bounds.append((self.config.fraction_of_start * start, share))
        if not bounds:
            return {}
        bound, name = max(bounds)
        sign = Sign(
            is_bad=entropy < bound,
            seen=f"the policy's entropy is {entropy:.3g} nats a token, below {bound:.3g} ({name})",
            meaning="Completions of one prompt hardly differ any more, so groups lose their "
            "training signal and exploration stops.",
            advice="Lower learner.learning_rate, raise objective.loss.clip_high, "
            "objective.kl.weight or sampling.temperature, or restart from an earlier checkpoint.",
        )
        return {None: sign}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Log-probabilities of the same tokens, engine compared with learner."""

    threshold: float

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        gap = known(values, "mismatch/logprob_gap_mean")
        if gap is None:
            return {}
        sign = Sign(
            is_bad=gap > self.threshold,
            seen=f"engine and learner differ by {gap:.3g} nats a token on average (threshold "
            f"{self.threshold:.3g})",
            meaning="The tokens were sampled from another distribution than the trained one, so "
            "the gradient is biased.",
            advice="Set model.dtype, engines.dtype and learner.dtype to the same type (float32 for "
            "diagnosis); keep objective.importance: truncate and weights.verify_probe: true.",
        )
        return {None: sign}


@dataclass(frozen=True, slots=True)
class Truncation:
    """Completions truncated at the token limit, by layer."""

    threshold: float

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        signs: dict[Scope, Sign] = {}
        for layer in layers_in(values):
            share = known(values, f"layer{layer}/truncated_fraction")
            if share is not None:
                signs[layer] = self.sign(layer, share)
        return signs

    def sign(self, layer: int, share: float) -> Sign:
        return Sign(
            is_bad=share > self.threshold,
            seen=f"{share:.1%} of layer {layer}'s completions ran out of tokens (threshold "
            f"{self.threshold:.1%})",
            meaning="They have no final answer, so their rewards say little about the reasoning.",
            advice=f"Raise layers.{layer - 1}.max_completion_tokens, and read some in rollouts/: "
            "if the text only repeats itself, lower learner.learning_rate instead.",
        )


@dataclass(slots=True)
class GradientSpike:
    """The gradient's norm, compared with the median of those before it."""

    threshold: float
    recent: deque[float]  # of the latest steps with a gradient, at most as many as its length

    def __call__(self, values: Values) -> dict[Scope, Sign]:
        norm = known(values, "learner/grad_norm")
        if not norm:
            return {}
        before = list(self.recent)
        self.recent.append(norm)
        if len(before) < (self.recent.maxlen or 0):
            return {}
        usual = median(before)
        sign = Sign(
            is_bad=norm > self.threshold * usual,
            seen=f"the gradient's norm is {norm:.3g}, {norm / usual:.3g} times the median of the "
            f"{len(before)} steps before (threshold {self.threshold:.3g})",
            meaning="One step's completions pull the policy far more than others do; the step is "
            "clipped to learner.max_grad_norm.",
            advice="Look at the step in rollouts/ and at mismatch/logprob_gap_max; "
            "learner.skip_above_grad_norm leaves such updates out.",
        )
        return {None: sign}
