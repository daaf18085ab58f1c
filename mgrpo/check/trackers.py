"""Checks the requirements of the recipe's trackers, without starting them."""

from __future__ import annotations

import netrc
import os
from collections.abc import Sequence
from urllib.parse import urlparse

from mgrpo.config import MlflowConfig, TrackerConfig, WandbConfig
from mgrpo.findings import CheckLine
from mgrpo.trackers.group import missing_package

WANDB_SERVER = "https://api.wandb.ai"


def tracker_lines(trackers: Sequence[TrackerConfig]) -> list[CheckLine]:
    """A line for each tracker with an error, or one line that names them all."""
    lines = []
    for tracker in trackers:
        if missing := missing_package(tracker.use):
            lines.append(CheckLine("fail", "trackers", missing))
        elif doubt := missing_access(tracker):
            lines.append(CheckLine("warn", "trackers", doubt))
    if lines or not trackers:
        return lines
    return [CheckLine("ok", "trackers", ", ".join(map(described, trackers)))]


def described(tracker: TrackerConfig) -> str:
    is_offline = getattr(tracker, "offline", False)
    return f"{tracker.use} (offline, in the run's directory)" if is_offline else tracker.use


def missing_access(tracker: TrackerConfig) -> str:
    """A missing requirement of the tracker; "" if none is known."""
    if isinstance(tracker, WandbConfig):
        return "" if tracker.offline else missing_wandb_key()
    if isinstance(tracker, MlflowConfig) and not tracker.offline:
        if tracker.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
            return ""
        return (
            "mlflow has no server: set its tracking_uri in output.trackers, MLFLOW_TRACKING_URI "
            "in the environment, or its offline: true."
        )
    return ""


def missing_wandb_key() -> str:
    """W&B takes its key from the environment or from ~/.netrc, where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return ""
    host = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_SERVER)).hostname or ""
    try:
        is_known = netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        is_known = False
    if is_known:
        return ""
    return (
        f"no API key of Weights & Biases for {host} was found. Run `wandb login`, set "
        "WANDB_API_KEY, or set its offline: true in output.trackers."
    )
