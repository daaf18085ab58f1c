"""`mgrpo.train`: trains a recipe, with data and reward functions of the calling program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.overrides import merged_maps, nested
from mgrpo.errors import MgrpoError
from mgrpo.findings import FAILED_EXIT_CODE, CheckReport, console
from mgrpo.library.begin_from import begun_from
from mgrpo.library.caller import beside_the_caller
from mgrpo.library.inputs import Data, data_section
from mgrpo.library.own_reward import RewardLike, reward_terms
from mgrpo.library.run import Run
from mgrpo.models.commits import at_commits, recorded_commits
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.mirror import local_run_dir, mirror_of
from mgrpo.storage.run_directory import (
    claim_run_directory,
    refuse_existing_run,
    reopen_run,
    resume_point,
    steps_before_a_checkpoint,
)
from mgrpo.storage.run_lock import run_lock

INPUTS_SUFFIX = ".inputs"


def train(
    recipe: str | Path | Mapping[str, object] = "quickstart",
    *,
    data: Data | None = None,
    heldout: Data | None = None,
    reward: RewardLike | Sequence[RewardLike] | None = None,
    from_run: str | Path | None = None,
    overwrite: bool = False,
    **overrides: Any,
) -> Run:
    """Check a recipe, then train it, or resume its run; as `mgrpo train` does.

    Example:
        run = mgrpo.train("quickstart", data="sums.jsonl", reward=exact, steps=20, name="sums")
        run.metrics()["layer1/accuracy"].plot()

    Args:
        recipe: a shipped recipe's name, a file, or the recipe itself as a mapping, which may have
            `extends`.
        data: the training problems: a file or folder, a hub name, rows (a list of dicts, a
            `datasets.Dataset`), or the section `data.train` as a mapping. Rows are written to
            `NAME.inputs/` beside the run's folder. None: the recipe's.
        heldout: the same for the problems that are never trained on. None: the recipe's, or none
            if `data` is given, since the recipe's are of another task.
        reward: a function `(completion, problem, **settings)`, the name of a check, a reward term
            as a mapping, or a list of these, which are summed. A function of a script or notebook
            is written to `NAME.inputs/`, for the reward processes. None: the recipe's.
        from_run: begin with the policy of this run, its best one if it keeps that, else its
            newest: a name, a folder, a URL, or the folder of one of its policies. None: the
            recipe's `model.path`.
        overwrite: delete an earlier run of the same name first.
        overrides: keys of the recipe: `steps=20`, `name="wide"`, `layers={"correct":
            {"group_size": 8}}`; dotted ones by `**{"data.train.question_field": "prompt"}`.

    Raises:
        ConfigError: the recipe is wrong; lists all errors.
        CheckFailed: a check before the start failed; nothing was started.
        RunDirectoryError: a run of this name is finished, active, or of another recipe.
        RunInterrupted: Ctrl-C or SIGTERM; the same call resumes the run.
        MgrpoError: any other reason why the run ended early.
    """
    changes = nested(overrides)
    given: JsonObject = {}
    if data is not None:
        given = {"data": {"train": {"path": "given"}, "heldout": None}}
    before = load_recipe(recipe, changes=merged_maps(given, changes))
    inputs = inputs_folder(local_run_dir(before.output, before.name))
    if data is not None:
        given["data"]["train"] = data_section(data, "train", inputs)
    if heldout is not None:
        given.setdefault("data", {})["heldout"] = data_section(heldout, "heldout", inputs)
    if reward is not None:
        given["rewards"] = {"terms": reward_terms(reward, inputs)}
    config = load_recipe(recipe, changes=merged_maps(given, changes))
    if from_run is not None:
        config = begun_from(from_run, config)
    with beside_the_caller():
        return Run(train_recipe(config, overwrite=overwrite))


def inputs_folder(run_dir: Path) -> Path:
    """Where a run's data and functions are kept that no file of the user's has."""
    return run_dir.with_name(run_dir.name + INPUTS_SUFFIX)


def train_recipe(config: RunConfig, *, overwrite: bool = False) -> Path:
    """Check a recipe and show what was found, then train it, or resume its run. Returns its folder.

    Raises:
        CheckFailed: the check found what would stop the run.
    """
    from mgrpo.plan.layout import laid_out_here

    config, layout = laid_out_here(config)
    run_dir = local_run_dir(config.output, config.name)
    with run_lock(run_dir):
        train_in(run_dir, config, layout=layout, overwrite=overwrite)
    return run_dir


def train_in(run_dir: Path, config: RunConfig, *, layout: str, overwrite: bool) -> None:
    """Check, then train or resume in a folder that only this run writes to."""
    from mgrpo.check import check_recipe

    mirror = mirror_of(config, run_dir)
    if not overwrite:
        mirror.fetch()
    checkpoint = None if overwrite else resume_point(run_dir, config)
    if checkpoint is None and (num_lost := steps_before_a_checkpoint(run_dir, config)):
        print(f"begins again: after {num_lost} steps, {run_dir} has no checkpoint yet")
        overwrite = True
    if checkpoint is None and not overwrite:
        refuse_existing_run(run_dir)  # before the seconds that the check takes
        mirror.refuse_existing()
    commits = {} if checkpoint is None else recorded_commits(run_dir)
    report = check_recipe(at_commits(config, commits), layout=layout)
    report.show(console(stderr=True))
    if report.failures:
        raise CheckFailed(report)
    if checkpoint is None:
        claim_run_directory(run_dir, overwrite=overwrite)
        if overwrite:
            mirror.remove()
    else:
        print(f"resuming from {checkpoint}")
        reopen_run(run_dir)
        mirror.reopen()

    from mgrpo.training.run import run_training

    run_training(config, run_dir, resume_from=checkpoint)


class CheckFailed(MgrpoError):
    """The check before a run found what would stop it. Nothing was started."""

    exit_code = FAILED_EXIT_CODE

    def __init__(self, report: CheckReport) -> None:
        lines = "".join(f"\n  - {line.name}: {line.detail}" for line in report.failures)
        super().__init__(report.summary() + lines)
