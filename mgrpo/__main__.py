"""`python -m mgrpo`."""

import os
import sys

from mgrpo.rooms import ROOMS, current_folder_last

if __name__ == "__main__":
    current_folder_last()  # before anything else is imported: Python puts it first

    try:
        from mgrpo.cli import main

        sys.exit(main())
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ROOMS or os.environ.get("MGRPO_DEBUG"):
            raise
        sys.exit(
            f"error: {sys.executable} has no module {error.name!r}: mgrpo is not installed for it. "
            "A submitted job runs the `python` that is first on the PATH of Ray's nodes: start Ray "
            "there with that of mgrpo's environment. MGRPO_DEBUG=1 shows the import."
        )
