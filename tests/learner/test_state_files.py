"""The learner's state in files: any ranks' pieces make the whole again, exactly."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from learner.state_files import Piece, Shard, StateReader, overlaps, padded_piece, share
from mgrpo.errors import RunDirectoryError
from tests.disk import files_of_at_most

NUMEL = st.integers(1, 97)
RANKS = st.integers(1, 9)


def shares(name: str, whole: int, num_ranks: int) -> list[Piece]:
    bounds = [share(whole, rank, num_ranks) for rank in range(num_ranks)]
    return [Piece(name, first, last - first, whole) for first, last in bounds]


def padded(name: str, whole: int, num_ranks: int, alignment: int = 1) -> list[Piece]:
    """As ZeRO-3 cuts a weight."""
    part = -(-whole // (num_ranks * alignment)) * alignment
    return [padded_piece(name, whole, part, rank) for rank in range(num_ranks)]


@given(whole=st.integers(0, 97), num_ranks=RANKS, alignment=st.integers(1, 8))
def test_ranks_pieces_follow_each_other_and_are_the_whole(whole, num_ranks, alignment):
    for pieces in (shares("w", whole, num_ranks), padded("w", whole, num_ranks, alignment)):
        assert sum(one.numel for one in pieces) == whole
        reached = 0
        for one in pieces:
            assert one.numel >= 0 and one.start == reached
            reached = one.stop


@given(
    wanted=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    saved=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
)
def test_what_is_read_is_each_wanted_number_that_is_saved_once(wanted, saved):
    pieces = [Piece("w", start, numel, 80) for start, numel in saved]
    first, numel = wanted
    found = list(overlaps(Piece("w", first, numel, 80), pieces))
    numbers = [number for _, start, stop in found for number in range(start, stop)]
    there = {number for one in pieces for number in range(one.start, one.stop)}
    assert numbers == sorted(there.intersection(range(first, first + numel)))
    for place, start, stop in found:
        assert pieces[place].start <= start < stop <= pieces[place].stop


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(NUMEL, min_size=1, max_size=4),
    before=RANKS,
    after=RANKS,
    cuts=st.permutations([shares, padded]),
)
def test_any_ranks_read_what_any_others_wrote(sizes, before, after, cuts):
    weights = {f"w{place}": torch.rand(size) for place, size in enumerate(sizes)}
    write_cut, read_cut = cuts
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for rank in range(before):
            pieces = [write_cut(name, len(one), before)[rank] for name, one in weights.items()]
            numbers = [(one, weights[one.name][one.start : one.stop]) for one in pieces]
            values = {one.name: {"step": 3.0} for one in pieces}
            Shard(3, rank, before).write(directory, "exp_avg", numbers, values)
        with StateReader(directory, "exp_avg") as saved:
            saved.refuse_other_weights({name: len(one) for name, one in weights.items()})
            for name, one in weights.items():
                found = torch.full_like(one, torch.nan)
                for piece in read_cut(name, len(one), after):
                    saved.read(piece, found[piece.start : piece.stop])
                assert torch.equal(found, one)
                assert saved.values[name] == {"step": 3.0}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Four ranks' parts of one weight of ten numbers."""
    for rank, piece in enumerate(shares("w", 10, 4)):
        numbers = torch.arange(10.0)[piece.start : piece.stop]
        Shard(2, rank, 4).write(tmp_path, "weights", [(piece, numbers)])
    return tmp_path


def read_whole(directory: Path) -> torch.Tensor:
    found = torch.full((10,), torch.nan)
    with StateReader(directory, "weights") as saved:
        saved.read(Piece("w", 0, 10, 10), found)
    return found


def test_a_missing_file_is_an_error_that_says_from_where_on(saved):
    assert torch.equal(read_whole(saved), torch.arange(10.0))
    (saved / "weights-zero2-00002-of-00004.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match="no file has weights of w from number 5 on"):
        read_whole(saved)


def test_a_node_with_its_own_rank_s_files_alone_may_lack_whole_weights(saved):
    with StateReader(saved, "weights") as found:
        found.refuse_other_weights({"w": 10, "v": 3})
        with pytest.raises(RunDirectoryError, match="no file has weights of v from number 0 on"):
            found.read(Piece("v", 0, 3, 3), torch.empty(3))


@pytest.mark.parametrize(
    ("shard", "names"),
    [
        (Shard(2, 1, 4), {"common.pt", "exp_avg-zero2-00001-of-00004.safetensors"}),
        (Shard(0, 1, 4), None),  # holds everything
        (Shard(3, 1, 4), None),
        (Shard(2, 1, 2), None),
    ],
)
def test_a_rank_reads_its_own_files_or_all(shard, names):
    ranks = range(4)
    every = ["common.pt", *(f"exp_avg{Shard(2, rank, 4).ending}" for rank in ranks)]
    assert set(shard.reads(every)) == (names or set(every))
    at_stage_0 = [f"weights{Shard(0, rank, 4).ending}" for rank in ranks]
    assert Shard(0, 1, 4).reads(at_stage_0) == at_stage_0


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"w": 12}, "w, which has 10 numbers there and 12 here"),
        ({}, "w, which has 10 numbers there and 0 here"),
    ],
)
def test_a_state_of_another_policy_is_refused_with_the_weight(saved, sizes, said):
    with (
        StateReader(saved, "weights") as found,
        pytest.raises(RunDirectoryError, match=f"1 of its weights differ, such as {said}"),
    ):
        found.refuse_other_weights(sizes)


@pytest.mark.parametrize(
    "places", ["", "[]", "5", '{"w": [0]}', '{"w": [0, "x"]}', '{"other": [0, 10]}']
)
def test_a_header_that_says_other_things_is_an_error(saved, places):
    file = saved / "weights-zero2-00001-of-00004.safetensors"
    save_file(load_file(file), file, metadata={"places": places, "values": "{}"})
    with pytest.raises(RunDirectoryError, match=r"00001-of-00004.*cannot be read"):
        read_whole(saved)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), length=st.integers(0, 400))
def test_damage_is_an_error_of_ours_or_other_numbers(place, byte, length):
    """A manifest's checksums find it first; here it must at least not end in anything else."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        piece = Piece("w", 0, 10, 10)
        Shard(2, 0, 1).write(directory, "weights", [(piece, torch.arange(10.0))])
        (file,) = directory.iterdir()
        content = bytearray(file.read_bytes())
        content[place % len(content)] = byte
        file.write_bytes(content[: len(content) - length % len(content)])
        try:
            with StateReader(directory, "weights") as saved:
                saved.refuse_other_weights({"w": 10})
                saved.read(piece, torch.empty(10))
        except RunDirectoryError as error:
            assert "\n" not in str(error) and str(directory) in str(error)


def test_a_quota_is_an_error_of_ours(tmp_path):
    numbers = torch.zeros(50_000)
    piece = Piece("w", 0, len(numbers), len(numbers))
    with (
        files_of_at_most(1 << 16),
        pytest.raises(
            RunDirectoryError, match=r"cannot be written: .*(File too large|os error 27)"
        ),
    ):
        Shard(2, 0, 1).write(tmp_path, "weights", [(piece, numbers)])


def test_what_one_rank_wrote_says_where_it_belongs(saved):
    file = saved / "weights-zero2-00001-of-00004.safetensors"
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["places"]) == {"w": [2, 10]}
    assert header["w"] == {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
