"""A checkpoint that was damaged in any way: the one before is used, or each one's fault is said."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.plain_states import load_plain, save_plain
from learner.state_files import Piece, Shard, StateReader, share
from mgrpo.storage.checkpoints import (
    FORMAT,
    LEARNER_DIR,
    MANIFEST_FILE,
    STATE_FILE,
    begin_checkpoint,
    checkpoint_dir,
    finish_checkpoint,
    newest_whole,
    read_state,
)

OLDER, NEWER = 10, 20
WEIGHT, RANKS, KINDS = 37, 3, ("weights", "exp_avg")


@functools.cache
def whole_run() -> tempfile.TemporaryDirectory[str]:
    """A run's folder with two checkpoints in the form of three learner ranks."""
    folder = tempfile.TemporaryDirectory()
    run_dir = Path(folder.name)
    for num_steps in (OLDER, NEWER):
        checkpoint = begin_checkpoint(run_dir, num_steps)
        learner = checkpoint / LEARNER_DIR
        for rank in range(RANKS):
            first, last = share(WEIGHT, rank, RANKS)
            numbers = torch.arange(first, last) + float(num_steps)
            for kind in KINDS:
                pieces = [(Piece("w", first, last - first, WEIGHT), numbers)]
                Shard(2, rank, RANKS).write(learner, kind, pieces, {"w": {"step": 1.0}})
        save_plain({"policy_version": num_steps, "plugins": []}, learner / "common.pt")
        state = {"num_steps": num_steps, "policy_version": num_steps, "sources": {"x": [1]}}
        finish_checkpoint(checkpoint, state)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the manifest, whose form may differ."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != MANIFEST_FILE
    }


def learners_state(folder: Path) -> list[torch.Tensor]:
    learner = folder / LEARNER_DIR
    found = [torch.tensor(load_plain(learner / "common.pt")["policy_version"])]
    for kind in KINDS:
        with StateReader(learner, kind) as saved:
            numbers = torch.full((WEIGHT,), torch.nan)
            saved.read(Piece("w", 0, WEIGHT, WEIGHT), numbers)
        found.append(numbers)
    return found


@dataclass(frozen=True)
class Damage:
    """What happens to one file of a checkpoint, by numbers that choose where."""

    kind: str
    file: int
    place: int
    byte: int

    def do(self, folder: Path, other: Path) -> None:
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        if files:
            file = files[self.file % len(files)]
            DAMAGES[self.kind](self, file, other / file.relative_to(folder))

    def truncate(self, file: Path, _: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: self.place % max(1, len(content))])

    def flip(self, file: Path, _: Path) -> None:
        content = bytearray(file.read_bytes())
        if content:
            content[self.place % len(content)] ^= self.byte
        file.write_bytes(content)

    def append(self, file: Path, _: Path) -> None:
        with file.open("ab") as opened:
            opened.write(bytes([self.byte]) * (1 + self.place % 100))

    def delete(self, file: Path, _: Path) -> None:
        file.unlink()

    def become_folder(self, file: Path, _: Path) -> None:
        file.unlink()
        file.mkdir()

    def lead_nowhere(self, file: Path, _: Path) -> None:
        file.unlink()
        file.symlink_to(file.with_name("nothing"))

    def be_of_another_step(self, file: Path, other: Path) -> None:
        if other.is_file():
            shutil.copy(other, file)

    def say_other_things(self, file: Path, _: Path) -> None:
        manifest = file.parent / MANIFEST_FILE
        texts = ["{}", "[]", "null", "5", '{"state.json": {}}', "\0" * 50, '"' * 9, "{" * 5000]
        manifest.write_text(texts[self.byte % len(texts)])

    def be_of_a_later_version(self, file: Path, _: Path) -> None:
        """Not damage, but what a newer mgrpo would write, with right checksums."""
        folder = file.parent if file.parent.name != LEARNER_DIR else file.parent.parent
        state, manifest = folder / STATE_FILE, folder / MANIFEST_FILE
        if state.is_file() and manifest.is_file():
            state.write_text(json.dumps({"format": FORMAT + 1 + self.byte, "num_steps": NEWER}))
            content = state.read_bytes()
            listed = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            try:
                manifest.write_text(
                    json.dumps(json.loads(manifest.read_text()) | {state.name: listed})
                )
            except (ValueError, TypeError):
                manifest.write_text("{}")


DAMAGES: dict[str, Callable[[Damage, Path, Path], None]] = {
    name: method for name, method in vars(Damage).items() if callable(method) and name[0] != "_"
}
del DAMAGES["do"]

BYTES = st.integers(1, 255)
damages = st.builds(
    Damage, st.sampled_from(sorted(DAMAGES)), st.integers(0, 50), st.integers(0, 9999), BYTES
)


@settings(max_examples=100, deadline=None)
@given(
    to_newer=st.lists(damages, min_size=1, max_size=3),
    to_older=st.lists(damages, max_size=1),
)
def test_damage_costs_no_more_than_the_way_back_to_the_checkpoint_before(to_newer, to_older):
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        shutil.copytree(whole_run().name, run_dir)
        older, newer = (checkpoint_dir(run_dir, number) for number in (OLDER, NEWER))
        originals = {one: (contents(one), learners_state(one)) for one in (older, newer)}
        for given_damages, one, other in ((to_newer, newer, older), (to_older, older, newer)):
            for damage in given_damages:
                damage.do(one, other)
        found, faults = newest_whole(run_dir)
        if found is None:
            assert to_older and len(faults) == 2 and str(older) in faults[1]
            return
        assert [fault.startswith(f"{newer}: ") for fault in faults] == [True] * (found == older)
        files, numbers = originals[found]
        assert files.items() <= contents(found).items()
        assert all(map(torch.equal, learners_state(found), numbers))
        assert read_state(found)["num_steps"] == int(found.name.removeprefix("step-"))
