"""Metadata of completions can be stored, or it is said which cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mgrpo.errors import DataError
from mgrpo.records.metadata import plain_metadata


def test_numbers_and_arrays_of_numpy_become_those_of_python():
    written = {
        "mean": np.float32(0.5),
        "counts": np.arange(3),
        "of step": {"right": np.bool_(True), "places": (np.int64(2), 1)},
        "entities": ["Ann", None],
    }
    plain = plain_metadata(written, "0/p0/1")
    assert plain == {
        "mean": 0.5,
        "counts": [0, 1, 2],
        "of step": {"right": True, "places": [2, 1]},
        "entities": ["Ann", None],
    }
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("value", [torch.ones(1), {1, 2}, b"bytes", {(1, 2): 3}])
def test_what_json_cannot_hold_is_named(value):
    with pytest.raises(DataError, match=r"metadata 'odd' of completion 0/p0/1 cannot be stored"):
        plain_metadata({"fine": 1, "odd": value}, "0/p0/1")
