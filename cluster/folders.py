"""Folders that libraries need: HOME, TMPDIR, and a folder with a short path for sockets.

Ray, vLLM, the Hugging Face libraries and our own cache keep files below HOME, Ray's sockets lie
in its temporary folder. On clusters and in containers HOME may not exist, and TMPDIR may be too
long for a socket. No Ray here: the command line reads this first.
"""

from __future__ import annotations

import getpass
import os
import pwd
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from mgrpo.errors import ClusterError

SOCKET_BYTES = 107
"""Longest path of a Unix socket, in bytes: Linux reserves 108, including the final 0."""
RAY_SOCKET = "/session_2026-11-28_10-15-02_123456_4194304/sockets/dash_TaskEventsHead"
"""The longest path that Ray 2.60 with its dashboard appends to its temporary folder."""
RAY_PREFIX, RAY_SUBFOLDER = "mgrpo-ray-", "r"
"""Ray makes its temporary folder accessible to all users: it gets one inside a private folder."""
ENGINE_PREFIX = "mgrpo-engine-"
"""Of the temporary folder of an engine's actor."""
FOLDER_BYTES = SOCKET_BYTES - len(f"/{RAY_PREFIX}12345678/{RAY_SUBFOLDER}{RAY_SOCKET}")
"""Longest folder that Ray's own folder may be made in, in bytes."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/run/shm", "/dev/shm")


def settle_home(environment: MutableMapping[str, str] = os.environ) -> str:
    """Give this process and its children a writable HOME and a user name.

    Returns:
        A message for the user; "" if nothing was changed.

    Raises:
        ClusterError: there is no place for it.
    """
    given = environment["HOME"] if "HOME" in environment else listed_home()
    fault = fault_of_folder(given)
    said = ""
    if fault:
        given = str(own_folder(f"mgrpo-home-{os.getuid()}"))
        shown = (
            f"HOME={environment['HOME']}" if "HOME" in environment else "HOME, which is not set,"
        )
        said = (
            f"{shown} {fault}: caches, prepared models and Ray's token are kept in {given} "
            "instead. Set HOME to a writable folder to keep them."
        )
    environment["HOME"] = given  # where it is not set, Ray's C++ would not find it
    try:
        getpass.getuser()
    except (KeyError, OSError):  # no variable and no entry in the system's list of users
        environment["USER"] = f"uid-{os.getuid()}"
    return said


def check_current_folder() -> None:
    """Raise ClusterError if the current folder no longer exists."""
    try:
        Path.cwd()
    except OSError as error:
        raise ClusterError(
            f"The current folder cannot be used ({error.strerror}): it may have been deleted since "
            "this shell entered it. Change to another folder, or `cd` to the same path again."
        ) from error


def listed_home() -> str:
    """This user's home folder from the system's user list; "" for a user that is not listed."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def fault_of_folder(path: str) -> str:
    """Why a folder cannot be written to, as the end of a sentence; "" if it can."""
    if not path:
        return "is empty"
    if not Path(path).is_absolute():
        return "is no absolute path"
    try:
        if not Path(path).exists():
            return "does not exist"
        with tempfile.TemporaryFile(dir=path):
            return ""
    except OSError as error:
        return f"cannot be written to ({error.strerror})"


def own_folder(name: str) -> Path:
    """A private folder inside the temporary one, the same each time.

    Raises:
        ClusterError: it cannot be made, or belongs to another user.
    """
    try:
        folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise ClusterError(
            f"No folder for temporary files can be made: {error}. Set TMPDIR."
        ) from error
    if folder.is_symlink() or facts.st_uid != os.getuid():
        raise ClusterError(
            f"{folder} is not a folder of this user. Set HOME, or remove that folder."
        )
    return folder


def check_tmpdir(environment: MutableMapping[str, str] = os.environ) -> None:
    """Raise ClusterError if TMPDIR names no writable folder.

    Python would silently take another one, other programs would fail one by one.
    """
    given = environment.get("TMPDIR")
    if given and (fault := fault_of_folder(given)):
        raise ClusterError(
            f"TMPDIR={given} {fault}. Make that folder (mkdir -p), name another one, or unset "
            "TMPDIR; it needs a disk with free space."
        )


def ray_folder() -> tuple[Path, str]:
    """The parent of Ray's temporary folder, and a note about it.

    Returns:
        The temporary folder and "", or a shorter one with a line that says why.

    Raises:
        ClusterError: TMPDIR cannot be used, or is too long and no other folder is available.
    """
    check_tmpdir()
    usual = tempfile.gettempdir()
    if is_short(usual):
        return Path(usual), ""
    short = short_folders()
    why = (
        f"TMPDIR ({usual}) has {len(os.fsencode(usual))} bytes; a Unix socket's path may have "
        f"{SOCKET_BYTES} in all, which leaves {FOLDER_BYTES} for the folder that Ray is given"
    )
    if not short:
        tried = ", ".join(SHORT_FOLDERS)
        raise ClusterError(
            f"{why}. None of {tried} is writable either. Set TMPDIR to a shorter path, such as a "
            "symbolic link to that folder."
        )
    return Path(short[0]), f"{why}: its sockets and logs are in {short[0]} while the run lasts"


def short_folders() -> Sequence[str]:
    """The usual folders for temporary files that are short enough and writable."""
    candidates = [*SHORT_FOLDERS, os.environ.get("XDG_RUNTIME_DIR", "")]
    return [one for one in candidates if is_short(one) and not fault_of_folder(one)]


def is_short(folder: str) -> bool:
    return len(os.fsencode(folder)) <= FOLDER_BYTES
