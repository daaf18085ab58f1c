"""Checks of a run's environment: the cluster that it joins, and the folders that it writes to."""

from __future__ import annotations

from cluster.folders import fault_of_folder, ray_folder
from cluster.reach import await_cluster, origin
from mgrpo.config import ClusterConfig, OutputConfig
from mgrpo.errors import ClusterError, RunDirectoryError
from mgrpo.findings import CheckLine
from mgrpo.storage.mirror import local_run_dir


def environment_lines(output: OutputConfig, cluster: ClusterConfig, run: str) -> list[CheckLine]:
    """The run's Ray; a line for each error or unexpected setting."""
    return [*runs_dir_lines(output, run), *ray_lines(cluster)]


def runs_dir_lines(output: OutputConfig, run: str) -> list[CheckLine]:
    """Whether the run's folder can be made, or written to if it exists."""
    try:
        run_dir = local_run_dir(output, run).absolute()
        nearest = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    except (OSError, RunDirectoryError) as error:
        return [CheckLine("fail", "output.runs_dir", str(error))]
    fault = fault_of_folder(str(nearest))
    if not fault:
        return []
    text = f"{run_dir} cannot be made: {nearest} {fault}. Set output.runs_dir to another folder."
    return [CheckLine("fail", "output.runs_dir", text)]


def ray_lines(cluster: ClusterConfig) -> list[CheckLine]:
    """The cluster that the run joins, or the folder of its local Ray."""
    if cluster.joins is None:
        return own_ray_lines()
    try:
        address = await_cluster(cluster)
    except ClusterError as error:
        return [CheckLine("fail", "cluster", str(error))]
    text = f"{origin(cluster)} says {address}: the run joins that cluster, which answers"
    return [CheckLine("ok", "cluster", text)]


def own_ray_lines() -> list[CheckLine]:
    try:
        _, said = ray_folder()
    except ClusterError as error:
        return [CheckLine("fail", "TMPDIR", str(error))]
    return [CheckLine("warn", "TMPDIR", said)] if said else []
