"""A run's folder: reserved by one run, found by name."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from pathlib import Path

from mgrpo.config import OutputConfig, RunConfig, StorageConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.resume import (
    changes_between,
    changes_of_results,
    phases_rewrite,
    schedule_warning,
)
from mgrpo.errors import ConfigError, RunDirectoryError
from mgrpo.metrics.log import to_line
from mgrpo.metrics.rows import EvaluationForm, read_lines
from mgrpo.plugin import resume_rules
from mgrpo.storage.checkpoints import best_checkpoint, checkpoints, newest_whole, read_state
from mgrpo.storage.files import Storage, is_url, local_folder_of
from mgrpo.storage.mirror import Mirror
from mgrpo.storage.policies import (
    EARLY_END_FILE,
    POLICY_DIR,
    BestRecord,
    best_or_newest_policy,
    early_end_of,
)

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
CONFIG_FILE = "config.yaml"


def refuse_existing_run(run_dir: Path) -> None:
    """Raise RunDirectoryError if an earlier run has left its metrics.

    A run that ended before its first step, such as without resources or a model, left nothing to
    keep: the same command can be repeated.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(
            f"{run_dir} exists and is a file. Choose another name with --run NAME."
        )
    metrics = run_dir / METRICS_FILE
    if metrics.exists() and metrics.stat().st_size > 0:
        raise RunDirectoryError(
            f"{run_dir} already holds a run. Give this one another name (--run NAME), or delete "
            "the earlier one first (--overwrite)."
        )


def steps_before_a_checkpoint(run_dir: Path, config: RunConfig) -> int:
    """Steps of a run of this recipe that was ended before its first checkpoint was written.

    0: there is no such run. One with more than two checkpoints' steps has lost more than it should,
    and is left for a person to look at.
    """
    if (run_dir / POLICY_DIR).is_dir() or checkpoints(run_dir):
        return 0
    num_steps = len(read_lines(run_dir / METRICS_FILE))
    is_early = num_steps < 2 * config.checkpoints.every_steps
    return num_steps if is_early and made_with(run_dir / CONFIG_FILE, config) else 0


def resume_point(
    run_dir: Path, config: RunConfig, *, note: Callable[[str], None] = print
) -> Path | None:
    """The checkpoint from which this recipe resumes in this folder, if there is one.

    Args:
        note: reports harmless changes of the recipe.

    Raises:
        RunDirectoryError: the run there is finished and not made longer, the recipe differs in a
        way that changes finished steps, or every checkpoint is damaged.
    """
    has_ended = (run_dir / POLICY_DIR).is_dir()
    if not (run_dir / CONFIG_FILE).is_file() or not (has_ended or checkpoints(run_dir)):
        return None
    before = load_recipe(run_dir / CONFIG_FILE)
    end = early_end_of(run_dir)
    if has_ended and end is not None and config.early_stopping == before.early_stopping:
        raise RunDirectoryError(
            f"The run in {run_dir} ended early, after {end.num_steps} of {before.steps} steps: "
            f"{end.reason}. Go on with another early_stopping.patience or early_stopping=null, "
            "give this one another name (--run NAME), or delete the earlier one first "
            "(--overwrite)."
        )
    if has_ended and end is None and config.steps <= before.steps:
        raise RunDirectoryError(
            f"The run in {run_dir} is already finished, after {before.steps} steps. Make it longer "
            f"(steps={before.steps + 1} or more), give this one another name (--run NAME), or "
            "delete the earlier one first (--overwrite)."
        )
    folder, faults = newest_whole(run_dir)
    if folder is None:
        raise RunDirectoryError(no_way_on(run_dir, faults))
    for fault in faults:
        note(f"{fault}; resuming from {folder.name} instead")
    for line in accepted_changes(run_dir, before, config, read_state(folder)["num_steps"]):
        note(line)
    if best := best_checkpoint(run_dir):
        note(best_line(*best))
    return folder


def best_line(folder: Path, record: BestRecord) -> str:
    return (
        f"{folder.name} is kept as the best so far ({record.metric} {record.value:.4g}); to go on "
        "from it, delete those after it"
    )


def no_way_on(run_dir: Path, faults: list[str]) -> str:
    """Why a run cannot resume from any checkpoint, with advice."""
    if faults:
        return (
            f"No checkpoint in {run_dir} can be resumed from: {'; '.join(faults)}. To start again: "
            "--overwrite."
        )
    return (
        f"The run in {run_dir} is already finished and has no checkpoint to resume from. To train "
        f"its policy further: --run NAME --from {run_dir}."
    )


def rate_phase(old: float, new: float, num_done: int) -> str:
    """A changed learning rate in the form in which it can change; "" if it is the same."""
    if new == old:
        return ""
    changes = f"{{objective: {{learning_rate_factor: {new / old:.6g}}}}}"
    phase = f"{{name: later, from_step: {num_done}, changes: {changes}}}"
    return f", the learning rate as in '[{phase}]'"


def accepted_changes(
    run_dir: Path, before: RunConfig, config: RunConfig, num_done: int
) -> list[str]:
    """A note for each change of the recipe that allows a resume.

    Raises:
        RunDirectoryError: a change does not; names each key with its old and new value.
    """
    rules = resume_rules(config.method_view)
    changes = changes_between(before, config, rules)
    rewritten = phases_rewrite(before.method_view, config.method_view, num_done, rules)
    kinds = {"fixed", "phases"} if rewritten else {"fixed"}
    refused = [str(change) for change in changes if change.kind in kinds]
    rates = before.learner.learning_rate, config.learner.learning_rate
    if config.steps < num_done:
        refused.append(f"steps is {config.steps}, and {num_done} are done")
    if refused:
        raise RunDirectoryError(
            f"{run_dir} holds a checkpoint of another recipe, with which the finished steps would "
            "have been different:\n"
            + "".join(f"  - {line}\n" for line in refused)
            + "Restore these values to resume. Layers, objective and sampling can change from here "
            f"on by a phase (phases, from_step: {num_done}){rate_phase(*rates, num_done)}. "
            "Or give this run another name (--run NAME), or delete the earlier one first "
            "(--overwrite)."
        )
    lines = [f"changed since the checkpoint: {change}" for change in changes]
    lines += [
        w for w in (schedule_warning(change, config.learner.schedule) for change in changes) if w
    ]
    if any(change.kind == "evaluation" for change in changes):
        lines.append("evaluations from here on are not comparable with those before")
    return lines


def made_with(config_file: Path, config: RunConfig) -> bool:
    """Does a saved config give the same results as this one?

    A run saves how its layout came out on this machine, and may be kept elsewhere.
    """
    if not config_file.is_file():
        return False
    try:
        earlier = load_recipe(config_file)
    except ConfigError:  # a key has gone since: made by another version
        return False
    return not changes_of_results(earlier, config)


def reopen_run(run_dir: Path) -> None:
    """Continue a finished run: its policy is kept under its number of steps."""
    policy = run_dir / POLICY_DIR
    if not policy.is_dir():
        return
    end = early_end_of(run_dir)
    num_steps = load_recipe(run_dir / CONFIG_FILE).steps if end is None else end.num_steps
    (run_dir / EARLY_END_FILE).unlink(missing_ok=True)
    policy.rename(run_dir / f"{POLICY_DIR}-step-{num_steps:06d}")
    rows = read_lines(run_dir / EVALUATION_FILE, EvaluationForm)
    during = [row | {"label": "during"} if row["label"] == "after" else row for row in rows]
    (run_dir / EVALUATION_FILE).write_text("".join(map(to_line, during)), encoding="utf-8")


def claim_run_directory(run_dir: Path, *, overwrite: bool) -> None:
    """Make the folder, empty of any earlier run.

    Raises:
        RunDirectoryError: it holds a run and `overwrite` is false, it holds files of no run, or it
        cannot be made.
    """
    if not overwrite:
        refuse_existing_run(run_dir)
        (run_dir / EVALUATION_FILE).unlink(missing_ok=True)  # of a start without a step
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        if not any((run_dir / file).exists() for file in (METRICS_FILE, CONFIG_FILE)):
            raise RunDirectoryError(
                f"--overwrite would delete {run_dir}, which is not empty and has neither "
                f"{METRICS_FILE} nor {CONFIG_FILE}, so it is not a run. Move it away, or give "
                "--run NAME."
            )
        shutil.rmtree(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot make the run's folder {run_dir}: {error.strerror}. Set output.runs_dir to a "
            "writable folder."
        ) from error


def fetched_run(url: str) -> Path:
    """The local folder of a run in shared storage."""
    parent, _, name = url.rstrip("/").rpartition("/")
    run_dir = Path(OutputConfig().local_runs_dir) / local_folder_of(parent) / name
    Mirror(Storage(url, StorageConfig()), run_dir).fetch_policy()
    return run_dir


def find_run(name: str, runs_dir: str = "runs") -> Path:
    """The folder of an earlier run, by path, by its name under `runs_dir`, or by its URL.

    A run at a URL is fetched first: records, and the policy if the run is finished.
    """
    if is_url(name):
        return fetched_run(name)
    for folder in (Path(name).expanduser(), Path(runs_dir) / name):
        if (folder / METRICS_FILE).is_file() or (folder / CONFIG_FILE).is_file():
            return folder
    runs = sorted(path.parent.name for path in Path(runs_dir).glob(f"*/{METRICS_FILE}"))
    near = difflib.get_close_matches(name, runs, n=3, cutoff=0.4) or runs[:10]
    raise RunDirectoryError(
        f"There is no run {name!r}: neither that folder nor {Path(runs_dir) / name} holds "
        f"{METRICS_FILE}. Runs here: {', '.join(near) or 'none'}."
    )


def find_policy(run: str, runs_dir: str = "runs") -> tuple[Path, Path]:
    """The folders of a run and of its policy: the best one if it keeps that, else the newest.

    Args:
        run: as for `find_run`, or the folder of one of a run's policies.

    Raises:
        RunDirectoryError: there is no such run.
        ModelError: it has saved no policy.
    """
    folder = Path(run).expanduser()
    if not is_url(run) and (folder / "config.json").is_file():
        for parent in list(folder.absolute().parents)[:2]:
            if (parent / CONFIG_FILE).is_file():
                return parent, parent / folder.absolute().relative_to(parent)
        raise RunDirectoryError(
            f"{folder} is a model, and no run's folder holds it. Name a run; to train that model, "
            f"set model.path={folder}."
        )
    run_dir = find_run(run, runs_dir)
    return run_dir, best_or_newest_policy(run_dir)
