"""The sockets that a process and all below it listen at."""

from __future__ import annotations

import ipaddress

import psutil


def listening(pid: int) -> set[tuple[int, str]]:
    """(process, address) of each."""
    root = psutil.Process(pid)
    tree = {root.pid, *(child.pid for child in root.children(recursive=True))}
    return {
        (one.pid, one.laddr.ip.removeprefix("::ffff:"))
        for one in psutil.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN and one.pid in tree
    }


def reached_from_outside(pid: int) -> list[str]:
    """Those that other machines reach: the process's command line and the address."""
    return [
        f"{' '.join(psutil.Process(owner).cmdline())[:100]} at {address}"
        for owner, address in listening(pid)
        if not ipaddress.ip_address(address).is_loopback
    ]
