"""Everything a report reads from a run's directory. What is not there yet is empty."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mgrpo.config.outline import read_outline
from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.log import (
    METRICS_FILE,
    read_alarms,
    read_evaluations,
    read_metrics,
    rollout_paths,
)
from mgrpo.metrics.rows import Row, reason_of, text_of
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.provenance import ENVIRONMENT_FILE

CONFIG_FILE = "config.yaml"
DOMAIN_ACCURACY = re.compile(r"layer\d+/domain/(.+)/accuracy", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """One run, as far as it has come."""

    run_dir: Path
    config_text: str = ""  # config.yaml as written
    config: JsonObject = field(default_factory=dict)
    environment: dict[str, object] = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)  # one row per step
    evaluations: list[Row] = field(default_factory=list)
    alarms: list[dict[str, object]] = field(default_factory=list)
    rollouts: dict[int, Path] = field(default_factory=dict)  # step -> file
    heldout: dict[int, Path] = field(default_factory=dict)  # steps before an evaluation -> file

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.run_dir.resolve().name)

    @property
    def num_layers(self) -> int:
        """Layers of the chain: from the config, or else from the metrics' names."""
        layers = self.config.get("layers")
        if layers:
            return len(layers)
        names = {name for row in self.metrics for name in row if name.startswith("layer")}
        return len({name.split("/")[0] for name in names}) or 1

    @property
    def domains(self) -> list[str]:
        """Domains of the data that the metrics tell apart, in alphabetical order."""
        names = {name for row in self.metrics for name in row}
        found = (DOMAIN_ACCURACY.fullmatch(name) for name in names)
        return sorted({match[1] for match in found if match})

    @property
    def planned_steps(self) -> int | None:
        return self.config.get("steps")

    @property
    def is_finished(self) -> bool:
        """Every planned step was taken, or the run measured itself at its end."""
        if any(evaluation["label"] == "after" for evaluation in self.evaluations):
            return True
        return self.planned_steps is not None and len(self.metrics) >= self.planned_steps

    @property
    def seconds(self) -> float | None:
        """Running time up to the last step, over all resumes."""
        return self.metrics[-1].get("wall_s") if self.metrics else None

    @property
    def cost(self) -> float | None:
        """Of `output.price_per_hour` up to the last step; None without that key."""
        return self.metrics[-1].get("cost") if self.metrics else None

    @property
    def last_change(self) -> datetime | None:
        """When the last step was written, in local time."""
        path = self.run_dir / METRICS_FILE
        if not self.metrics:
            return None
        return datetime.fromtimestamp(path.stat().st_mtime).astimezone()

    def layer_label(self, layer: int) -> str:
        """ "Layer 2 (correct)", or "Layer 2" where the config does not name it."""
        layers = self.config.get("layers") or []
        name = layers[layer - 1].get("name") if layer <= len(layers) else None
        return f"Layer {layer} ({name})" if name else f"Layer {layer}"


def load_run(run_dir: Path | str) -> RunData:
    """Read a run's directory.

    Raises:
        RunDirectoryError: it does not exist, holds no run, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise RunDirectoryError(
            f"{run_dir} is not a directory. Name a run's directory, such as runs/my-run."
        )
    config_text = text_of(run_dir / CONFIG_FILE)
    if not config_text and not (run_dir / METRICS_FILE).exists():
        raise RunDirectoryError(
            f"{run_dir} has neither {CONFIG_FILE} nor {METRICS_FILE}, so it is not a run's "
            "directory. Name the directory that `mgrpo train` printed when it started."
        )
    return RunData(
        run_dir=run_dir,
        config_text=config_text,
        config=read_mapping(run_dir / CONFIG_FILE, read_outline),
        environment=read_mapping(run_dir / ENVIRONMENT_FILE, json.loads),
        metrics=read_metrics(run_dir),
        evaluations=read_evaluations(run_dir),
        alarms=read_alarms(run_dir),
        rollouts=rollout_paths(run_dir),
        heldout=rollout_paths(run_dir, "heldout"),
    )


def read_mapping(path: Path, parse: Callable[[str], object]) -> dict[str, object]:
    """The mapping that a file holds; an empty one where there is no file."""
    try:
        content = parse(text_of(path) or "{}") or {}
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {reason_of(error)}.") from error
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path} holds {type(content).__name__}, not a mapping.")
    return content
