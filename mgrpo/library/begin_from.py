"""A run that begins with the policy of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgrpo.config import ModelConfig, RunConfig, StorageConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import HubUnreachable, ModelError, RunDirectoryError
from mgrpo.metrics.log import read_metrics
from mgrpo.models.node_model import driver_model
from mgrpo.models.policy_tokenizer import load_tokenizer
from mgrpo.storage.files import is_url
from mgrpo.storage.mirror import local_run_dir
from mgrpo.storage.policies import (
    BEST_DIR,
    POLICIES_DIR,
    POLICY_DIR,
    best_record,
)
from mgrpo.storage.run_directory import CONFIG_FILE, find_policy


def begun_from(run: str | Path, config: RunConfig) -> RunConfig:
    """The recipe with the policy of a run as its model, and a note of where that is from.

    Args:
        run: the run's folder, its name beside this recipe's runs, its URL, or one of its policies'
            folders. A run's policy is its best one if it keeps that, else its newest.

    Raises:
        RunDirectoryError: there is no such run, or the new run would take its folder.
        ModelError: the run has saved no policy, or one with another tokenizer than the recipe's
            model.
    """
    runs_dir = config.output.runs_dir
    run_dir, policy = find_policy(str(run), "runs" if is_url(runs_dir) else runs_dir)
    if run_dir.resolve() == local_run_dir(config.output, config.name).resolve():
        raise RunDirectoryError(
            f"The new run would have the name and the folder of the run that it begins from, "
            f"{run_dir}. Give it another name (--run NAME)."
        )
    before = load_recipe(run_dir / CONFIG_FILE)
    if config.model.path != before.model.path:
        refuse_other_tokenizer(policy, config.model, config.output.storage)
    begun = provenance_of(run_dir, policy)
    changes = {"path": str(policy.resolve()), "revision": None, "from_run": begun}
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def provenance_of(run_dir: Path, policy: Path) -> str:
    """ "wide, policy-best after step 20"."""
    name, record = policy.relative_to(run_dir).as_posix(), best_record(run_dir)
    number = policy.name.rpartition("step-")[2]
    if name == BEST_DIR and record is not None:
        num_steps = record.num_steps
    elif name.startswith((POLICIES_DIR, f"{POLICY_DIR}-")) and number.isdecimal():
        num_steps = int(number)
    else:
        num_steps = len(read_metrics(run_dir))
    return f"{run_dir.resolve().name}, {name} after step {num_steps}"


def refuse_other_tokenizer(policy: Path, model: ModelConfig, storage: StorageConfig) -> None:
    """Raise ModelError if the recipe's model has another vocabulary or chat template."""
    try:
        own = load_tokenizer(driver_model(model.path, storage, model.revision).driver_dir)
    except HubUnreachable as error:
        print(f"note: the tokenizer of {policy} was not compared with the recipe's: {error}")
        return
    other = load_tokenizer(str(policy))
    differing = [word for word, read in COMPARED.items() if read(own) != read(other)]
    if differing:
        raise ModelError(
            f"The policy {policy} has another {' and '.join(differing)} than {model.path}, "
            "for which the recipe is written: its prompts and lengths may not fit. If they do, set "
            f"model.path={policy} in place of --from."
        )


def vocabulary(tokenizer: Any) -> object:
    return tokenizer.get_vocab()


def chat_template(tokenizer: Any) -> object:
    return tokenizer.chat_template


COMPARED = {"vocabulary": vocabulary, "chat template": chat_template}
