"""Files of a rank's own node, for a driver on another one that shares no folder with it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cluster.address import own_node

PREFIX = "mgrpo-"  # of every folder that is made here, and of all that may be deleted here


def sizes_below(folder: str | Path) -> dict[str, int]:
    """Name -> bytes of every file in and below a folder."""
    root = Path(folder)
    return {
        file.relative_to(root).as_posix(): file.stat().st_size
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


class NodeFiles:
    """What the driver asks a rank to do with files; see learner/rank_files.py."""

    def node(self) -> str:
        """The same for all processes of one node, and for those alone."""
        return own_node()

    def sees(self, marker: str, content: str) -> bool:
        """Whether the file that the driver has just written is here too."""
        try:
            return Path(marker).read_text(encoding="utf-8") == content
        except OSError:
            return False

    def make_folder(self, name: str) -> str:
        """An empty folder in this node's temporary one ($TMPDIR)."""
        folder = Path(tempfile.gettempdir()) / f"{PREFIX}{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return str(folder)

    def list_files(self, folder: str) -> dict[str, int]:
        return sizes_below(folder)

    def read_part(self, file: str, start: int, num_bytes: int) -> bytes:
        with Path(file).open("rb") as opened:
            opened.seek(start)
            return opened.read(num_bytes)

    def append_part(self, file: str, content: bytes) -> None:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as opened:
            opened.write(content)

    def remove_folder(self, folder: str) -> None:
        assert Path(folder).name.startswith(PREFIX), folder
        shutil.rmtree(folder, ignore_errors=True)
