"""Data files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

from mgrpo.config.data import RowsSource
from mgrpo.data.formats.rows import load_rows
from tests.fuzz.target import Seed, Target


def data_files() -> list[Seed]:
    rows = [{"question": f"What is {n} + 1?", "answer": n + 1.5, "x": {"y": [n]}} for n in range(4)]
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "#### 4"}]
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    seeds = [
        Seed("rows.jsonl", lines),
        Seed("rows.json", json.dumps(rows).encode()),
        Seed("rows.csv", b'question,answer\n"1, 2?",3\n4?,"5"\n6?,\n'),
        Seed("messages.jsonl", json.dumps({"messages": chat, "x": 1}).encode()),
        Seed(
            "verl.json",
            json.dumps([{"prompt": chat[:1], "reward_model": {"ground_truth": "4"}}]).encode(),
        ),
    ]
    return [*seeds, *tables(rows), *packed(lines)]


def tables(rows: list[dict[str, Any]]) -> list[Seed]:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(rows)
    columns, stream = pa.BufferOutputStream(), pa.BufferOutputStream()
    parquet.write_table(table, columns)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    written = [("rows.parquet", columns), ("rows.arrow", stream)]
    return [Seed(name, sink.getvalue().to_pybytes()) for name, sink in written]


def packed(lines: bytes) -> list[Seed]:
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return [Seed(f"rows.jsonl.{suffix}", pack(lines)) for suffix, pack in packers.items()]


def read_data(folder: Path, given: Seed) -> None:
    file = folder / given.name
    file.write_bytes(given.data)
    form = given.name.partition(".")[0]
    source = RowsSource(path=str(file), format=form, metadata_fields="all")
    found = load_rows(source, [], lambda text: None)
    json.dumps([one.metadata for one in found.problems])


TARGETS = (Target("data files", data_files, read_data),)
