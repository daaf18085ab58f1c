"""Damages valid files by a seeded generator: their bytes, or the values that they hold. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import yaml

from mgrpo.config.yaml_core import dump_yaml, parse_yaml

ODD_VALUES = (
    *("null", "true", "-1", "0", "1", "-0.0", "1.5", "1e999", "-1e999", "NaN", "1e-320"),
    *("9" * 30, "9" * 400, "9" * 5000, "[]", "{}", "[null]", "[[]]", "[1, 2]", '{"a": 1}'),
    *('""', '" "', '"1"', '"NaN"', '"null"', '"\\u0000"', '"\\ud800"', '"\\u202e"', '"é"'),
    *('"../../../outside"', '"/etc/passwd"', '"~nobody"', '"a/b"', '"step-x"', '"s3p5#0"'),
    *('"' + "x" * 70_000 + '"', "[" * 400 + "]" * 400, "[" * 5000 + "]" * 5000),
    '{"a":' * 3000 + "1" + "}" * 3000,
)
"""JSON texts that a reader does not expect."""
ODD_BYTES = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"\x85", b"\x1f\x8b", b"#"),
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"&a ", b"*a", b"<<: ", b"!!int ", b"- ", b"? "),
    *(b"null", b"NaN", b"-1", b"1e999", b"\xc2\xb2", b"../", b"%s", b"\t", b"|", b"'''", b"."),
)

MARK = "odd-value-here"
"""Stands for an odd value until the others are written."""

Container = list[Any] | dict[str, Any]


def mutated(data: bytes, name: str, rng: random.Random) -> bytes:
    """A file's content, damaged in one to three places.

    Args:
        name: the file's; its suffix says whether its values can be changed, or its bytes alone.
    """
    of_values = VALUE_MUTATIONS.get(name.rpartition(".")[2], with_other_bytes)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = (with_other_bytes if rng.random() < 0.4 else of_values)(data, rng)
    return data


def with_other_bytes(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((0, 1, 1, 2, 8, 64, len(data))))
    taken = data[start:stop]
    put = (
        b"",
        taken * 2,
        rng.randbytes(rng.choice((1, 4, 16))),
        bytes([taken[0] ^ 1 << rng.randrange(8)]) + taken[1:] if taken else b"",
        *rng.choices(ODD_BYTES, k=2),
    )
    return data[:start] + rng.choice(put) + data[stop:]


def with_other_value(data: bytes, rng: random.Random) -> bytes:
    """A JSON text with one value, key or entry changed; of what is no JSON the bytes."""
    try:
        whole: list[Any] = [json.loads(data)]
    except (ValueError, RecursionError):
        return with_other_bytes(data, rng)
    with suppress(RecursionError):  # as deep as Python reads, and too deep to go through
        return change_one(whole, rng, json.dumps).encode()
    return with_other_bytes(data, rng)


def with_other_line(data: bytes, rng: random.Random) -> bytes:
    """Lines of JSON with one of them changed, left out or repeated."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    put = rng.choice(
        ([], lines[place : place + 1] * 2, *[[with_other_value(lines[place], rng)]] * 6)
    )
    return b"\n".join([*lines[:place], *put, *lines[place + 1 :]])


def with_other_setting(data: bytes, rng: random.Random) -> bytes:
    """A recipe with one value, key or entry changed; of what is no YAML the bytes."""
    try:
        whole: list[Any] = [parse_yaml(data.decode())]
    except (ValueError, RecursionError, yaml.YAMLError):
        return with_other_bytes(data, rng)
    return change_one(whole, rng, dump_yaml).encode(errors="surrogateescape")


VALUE_MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": with_other_value,
    "jsonl": with_other_line,
    "yaml": with_other_setting,
}


def change_one(whole: list[Any], rng: random.Random, dump: Callable[[Any], str]) -> str:
    """The text of a value, the only entry of a list, after one change somewhere in it."""
    container, key = rng.choice(list(places(whole)))
    written = ""
    match rng.randrange(7):
        case 0 if container is not whole:
            del container[key]
        case 1 if isinstance(container, dict):
            other = rng.choice([*container, "x", "", "step", "a.b", "\0"])
            container[other] = container.pop(key)
        case 2:
            other_container, other_key = rng.choice(list(places(whole)))
            container[key] = json.loads(json.dumps(other_container[other_key]))
        case 3:
            container[key] = slightly_changed(container[key], rng)
        case 4:
            container[key] = [container[key]]
        case _:
            written, container[key] = rng.choice(ODD_VALUES), MARK
    return dump(whole[0]).replace(f'"{MARK}"', written).replace(MARK, written)


def places(container: Container) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value below."""
    entries = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in entries:
        yield container, key
        if isinstance(value, list | dict):
            yield from places(value)


def slightly_changed(value: Any, rng: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            third = value / 3 if abs(value) < 1e300 else value // 3  # no float holds more
            return rng.choice((value + 1, -value, value * 1000, third, str(value)))
        case str():
            changed = with_other_bytes(value.encode(errors="surrogatepass"), rng)
            return changed.decode(errors="surrogateescape")
        case list() | dict() if value:
            return rng.choice((list(value), dict.fromkeys(map(str, value)), type(value)()))
        case _:
            return rng.choice(("", 0, [], {}))
