"""`mgrpo keys WORD...`: the keys of a recipe that words name, with values, default and meaning.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from mgrpo.errors import ConfigError, ConfigFault


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo keys` to its parser."""
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="parts of a key's path or meaning, such as learning rate; or another system's name of "
        "it, such as beta. All must occur; without any, all keys are listed",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run_command=run_keys)


def run_keys(args: argparse.Namespace) -> int:
    from mgrpo.config.explain import SYNONYMS

    said = {word: SYNONYMS[word.lower()] for word in args.words if word.lower() in SYNONYMS}
    found = [one for one in all_keys() if is_in(args.words, f"{one['key']} {one['meaning']}")]
    found.sort(key=lambda one: not is_in(args.words, one["key"]))
    if not (found or said):
        words = " ".join(args.words)
        reason = "no key's path or meaning has these words. `mgrpo keys` alone lists all keys."
        raise ConfigError([ConfigFault("words", words, reason)], source="mgrpo keys")
    if args.json:
        print(json.dumps({"elsewhere": said, "keys": found}, indent=2, ensure_ascii=False))
        return 0
    for word, here in said.items():
        print(f"{word} of other systems: {here}\n")
    for one in found:
        default = f", default {one['default']}" if one["default"] else ""
        default = ", needed" if one["default"] == "needed" else default
        print(f"{one['key']}: {one['values']}{default}")
        if one["meaning"]:
            print(f"    {one['meaning']}")
    return 0


def all_keys() -> list[dict[str, str]]:
    """Each key's path (N stands for a place in a list), values, default and meaning.

    A path occurs several times where kinds of a slot or a layer have different keys of one name.
    """
    from mgrpo.config.key_list import all_sections, kind

    facts = (
        (f"{section.path}.{key.name}".lstrip("."), kind(key.spec), key.default, key.meaning)
        for section in all_sections()
        for key in section.keys
    )
    names = ("key", "values", "default", "meaning")
    return [dict(zip(names, one, strict=True)) for one in dict.fromkeys(facts)]


def is_in(words: Sequence[str], text: str) -> bool:
    """Whether all the words occur, however they are joined: learning_rate has learning rate."""
    plain = text.lower().replace("_", " ")
    return all(word.lower().replace("_", " ") in plain for word in words)
