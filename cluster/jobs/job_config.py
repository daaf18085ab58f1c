"""Facts about the Ray job whose driver this process is. Imports no Ray: it is read early."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in a job's driver


def is_in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Is this process the driver of a job that was submitted to a cluster?"""
    return JOB_CONFIG_VARIABLE in environment


def job_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that the job was submitted with; none outside of a job."""
    job = json.loads(environment.get(JOB_CONFIG_VARIABLE, "{}"))
    return dict((job.get("runtime_env") or {}).get("env_vars") or {})
