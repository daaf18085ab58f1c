"""MLflow, on a tracking server or in files of the run's own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgrpo.config import MlflowConfig
from mgrpo.trackers.completions import Table, as_markdown
from mgrpo.trackers.interface import RunFacts, flat

OFFLINE_DIR = "mlruns"
MAX_METRICS = 1000  # MLflow's limits on one request
MAX_PARAMS = 100
MAX_PARAM_CHARACTERS = 6000


class MlflowTracker:
    """Metrics of one MLflow run, through the client: the `mlflow.log_…` functions keep their
    active run per process, where another library may have its own."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        for first in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + MAX_METRICS])

    def write_completions(self, step: int, table: Table) -> None:
        file = f"completions/step-{step:06d}.md"
        self.client.log_text(self.run_id, as_markdown(table), file)

    def write_recipe(self, recipe: Mapping[str, object]) -> None:
        """The recipe's keys as parameters; MLflow keeps them as text and refuses long ones."""
        from mlflow.entities import Param

        params = [
            Param(name, str(value)[:MAX_PARAM_CHARACTERS]) for name, value in flat(recipe).items()
        ]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=params[first : first + MAX_PARAMS])

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def open_tracker(config: MlflowConfig, facts: RunFacts) -> MlflowTracker:
    """A new run in the experiment, or the one that this run's directory started with."""
    uri = config.tracking_uri
    if config.offline:
        # MLflow prefers a database, whose drivers come only with its full package;
        # `mlflow migrate-filestore` makes one of these files.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        uri = (facts.run_dir / OFFLINE_DIR).resolve().as_uri()
    # Read at each request: without them a server that is gone holds the thread for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, int(config.deadline_s / 4))))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = facts.recorded_id("mlflow")
    if run_id is not None:
        if config.offline:
            make_empty_folders(facts.run_dir / OFFLINE_DIR, run_id)
        client.update_run(run_id, status="RUNNING")
        return MlflowTracker(client, run_id)
    experiment = client.get_experiment_by_name(config.experiment)
    experiment_id = (
        client.create_experiment(config.experiment)
        if experiment is None
        else experiment.experiment_id
    )
    run_id = client.create_run(experiment_id, run_name=facts.name).info.run_id
    tracker = MlflowTracker(client, run_id)
    tracker.write_recipe(facts.recipe)
    facts.record_id("mlflow", run_id)
    return tracker


def make_empty_folders(root: Path, run_id: str) -> None:
    """Recreate a run's empty folders, which shared storage does not keep: MLflow needs them."""
    for run in root.glob(f"*/{run_id}"):
        for name in ("artifacts", "metrics", "params", "tags"):
            (run / name).mkdir(exist_ok=True)
