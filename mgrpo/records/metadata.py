"""Metadata of completions: what plug-ins write into them, as JSON can hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject


def plain_metadata(metadata: Mapping[str, object], whose: str) -> JsonObject:
    """With NumPy's numbers and arrays as Python's, so that it can be logged and stored.

    Args:
        whose: the completion, for the error.

    Raises:
        DataError: a value has no form in JSON.
    """
    plain: JsonObject = {}
    for key, value in metadata.items():
        try:
            plain[key] = json.loads(json.dumps(value, default=as_python))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"The metadata {key!r} of completion {whose} cannot be stored: {error}. A plug-in "
                "wrote it: use numbers, text, lists and dicts with keys of text."
            ) from error
    return plain


def as_python(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
