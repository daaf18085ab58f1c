"""Network addresses of this process and its node."""

from __future__ import annotations

import socket

import ray


def own_address() -> str:
    """The address of this node, as Ray knows it; a loopback address under a local Ray."""
    return str(ray.util.get_node_ip_address())


def own_node() -> str:
    """Ray's id of this node: the same for all processes on it, and for those alone."""
    return str(ray.get_runtime_context().get_node_id())


def free_port() -> int:
    """A free port of this node."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((own_address(), 0))
        return int(server.getsockname()[1])
