"""An S3 server on the loopback address, one for all tests of a session."""

from __future__ import annotations

import contextlib
import logging

import pytest


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server on the loopback, with an empty bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: make extras")
    server_module = pytest.importorskip(
        "moto.server", reason="moto's server is not installed: make extras"
    )
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
