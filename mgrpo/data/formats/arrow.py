"""Rows of Arrow tables, which Parquet files and the `datasets` library hold, as plain values."""

from __future__ import annotations

from typing import Any

from mgrpo.records.json_object import JsonObject


def plain_rows(table: Any) -> list[JsonObject]:
    """The rows of a `pyarrow.Table` or record batch.

    A 32-bit number is read as it prints: otherwise 0.1 would be 0.10000000149011612, a different
    answer.
    """
    narrow = [field for field in table.schema if holds_narrow_floats(field.type)]
    rows: list[JsonObject] = table.to_pylist()
    for row in rows:
        for field in narrow:
            row[field.name] = widened(row[field.name], field.type)
    return rows


def holds_narrow_floats(kind: Any) -> bool:
    return str(kind) in ("float", "halffloat") or any(
        holds_narrow_floats(kind.field(index).type) for index in range(kind.num_fields)
    )


def widened(value: Any, kind: Any) -> Any:
    """The value with its 16- and 32-bit numbers as their shortest decimals."""
    import pyarrow

    if value is None:
        return None
    if str(kind) in ("float", "halffloat"):
        return float(str(kind.to_pandas_dtype()(value)))
    if pyarrow.types.is_struct(kind):
        return {field.name: widened(value[field.name], field.type) for field in kind}
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return [widened(one, kind.value_type) for one in value]
    return value
