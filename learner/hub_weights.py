"""A model's weights under the names and in the shapes of its files on the hub.

In memory transformers keeps some weights otherwise: a mixture's experts are one tensor, a tower has
another prefix. Engines load what the hub has, so it is what they are sent, and what is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mgrpo.errors import ModelError

Shape = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, type and shape of a tensor."""


class HubWeights:
    """Which tensors of a model become which tensors of its files.

    Tied weights stand once, under their first name. Buffers that files hold are among them
    (biases by which a mixture of experts chooses), in their own type.
    """

    def __init__(self, causal_lm: Any) -> None:
        """
        Raises:
            ModelError: transformers cannot turn the weights into those of the hub.
        """
        self.causal_lm = causal_lm
        self.tensors = dict(named_tensors(causal_lm))
        self.groups = conversion_groups(causal_lm, self.tensors)
        try:
            self.shapes = [self._shapes(names) for names in self.groups]
            at_once = self._shapes(self.tensors)
        except Exception as error:  # whatever an architecture's conversion raises
            raise ModelError(
                f"The weights of {type(causal_lm).__name__} cannot be turned into those that its "
                f"files hold, which engines load: {type(error).__name__}: {error}"
            ) from error
        if sorted(one for shapes in self.shapes for one in shapes) != sorted(at_once):
            raise ModelError(
                f"The weights of {type(causal_lm).__name__} can be turned into those that its "
                "files hold, which engines load, only all at once."
            )

    def convert(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One group's tensors as the hub has them."""
        from transformers.core_model_loading import revert_weight_conversion

        return dict(revert_weight_conversion(self.causal_lm, dict(values)))

    def _shapes(self, names: Iterable[str]) -> list[Shape]:
        empty = {}
        for name in names:
            tensor = self.tensors[name]
            empty[name] = torch.empty(whole_shape(tensor), dtype=tensor.dtype, device="meta")
        return [(name, one.dtype, tuple(one.shape)) for name, one in self.convert(empty).items()]


def named_tensors(causal_lm: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters, tied ones once, and the buffers that files hold."""
    yield from causal_lm.named_parameters()
    saved = causal_lm.state_dict(keep_vars=True)
    for name, buffer in causal_lm.named_buffers():
        if name in saved:
            yield name, buffer


def conversion_groups(causal_lm: object, names: Iterable[str]) -> list[list[str]]:
    """Names of the tensors that are converted together, in the order of their first."""
    from transformers.core_model_loading import WeightConverter, rename_source_key

    transforms = getattr(causal_lm, "_weight_conversions", None) or []
    reverse = [one.reverse_transform() for one in reversed(transforms)]
    converters = [one for one in reverse if isinstance(one, WeightConverter)]
    groups: dict[str, list[str]] = {}
    for name in names:
        together, pattern = rename_source_key(name, [], converters, reverse=True)
        groups.setdefault(name if pattern is None else together, []).append(name)
    return list(groups.values())


def whole_shape(tensor: Any) -> tuple[int, ...]:
    """Also of a weight of which ZeRO-3 keeps a shard here."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def whole_bytes(tensor: Any) -> int:
    return int(getattr(tensor, "ds_numel", tensor.numel())) * tensor.itemsize
