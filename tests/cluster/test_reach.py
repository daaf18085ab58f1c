"""A cluster that is named and does not answer is said within the recipe's deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from cluster.reach import await_cluster, open_to_all
from mgrpo.config import ClusterConfig
from mgrpo.errors import ClusterError

CONNECT_S = 2.0


def config(address: str = "auto") -> ClusterConfig:
    return ClusterConfig.model_validate({"address": address, "deadlines": {"connect_s": CONNECT_S}})


@pytest.fixture
def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and says nothing, as a wrong service or a proxy may."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


def refusal(given: ClusterConfig) -> str:
    began = time.monotonic()
    with pytest.raises(ClusterError) as refused:
        await_cluster(given)
    assert time.monotonic() - began < CONNECT_S + 4
    return str(refused.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens(free_port: int, monkeypatch, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    text = refusal(config())
    assert f"Cannot connect to the Ray cluster at '{address}' (from RAY_ADDRESS)" in text
    assert "refused" in text and f"connect_s is {CONNECT_S:g}" in text
    assert "unset RAY_ADDRESS" in text


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_something_else_listens(mute_port: int, scheme: str) -> None:
    text = refusal(config(f"{scheme}127.0.0.1:{mute_port}"))
    assert "(from cluster.address)" in text and "unset" not in text
    assert "accepts connections, but does not answer as Ray does" in text


def test_a_host_without_an_address() -> None:
    assert "the name no-such-host.invalid cannot be resolved" in refusal(
        config("no-such-host.invalid:6379")
    )


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "http:/x:1", "head:port"])
def test_what_is_no_address(address: str) -> None:
    assert "that is not an address of the form HOST:PORT" in refusal(config(address))


def test_the_address_of_a_job_server_is_told_apart(monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    text = refusal(config())
    assert "RAY_ADDRESS is http://127.0.0.1:8265" in text and "mgrpo submit" in text


@pytest.mark.parametrize(
    ("address", "variable", "joins"),
    [
        ("auto", None, None),
        ("auto", "", None),
        ("auto", "local", None),
        ("auto", "auto", "auto"),
        ("auto", "head:6379", "head:6379"),
        ("local", "head:6379", None),
        ("other:6379", "head:6379", "other:6379"),
    ],
)
def test_where_a_run_goes(address: str, variable: str | None, joins: str | None, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert config(address).joins == joins
    assert config(address).starts_ray == (joins is None)


@pytest.mark.parametrize("head", ["10.0.0.5:6379", "ray://head.cluster:10001", "[fd00::5]:6379"])
def test_a_cluster_without_a_token_is_warned_of(head: str) -> None:
    said = open_to_all(head, {"RAY_AUTH_MODE": "disabled"})
    assert said == open_to_all(head, {}) != ""
    assert head in said and "RAY_AUTH_MODE=token" in said
    assert open_to_all(head, {"RAY_AUTH_MODE": "token"}) == ""


@pytest.mark.parametrize("head", ["127.0.0.2:6379", "ray://localhost:10001", "[::1]:6379"])
def test_one_that_no_other_machine_reaches_is_not(head: str) -> None:
    assert open_to_all(head, {}) == ""
