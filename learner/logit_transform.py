"""What an architecture does with its logits after the output layer: a factor, a soft cap.

Gemma 2 bends its logits smoothly into (-30, 30), Granite divides them, Cohere multiplies them.
Engines do the same before they sample, so log-probabilities are of the changed logits, and the
gradient goes through the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
MULTIPLIED = {("hyperclovax", "logits_scaling")}
"""(model type, key): what is a divisor elsewhere is a factor here."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """y = cap * tanh(factor * x / cap) of a logit x, or factor * x without a cap."""

    factor: float = 1.0
    cap: float | None = None

    @property
    def is_identity(self) -> bool:
        return self.factor == 1.0 and self.cap is None

    def apply_(self, logits: Tensor) -> Tensor:
        """Change logits of any shape in place, and return them."""
        if self.factor != 1.0:
            logits.mul_(self.factor)
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        return logits

    def slopes(self, changed: Tensor, temperature: float) -> Tensor | float:
        """d(y / temperature)/dx, where the changed logits are y = temperature * `changed`.

        A number where it is the same everywhere.
        """
        slope = self.factor / temperature
        if self.cap is None:
            return slope
        return (changed * (temperature / self.cap)).square_().neg_().add_(1.0).mul_(slope)

    def __str__(self) -> str:
        parts = [f"times {self.factor:g}"] if self.factor != 1.0 else []
        if self.cap is not None:
            parts.append(f"capped at {self.cap:g}")
        return ", ".join(parts) or "unchanged"


UNCHANGED = LogitTransform()


def transform_of(text_config: Any) -> LogitTransform:
    """What a language model's configuration says of its logits.

    Only a claim: `policy_proofs` compares it with what the model does.
    """
    factor = 1.0
    for name in FACTORS:
        factor *= number(text_config, name) or 1.0
    for name in DIVISORS:
        divisor = number(text_config, name) or 1.0
        is_factor = (text_config.model_type, name) in MULTIPLIED
        factor = factor * divisor if is_factor else factor / divisor
    caps = [cap for name in SOFT_CAPS if (cap := number(text_config, name))]
    return LogitTransform(factor, caps[0] if caps else None)


def number(text_config: Any, name: str) -> float | None:
    """A setting that is a number; None where there is none of that name."""
    value = getattr(text_config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def planted_logits(vocab_size: int, device: torch.device | str) -> Tensor:
    """[V] float32 logits from -60 to 60: what a cap does to small ones can hardly be seen."""
    return torch.linspace(-60.0, 60.0, vocab_size, device=device)
