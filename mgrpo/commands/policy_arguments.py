"""Arguments of the commands that take one of a run's policies: chat, serve, push.

Light to import: heavy packages are imported when a command runs.
"""

from __future__ import annotations

import argparse

from mgrpo.errors import ConfigError, ConfigFault


def add_policy(parser: argparse.ArgumentParser, examples: str) -> None:
    """RUN, whose policy `mgrpo.storage.run_directory.find_policy` finds, and the examples below the
    help."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = examples
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder or name, or the folder of one of its policies"
    )


def add_guidance(parser: argparse.ArgumentParser, unless: str = "") -> None:
    """--guidance N.

    Args:
        unless: when the option is without effect, for its help.
    """
    parser.add_argument(
        "--guidance",
        metavar="N",
        type=int,
        default=0,
        help=f"guidance phrase that opens corrections, from 0{unless}; default: 0",
    )


def refuse_unknown_phrase(guidance: int, num_phrases: int) -> None:
    """Raise ConfigError if no layer has a phrase of this number."""
    if guidance == 0 or 0 <= guidance < num_phrases:
        return
    valid = f"Valid: 0 to {num_phrases - 1}." if num_phrases else "No layer corrects."
    fault = ConfigFault("--guidance", str(guidance), "no such phrase.", valid)
    raise ConfigError([fault], source="the command")
