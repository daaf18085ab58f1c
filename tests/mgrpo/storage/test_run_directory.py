"""Which folders a new run may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import RunDirectoryError
from mgrpo.storage.run_directory import (
    claim_run_directory,
    refuse_existing_run,
    steps_before_a_checkpoint,
)


def test_a_run_with_steps_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        refuse_existing_run(tmp_path)
    claim_run_directory(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_never_came_to_a_step_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "config.yaml").write_text("name: x\n")
    (tmp_path / "evaluation.jsonl").write_text('{"step": 0, "label": "before"}\n')
    claim_run_directory(tmp_path, overwrite=False)
    assert not (tmp_path / "evaluation.jsonl").exists()  # it is measured again


def test_overwriting_spares_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="so it is not a run"):
        claim_run_directory(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("every_steps", "seed", "files", "expected"),
    [
        (3, 1, (), 2),
        (1, 1, (), 0),  # its first checkpoint is missing
        (0, 1, (), 0),  # it was to have none
        (3, 2, (), 0),  # another recipe's
        (3, 1, ("checkpoints/step-000002",), 0),
        (3, 1, ("policy",), 0),
    ],
)
def test_a_run_that_was_killed_before_its_first_checkpoint_is_known(
    tmp_path: Path, every_steps: int, seed: int, files: tuple[str, ...], expected: int
) -> None:
    config = load_recipe("quickstart", ("seed=1", f"checkpoints.every_steps={every_steps}"))
    save_recipe(config, tmp_path / "config.yaml")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    for file in files:
        (tmp_path / file).mkdir(parents=True)
    again = load_recipe("quickstart", (f"seed={seed}", f"checkpoints.every_steps={every_steps}"))
    assert steps_before_a_checkpoint(tmp_path, again) == expected
