"""Checks that a Ray cluster answers: `python -P gcs_probe.py ADDRESS DEADLINE_S`.

The exit code is 0 if it answers. It runs in its own process, because Ray's clients retry for
minutes and cannot be interrupted: the caller ends it at its deadline, and reads the reason from its
last printed line.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable

TCP_S = 5.0
CLIENT = "ray://"
HOST_AND_PORT = re.compile(r"\[?(?P<host>[^\[\]/]+)\]?:(?P<port>\d{1,5})")


def main(address: str, deadline_s: float) -> int:
    where = address.removeprefix(CLIENT)
    if where != "auto":
        parts = HOST_AND_PORT.fullmatch(where)
        if parts is None:
            say("that is not an address of the form HOST:PORT")
            return 1
        look(parts["host"], int(parts["port"]))
    ask = ask_client_server if address.startswith(CLIENT) else ask_gcs
    return 0 if answers(lambda: ask(where, deadline_s)) else 1


def look(host: str, port: int) -> None:
    """Find out what listens at the port, before Ray's clients hide it."""
    try:
        with socket.create_connection((host, port), timeout=TCP_S):
            say(f"something at {host}:{port} accepts connections, but does not answer as Ray does")
    except socket.gaierror:
        say(f"the name {host} cannot be resolved")
    except (OSError, OverflowError) as error:
        say(f"{host}:{port}: {getattr(error, 'strerror', None) or error}")


def answers(ask: Callable[[], None]) -> bool:
    from ray.exceptions import AuthenticationError, RpcError  # a second, and more where it is busy

    while True:
        try:
            ask()
        except AuthenticationError:
            return True  # connecting shows its authentication error
        except RpcError:
            continue
        except (ConnectionError, ValueError) as error:  # such as "auto" where nothing runs
            say(str(error))
            return False
        return True


def ask_gcs(address: str, deadline_s: float) -> None:
    import ray
    from ray._private import services

    found = services.canonicalize_bootstrap_address_or_die(address)
    ray._raylet.GcsClient(address=found).internal_kv_get(b"mgrpo", None, timeout=deadline_s)


def ask_client_server(address: str, deadline_s: float) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=deadline_s)


def say(text: str) -> None:
    print(" ".join(text.split()), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
