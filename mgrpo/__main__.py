"""`python -m mgrpo`."""

import sys

from mgrpo.rooms import current_folder_last

if __name__ == "__main__":
    current_folder_last()  # before anything else is imported: Python puts it first

    from mgrpo.cli import main

    sys.exit(main())
