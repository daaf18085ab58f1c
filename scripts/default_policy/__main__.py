"""Train the default policy, which ships in mgrpo/models/default, and write it to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from scripts.default_policy.warm_start import warm_start

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m scripts.default_policy", description=__doc__)
    parser.add_argument("--output", type=Path, default=SHIPPED_DEFAULT_DIR, metavar="DIR")
    warm_start(parser.parse_args().output)
