"""Rows of a data set that the `datasets` library loads: of the hub, saved on disk, or a folder that
is divided into splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mgrpo.config.data import RowsSource
from mgrpo.data.formats.arrow import plain_rows
from mgrpo.data.formats.files import Row, missing_file
from mgrpo.errors import DataError, HubUnreachable
from mgrpo.models.hub import is_hub_reachable, use_cache_only

SAVED_SET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""Files of the folders that `save_to_disk` writes: of one split, and of several."""
SCRIPT = "Dataset scripts are no longer supported"
BATCH_ROWS = 1000


def split_of(source: RowsSource) -> str:
    return source.split or "train"


def missing_path(path: Path) -> str:
    return f"{missing_file(path)} (A name on the Hugging Face hub is like openai/gsm8k.)"


def split_rows(source: RowsSource) -> Iterator[Row]:
    """The rows of the split.

    Raises:
        DataError: whatever the library raises.
        HubUnreachable: the hub does not answer, and the data set is not in the cache.
    """
    is_local = Path(source.path).expanduser().exists()
    name = source.path.rstrip("/").split("/")[-1].replace("#", "_")
    number = 0
    try:
        for batch in load_split(source, is_local=is_local):
            for row in plain_rows(batch):
                where = f"row {number}"
                yield Row(value=row, where=where, number=number, stem=f"{name}/{split_of(source)}")
                number += 1
    except Exception as error:  # loaders raise many types: RuntimeError, ArrowInvalid, ...
        if not is_local and not is_hub_reachable() and SCRIPT not in str(error):
            if len(Path(source.path).parts) > 1 and Path(source.path).parent.is_dir():
                raise DataError(missing_path(Path(source.path))) from error
            raise HubUnreachable(f"The data set {source.path}", "its path") from error
        raise DataError(loading_failed(source, error, is_local)) from error


def load_split(source: RowsSource, *, is_local: bool) -> Iterator[object]:
    """The split as Arrow tables."""
    if not is_local and not is_hub_reachable():
        use_cache_only()  # otherwise the library retries for minutes
    import datasets  # takes 1 s, and is only needed here

    datasets.disable_progress_bars()
    path = str(Path(source.path).expanduser()) if is_local else source.path
    if is_local and (Path(path) / SAVED_SET).exists():
        rows = datasets.load_from_disk(path)
    elif is_local and (Path(path) / SAVED_SPLITS).exists():
        rows = datasets.load_from_disk(path)[split_of(source)]
    else:
        options: dict[str, object] = {}
        if is_local and datasets.load_dataset_builder(path, source.subset).name == "csv":
            # As written: "007" is not 7, and "None" may be an answer.
            columns = (source.question_field, *source.answer_fields)
            options = {"converters": dict.fromkeys(columns, str), "keep_default_na": False}
        rows = datasets.load_dataset(path, source.subset, split=split_of(source), **options)
    yield from rows.with_format("arrow").iter(batch_size=BATCH_ROWS)


def loading_failed(source: RowsSource, error: Exception, is_local: bool) -> str:
    what = f"split {split_of(source)!r}"
    what += f" of subset {source.subset!r}" if source.subset else ""
    reason = " ".join(str(error).split())[:400] or type(error).__name__
    message = f"Cannot load {what} of the data set {source.path!r}: {reason}. "
    if SCRIPT in reason:
        return message + (
            "Data sets with a loading script are not supported. Use a Parquet version of it (many "
            "hub data sets have one on the branch refs/convert/parquet), or run its script with an "
            "older `datasets`, save the rows with to_json or to_parquet, and "
            "give that file as path."
        )
    if is_local:
        return message + (
            "Check path, subset and split in the recipe. Without subset and split the files of a "
            "folder are read directly."
        )
    return message + "Check path, subset and split, and whether it requires HF_TOKEN."
