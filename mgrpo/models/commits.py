"""The commits of a run's hub models: found at its start, recorded, and kept when it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from mgrpo.config import ModelConfig, RewardsConfig, RunConfig, StorageConfig
from mgrpo.config.base import StrictConfig
from mgrpo.config.services import ModelTerm
from mgrpo.models.catalog import is_hub_name
from mgrpo.models.node_model import driver_model, hub_model
from mgrpo.storage.policies import read_record
from mgrpo.storage.provenance import ENVIRONMENT_FILE

POLICY = "model"
TERM = "rewards.terms.{}"

Section = TypeVar("Section", bound=StrictConfig)


def find_commits(
    model: ModelConfig, rewards: RewardsConfig, storage: StorageConfig
) -> dict[str, str]:
    """The commit of the policy and of each reward model that is the hub's, by its section's path.

    Their small files are then in this machine's cache.

    Raises:
        ModelError: the hub has no such model or revision.
        HubUnreachable: the hub does not answer, and the model is not in the cache.
    """
    found: dict[str, str] = {}
    if is_hub_name(model.path):
        folder = driver_model(model.path, storage, model.revision).driver_dir
        found[POLICY] = Path(folder).name
    for number, term in enumerate(rewards.terms):
        if isinstance(term, ModelTerm) and is_hub_name(term.model):
            path = TERM.format(number)
            found[path] = Path(reward_model(term, path, storage)).name
    return found


def reward_model(term: ModelTerm, path: str, storage: StorageConfig) -> str:
    return hub_model(
        term.model,
        revision=term.revision,
        with_weights=False,
        deadline_s=storage.upload_s,
        setting=f"{path}.model",
    )


def at_commits(config: RunConfig, commits: Mapping[str, str]) -> RunConfig:
    """The recipe with these commits as the revisions of its hub models."""

    def at(path: str, section: Section) -> Section:
        if path not in commits:
            return section
        return section.model_copy(update={"revision": commits[path]})

    terms = [at(TERM.format(number), term) for number, term in enumerate(config.rewards.terms)]
    rewards = config.rewards.model_copy(update={"terms": terms})
    return config.model_copy(update={"model": at(POLICY, config.model), "rewards": rewards})


@dataclass(frozen=True)
class Environment:
    """Of what `write_provenance` writes."""

    hub_commits: dict[str, str] = field(default_factory=dict)


def recorded_commits(run_dir: Path) -> dict[str, str]:
    """What `find_commits` found at the run's last start; {} for a run of a version without it.

    Raises:
        RunDirectoryError: the file cannot be read.
    """
    found = read_record(run_dir / ENVIRONMENT_FILE, TypeAdapter(Environment))
    return {} if found is None else found.hub_commits
