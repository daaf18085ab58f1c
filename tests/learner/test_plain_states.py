"""What plug-ins keep in a checkpoint can't run code."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.plain_states import load_plain, refuse_other_objects, save_plain
from mgrpo.errors import LearnerError, RunDirectoryError
from tests.learner.builders import Planted


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_planted_object_is_refused_and_does_not_run(tmp_path, is_zip):
    file, mark = tmp_path / "common.pt", tmp_path / "was-run"
    state = {"policy_version": torch.ones(2), "more": Planted(mark)}
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(RunDirectoryError, match=r"common\.pt is not loaded") as refused:
        load_plain(file)
    assert "(posix.mkdir)" in str(refused.value) and "weights_only" not in str(refused.value)
    assert not mark.exists()


def test_tensors_and_plain_values_come_back(tmp_path):
    file = tmp_path / "common.pt"
    state = {"weight": torch.arange(3), "plugins": [{"a": 1, "b": [0.5, None, "x"], "c": (True,)}]}
    save_plain(state, file)
    found = load_plain(file)
    assert torch.equal(found.pop("weight"), state.pop("weight"))
    assert found == state


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02}q\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    file = tmp_path / "common.pt"
    file.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"common\.pt"):
        load_plain(file)


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"seen": {1, 2}}, r"a set at \['seen'\]"),
        ({"mean": [0.0, np.float64(1.0)]}, r"a float64 at \['mean'\]\[1\]"),
        ({"by": {(1, 2): 0.5}}, r"a tuple at \['by'\]\[\(1, 2\)\]"),
        ({"count": Counter("ab")["a"], "path": Path("x")}, r"Path at \['path'\]"),
    ],
)
def test_a_state_that_could_not_be_loaded_is_refused_when_it_is_saved(state, place):
    with pytest.raises(LearnerError, match=f"The state_dict of Mine has .*{place}"):
        refuse_other_objects(state, "Mine")


def test_plain_states_may_be_saved():
    refuse_other_objects({"a": [1, 2.0, "x", None, True, b"y"], "t": torch.ones(1), 3: ()}, "Mine")
