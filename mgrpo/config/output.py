"""What a run leaves behind, and who else is told its metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.errors import ConfigProblem


class TensorboardConfig(StrictConfig):
    """Event files in the run's tensorboard/."""

    use: Literal["tensorboard"] = "tensorboard"
    deadline_s: PositiveFloat = 60.0
    """Longest that the tracker's start, and its end, are waited for; training waits for no
    write, and is told when one takes longer than this."""


class WandbConfig(StrictConfig):
    """Weights & Biases."""

    use: Literal["wandb"] = "wandb"
    project: str = "mgrpo"
    entity: str | None = None
    """Team or user that the project belongs to; null: the account's default."""
    group: str | None = None
    """Runs of one group are shown together."""
    tags: list[str] = Field(default_factory=list)
    offline: bool = False
    """Write into the run's wandb/ alone; `wandb sync` sends it later."""
    deadline_s: PositiveFloat = 60.0


class MlflowConfig(StrictConfig):
    """MLflow, on a tracking server or in files."""

    use: Literal["mlflow"] = "mlflow"
    experiment: str = "mgrpo"
    tracking_uri: str | None = None
    """The server; null: what MLFLOW_TRACKING_URI says."""
    offline: bool = False
    """Write into the run's mlruns/ alone, whatever the environment says."""
    deadline_s: PositiveFloat = 60.0


class TrackioConfig(StrictConfig):
    """trackio: a local database, shown by `trackio show`, or a Hugging Face Space."""

    use: Literal["trackio"] = "trackio"
    project: str = "mgrpo"
    group: str | None = None
    space_id: str | None = None
    """The Space ("owner/name") that metrics are sent to; null: nothing leaves this machine."""
    offline: bool = False
    """Write into the run's trackio/ alone."""
    deadline_s: PositiveFloat = 60.0


def named_tracker(entry: Any) -> Any:
    """A tracker's bare name stands for it with its defaults."""
    return {"use": entry} if isinstance(entry, str) else entry


TrackerConfig = Annotated[
    TensorboardConfig | WandbConfig | MlflowConfig | TrackioConfig,
    Field(discriminator="use"),
    BeforeValidator(named_tracker),
]


class StorageConfig(StrictConfig):
    """Transfers to and from shared storage, where runs_dir is an URL."""

    deadline_s: PositiveFloat = 600.0
    """Longest that one file may take; then it is tried again."""
    attempts: PositiveInt = 4
    """How often one file is tried."""
    backoff_s: PositiveFloat = 1.0
    """Pause before the second try; each later pause is twice the one before it."""
    upload_s: PositiveFloat = 3600.0
    """Longest that a checkpoint's upload, or the last one, is waited for."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to fsspec's file system, e.g. {endpoint_url: "http://127.0.0.1:9000"}. They are
    saved with the recipe: credentials belong into the environment."""


class OutputConfig(StrictConfig):
    """What a run leaves behind, under runs_dir/name/."""

    runs_dir: str = "runs"
    """A folder, or an URL such as s3://bucket/runs or gs://bucket/runs: then the run works in a
    folder below local_runs_dir and what it leaves is copied to the URL."""
    local_runs_dir: str = "runs"
    """Where runs work whose runs_dir is an URL."""
    storage: StorageConfig = StorageConfig()
    rollouts_per_step: NonNegativeInt = 4
    """Problems whose whole tree of completions is written to rollouts/ each step."""
    trackers: list[TrackerConfig] = Field(default=[TensorboardConfig()])
    """Who is told each step's metrics besides metrics.jsonl: names, or sections with `use`."""
    report: bool = True
    """Write report.html at the end, and when the run is stopped."""

    @model_validator(mode="after")
    def check_trackers(self) -> OutputConfig:
        names = [tracker.use for tracker in self.trackers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            reason = "each tracker can be named once: a resumed run finds its record by the name."
            raise RelationError([ConfigProblem("trackers", name, reason) for name in twice])
        return self
