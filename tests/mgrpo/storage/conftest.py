"""Storage of every form that can be had on one machine."""

from __future__ import annotations

import uuid

import pytest

from mgrpo.config import StorageConfig
from mgrpo.storage.files import Storage

QUICK = {"attempts": 3, "backoff_s": 0.01, "deadline_s": 20}


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.storage)])
def base_url(request, tmp_path):
    """An URL under which nothing is yet."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    request.getfixturevalue("s3_server")
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def storage(base_url):
    return Storage(base_url, StorageConfig(**QUICK))
