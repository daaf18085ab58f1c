"""Problems from a data set that the `datasets` library loads: a hub name or a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgrpo.config.data import HuggingFaceSource
from mgrpo.errors import DataError, HubUnreachable
from mgrpo.hub import is_hub_reachable, use_cache_only
from mgrpo.sources.rows import LoadedData, add_row, check_columns


def load_huggingface(source: HuggingFaceSource) -> LoadedData:
    """The split's problems.

    Raises:
        DataError: the data set cannot be loaded, or lacks a column.
        HubUnreachable: it is on a hub that does not answer, and not in the cache.
    """
    rows = load_rows(source)
    check_columns(list(rows.column_names), source, where=f"{source.path} ({source.split})")
    if source.max_rows is not None:
        rows = rows.select(range(min(source.max_rows, len(rows))))
    data = LoadedData()
    name = source.path.rstrip("/").split("/")[-1].replace("#", "_")
    for number, row in enumerate(rows):
        add_row(
            data,
            dict(row),
            source,
            problem_id=f"{name}/{source.split}/{number}",
            where=f"row {number}",
        )
    if not data.problems:
        raise DataError(
            f"{source.path} ({source.split}) holds no problem: "
            f"{data.describe_dropped() or 'the split is empty'}."
        )
    return data


def load_rows(source: HuggingFaceSource) -> Any:
    """The split as a `datasets.Dataset`."""
    is_local = Path(source.path).expanduser().exists()
    if not is_local and not is_hub_reachable():
        use_cache_only()  # else the library retries for minutes
    import datasets  # 1 s, and only wanted here

    datasets.disable_progress_bars()
    path = str(Path(source.path).expanduser()) if is_local else source.path
    try:
        if is_local and (Path(path) / "state.json").exists():
            rows = datasets.load_from_disk(path)
        elif is_local and (Path(path) / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(path)[source.split]
        else:
            rows = datasets.load_dataset(path, source.subset, split=source.split)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        if not is_local and not is_hub_reachable():
            raise HubUnreachable(f"The data set {source.path}", "its path") from error
        raise DataError(loading_failed(source, error, is_local)) from error
    return rows


def loading_failed(source: HuggingFaceSource, error: Exception, is_local: bool) -> str:
    what = f"split {source.split!r}"
    what += f" of subset {source.subset!r}" if source.subset else ""
    reason = " ".join(str(error).split())[:400]
    message = f"Cannot load {what} of the data set {source.path!r}: {reason}. "
    if is_local:
        return message + "Check path, subset and split in the recipe."
    return message + "Check path, subset and split, and whether it needs a login (HF_TOKEN)."
