"""Rows of benchmarks whose question or answer is in no single column: GPQA and LiveCodeBench.

Each is turned into a row with question and answer before its columns are read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mgrpo.config.data import Format
from mgrpo.data.formats.chats import UnfitRow
from mgrpo.data.formats.files import Row
from mgrpo.records.json_object import JsonObject

LETTERS = "ABCD"
RIGHT, WRONG = "Correct Answer", [f"Incorrect Answer {number}" for number in (1, 2, 3)]
MOST_TEST_BYTES = 2**30
READS_INPUT = "The program reads standard input and writes standard output."


def prepared(row: Row, format: Format) -> Row:
    """The row as the format's columns are read; unchanged for most formats.

    Raises:
        UnfitRow: it lacks a column, or has one that cannot be read.
    """
    prepare = PREPARE.get(format)
    if prepare is None or row.fault or not isinstance(row.value, dict):
        return row
    try:
        return replace(row, value=prepare(row.value))
    except KeyError as error:
        raise UnfitRow(f"without the column {error.args[0]!r}") from error


def multiple_choice(columns: JsonObject) -> JsonObject:
    """A row of GPQA (arXiv 2311.12022) as a question with four options and the right one's letter.

    The options are in an order of their own in each row, which depends on its text alone: it is the
    same in every run and on every machine, whatever rows are read before it.
    """
    question = str(columns["Question"]).strip()
    right, *wrong = (str(columns[name]).strip() for name in (RIGHT, *WRONG))
    options = sorted([right, *wrong], key=lambda option: digest(question, option))
    listed = "\n".join(f"({letter}) {one}" for letter, one in zip(LETTERS, options, strict=True))
    return {
        **columns,
        "question": f"{question}\n\n{listed}",
        "answer": LETTERS[options.index(right)],
    }


def digest(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode(errors="replace")).digest()


def programming_task(columns: JsonObject) -> JsonObject:
    """A row of LiveCodeBench (arXiv 2403.07974) as a question, with all its tests in our form.

    Public tests are JSON; private ones JSON, or its text pickled, packed by zlib and in base64.
    """
    starter = str(columns.get("starter_code") or "").strip()
    wanted = f"Begin with this code:\n```python\n{starter}\n```" if starter else READS_INPUT
    try:
        function = (json.loads(columns["metadata"] or "{}") or {}).get("func_name")
        tests = [
            *json.loads(columns["public_test_cases"]),
            *json.loads(private_tests(columns["private_test_cases"])),
        ]
        in_our_form = [code_test(one, function) for one in tests]
    except (ValueError, TypeError, AttributeError, pickle.UnpicklingError, zlib.error) as error:
        raise UnfitRow(f"with tests that cannot be read ({type(error).__name__})") from error
    return {
        **columns,
        "question": f"{str(columns['question_content']).strip()}\n\n{wanted}",
        "tests": in_our_form,
    }


def private_tests(text: str) -> str:
    """The JSON text of the private tests.

    Raises:
        ValueError, pickle.UnpicklingError, zlib.error: it is in neither form.
    """
    if text.lstrip().startswith("["):
        return text
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    data = zlib.decompressobj().decompress(packed, MOST_TEST_BYTES)
    return str(PlainUnpickler(io.BytesIO(data)).load())


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values; a pickle that names a class or a function is refused, so none can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")


def code_test(test: JsonObject, function: str | None) -> JsonObject:
    """One test as `code_answer` reads it.

    Raises:
        ValueError: it calls a function that has no name.
    """
    if test["testtype"] == "stdin":
        return {"input": test["input"], "output": test["output"]}
    if not function:
        raise ValueError("a test calls a function, and metadata has no func_name")
    arguments = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
    return {"function": function, "arguments": arguments, "output": json.loads(test["output"])}


PREPARE: Mapping[Format, Callable[[JsonObject], JsonObject]] = MappingProxyType(
    {"gpqa": multiple_choice, "livecodebench": programming_task}
)
