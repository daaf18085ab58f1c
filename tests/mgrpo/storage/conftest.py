"""Storage of every form that can be had on one machine."""

from __future__ import annotations

import contextlib
import uuid

import pytest

from mgrpo.config import StorageConfig
from mgrpo.storage import Storage

QUICK = {"attempts": 3, "backoff_s": 0.01, "deadline_s": 20}


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server on the loopback, with an empty bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: make storage")
    server_module = pytest.importorskip(
        "moto.server", reason="moto's server is not installed: make storage"
    )
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_environment(address).items():
            environment.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        yield address
    with contextlib.suppress(Exception):  # moto waits for its thread, which may be gone
        server.stop()


def s3_environment(address: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }


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
