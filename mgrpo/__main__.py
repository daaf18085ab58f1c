"""`python -m mgrpo`."""

import sys

from mgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
