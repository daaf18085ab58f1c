"""A run's files, trackers and shared storage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject


class TensorboardConfig(StrictConfig):
    """Event files in the run's tensorboard/."""

    use: Literal["tensorboard"] = "tensorboard"
    deadline_s: PositiveFloat = 60.0
    """Deadline of the tracker's start and of its end; training does not wait for writes, and
    reports one that takes longer than this."""


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
    """Write only into the run's wandb/; `wandb sync` uploads it later."""
    deadline_s: PositiveFloat = 60.0


class MlflowConfig(StrictConfig):
    """MLflow, on a tracking server or in files."""

    use: Literal["mlflow"] = "mlflow"
    experiment: str = "mgrpo"
    tracking_uri: str | None = None
    """The server; null: MLFLOW_TRACKING_URI."""
    offline: bool = False
    """Write only into the run's mlruns/, regardless of the environment."""
    deadline_s: PositiveFloat = 60.0


class TrackioConfig(StrictConfig):
    """trackio: a local database, shown by `trackio show`, or a Hugging Face Space."""

    use: Literal["trackio"] = "trackio"
    project: str = "mgrpo"
    group: str | None = None
    space_id: str | None = None
    """The Space ("owner/name") that metrics are sent to; null: the local database."""
    offline: bool = False
    """Write only into the run's trackio/."""
    deadline_s: PositiveFloat = 60.0


def named_tracker(entry: object) -> object:
    """A tracker's name alone selects it with its defaults."""
    return {"use": entry} if isinstance(entry, str) else entry


TrackerConfig = Annotated[
    TensorboardConfig | WandbConfig | MlflowConfig | TrackioConfig,
    Field(discriminator="use"),
    BeforeValidator(named_tracker),
]


class StorageConfig(StrictConfig):
    """Transfers to and from shared storage, if runs_dir is a URL."""

    deadline_s: PositiveFloat = 600.0
    """Longest time in which no MiB of a file is moved; then it is retried. A store that does not
    say what it has moved has as long for a whole file."""
    attempts: PositiveInt = 4
    """Attempts for one file."""
    backoff_s: PositiveFloat = 1.0
    """Pause before the second attempt; it doubles each time."""
    upload_s: PositiveFloat = 600.0
    """Longest time without progress of a checkpoint's upload, when the next one is due, and of the
    last one: no file and no MiB of one is moved. Also of another process of this node that fetches
    the model: it reads and writes no MiB."""
    options: JsonObject = Field(default_factory=dict)
    """Passed to fsspec's file system, e.g. {endpoint_url: "http://127.0.0.1:9000"}. They are saved
    with the recipe, so credentials (key, secret, token, ...) are refused: set the storage's own
    environment variables, or FSSPEC_<SCHEME>_<OPTION>, such as FSSPEC_S3_SECRET."""


class OutputConfig(StrictConfig):
    """A run's output, under runs_dir/name/."""

    runs_dir: str = "runs"
    """A folder, or a URL such as s3://bucket/runs or gs://bucket/runs: then the run works in a
    folder below local_runs_dir and its files are uploaded to the URL."""
    local_runs_dir: str = "runs"
    """The local folder of runs whose runs_dir is a URL."""
    storage: StorageConfig = StorageConfig()
    rollouts_per_step: NonNegativeInt = 4
    """Problems whose whole tree of completions is written to rollouts/ each step."""
    heldout_recorded: NonNegativeInt = 20
    """Held-out problems whose whole tree of completions is written there at each evaluation."""
    trackers: list[TrackerConfig] = Field(default=[TensorboardConfig()])
    """Trackers of each step's metrics besides metrics.jsonl: names, or sections with `use`."""
    policy_every_steps: NonNegativeInt = 0
    """Save the policy in Hugging Face form after every this many steps, as policies/step-N/. 0:
    only at the end, as policy/."""
    keep_policies: PositiveInt = 3
    """Number of newest policies of `policy_every_steps` that are kept."""
    resources: bool = False
    """Write at each step to resources.jsonl what the run holds on the driver's machine: memory,
    shared memory, files and threads of its processes, disk of its folders."""
    price_per_hour: NonNegativeFloat | None = None
    """Price of an hour of the run's machines, in your currency: metrics and report then have what
    the run has cost. null: unknown."""
    report: bool = True
    """Write report.html at the end, and when the run is stopped."""

    @model_validator(mode="after")
    def check_trackers(self) -> OutputConfig:
        names = [tracker.use for tracker in self.trackers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            reason = "each tracker can be named once: a resumed run finds its record by the name."
            raise RelationError([ConfigFault("trackers", name, reason) for name in twice])
        return self
