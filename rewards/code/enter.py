"""Enters namespaces of its own, leaves everything outside, and goes on as `inside.py`.

    python -I -S -B enter.py '{"inside": FILE, "readable": [[FOLDER, AS], ...], "parent": PID, ...}'

What is left: the named folders, read-only, a few devices, and an empty folder in memory. There are
no other processes, no network and no /proc. The order is bubblewrap's: a new root is made in memory
beside the old one, and the old one is let go. Needs Linux 5.12, and either root or namespaces for
everyone. As root no namespace of users is needed: after the last mount the process becomes a user
that nobody else is, whose processes the kernel counts.
"""

# pathlib would be imported anew for every program.
# ruff: noqa: PTH102, PTH103, PTH123

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import struct
import sys
from typing import Any, NoReturn

NEW_MOUNTS, NEW_NAMES, NEW_MESSAGES = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    1,
    2,
    4,
    32,
    4096,
    16384,
    1 << 18,
)
DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
MOUNT_SETATTR, PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION = 0x20080522
DEVICES = ("null", "zero", "full", "random", "urandom")
NOBODY, FIRST_UID, NUM_UIDS = 65534, 1_900_000_000, 4_194_304

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    asked = json.loads(sys.argv[1])
    die_with(asked["parent"])
    is_root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    outer = os.getpid()
    spaces = NEW_MOUNTS | NEW_NAMES | NEW_MESSAGES | NEW_PROCESSES | NEW_NETWORK
    call("unshare", spaces if is_root else spaces | NEW_USERS)
    if not is_root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"1000 {uid} 1"),
            ("gid_map", f"1000 {gid} 1"),
        ):
            write(f"/proc/self/{name}", text)
    write("/proc/self/oom_score_adj", "1000")  # first to go where the machine's memory is short
    machine = os.uname().machine
    inside, own = load(asked["inside"]), lonely_uid(outer)
    child = os.fork()
    if child:
        wait_as_parent(child)
    die_with(0)  # in the new namespace the parent has no number
    make_root(asked["readable"], asked["files_mb"], PIVOT_ROOT[machine])
    if is_root:
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)  # capabilities go with it
    else:
        drop_capabilities()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    die_with(0)  # a change of user forgets it
    inside.main(has_own_processes=True)


def call(name: str, *arguments: Any) -> None:
    """A function of libc.

    Raises:
        OSError: it failed.
    """
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def die_with(parent: int) -> None:
    """Be killed when the parent ends, also where it has already."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def wait_as_parent(child: int) -> NoReturn:
    """Hold no pipe, and end with the child."""
    for stream in (0, 1):
        os.close(stream)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def load(file: str) -> Any:
    """`inside.py`, read while it can still be seen."""
    spec = importlib.util.spec_from_file_location("inside", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_root(readable: list[list[str]], files_mb: int, pivot_root: int) -> None:
    """Leave the file system for one that has `readable` and an empty folder, the working one."""
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES, "mode=755,size=1m")
    os.mkdir("/tmp/new")
    os.mkdir("/tmp/old")
    os.chdir("/tmp")
    call("syscall", pivot_root, b".", b"old")
    os.chdir("/")
    for source, folder in readable:
        place = f"/new{folder}"
        os.makedirs(place, exist_ok=True)
        mount(f"/old{source}", place, None, BIND | RECURSIVE)
        seal(place)
    os.mkdir("/new/dev")
    for name in DEVICES:
        os.close(os.open(f"/new/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
        mount(f"/old/dev/{name}", f"/new/dev/{name}", None, BIND)
    os.mkdir("/new/work")
    options = f"mode=777,size={files_mb}m,nr_inodes=1024"
    mount("tmpfs", "/new/work", "tmpfs", NO_SUID | NO_DEVICES, options)
    call("umount2", b"/old", DETACH)
    os.chdir("/new")
    mount("/new", "/new", None, BIND | RECURSIVE)
    os.chdir("/new")
    call("syscall", pivot_root, b".", b".")
    call("umount2", b".", DETACH)
    mount(None, "/", None, REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES)
    os.chdir("/work")


def mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    def text(value: str | None) -> bytes | None:
        return None if value is None else value.encode()

    call("mount", text(source), text(target), text(kind), ctypes.c_ulong(flags), text(options))


def seal(folder: str) -> None:
    """Read-only, with everything that is mounted below."""
    attributes = struct.pack("QQQQ", READ_ONLY | NO_SUID | NO_DEVICES, 0, 0, 0)
    arguments = (AT_FDCWD, folder.encode(), AT_RECURSIVE, attributes, len(attributes))
    call("syscall", MOUNT_SETATTR, *arguments)


def lonely_uid(outer: int) -> int:
    """A user that no other process is: the kernel counts processes by user."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        first, _, count = map(int, file.readline().split())
    wanted = FIRST_UID + outer % NUM_UIDS
    return wanted if first <= wanted < first + count else NOBODY


def drop_capabilities() -> None:
    """Those that the new namespace of users gave."""
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    call("capset", header, struct.pack("IIIIII", 0, 0, 0, 0, 0, 0))


def write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as opened:
        opened.write(text)


if __name__ == "__main__":
    main()
