"""Metrics of the engines' fleet and of the pipeline: who waits for whom, and what was lost."""

from __future__ import annotations

from cluster.monitoring.names import Family

PIPELINE: tuple[Family, ...] = ()
