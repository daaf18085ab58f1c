"""Problems from a data set that the `datasets` library loads (a hub name or a local folder), or
from a single local file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mgrpo.config.data import HuggingFaceSource
from mgrpo.data.formats.arrow import plain_rows
from mgrpo.data.formats.files import Row, has_data_suffix, missing_file, read_file
from mgrpo.data.formats.rows import LoadedData, problems_of
from mgrpo.errors import DataError, HubUnreachable
from mgrpo.models.hub import is_hub_reachable, use_cache_only

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")  # "gsm8k", "openai/gsm8k"
SCRIPT = "Dataset scripts are no longer supported"
BATCH_ROWS = 1000


def load_huggingface(source: HuggingFaceSource) -> LoadedData:
    """The split's problems.

    Raises:
        DataError: the data set cannot be loaded, or lacks a column.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        refuse_splits(source)
        rows = read_file(path)
    elif not path.exists() and is_local_path(source.path):
        raise DataError(missing_path(path))
    else:
        rows = split_rows(source)
    where = f"{source.path} ({source.split})"
    return problems_of(islice(rows, source.max_rows), source, where=where, kind="split")


def is_local_path(path: str) -> bool:
    """Whether a text cannot be a hub name: its form is that of a file or folder."""
    return HUB_NAME.fullmatch(path) is None or has_data_suffix(Path(path))


def missing_path(path: Path) -> str:
    return f"{missing_file(path)} (A name on the Hugging Face hub is like openai/gsm8k.)"


def refuse_splits(source: HuggingFaceSource) -> None:
    for key, value, only in (("split", source.split, "train"), ("subset", source.subset, None)):
        if value != only:
            raise DataError(
                f"{source.path} is a single file, which has no {key} {value!r}: leave {key} out. "
                "max_rows reads its first rows; other splits are files of their own."
            )


def split_rows(source: HuggingFaceSource) -> Iterator[Row]:
    """The rows of the split; any error of the library becomes a DataError."""
    is_local = Path(source.path).expanduser().exists()
    name = source.path.rstrip("/").split("/")[-1].replace("#", "_")
    number = 0
    try:
        for batch in load_split(source, is_local=is_local):
            for row in plain_rows(batch):
                where = f"row {number}"
                yield Row(value=row, where=where, number=number, stem=f"{name}/{source.split}")
                number += 1
    except Exception as error:  # loaders raise many types: RuntimeError, ArrowInvalid, ...
        if not is_local and not is_hub_reachable() and SCRIPT not in str(error):
            if len(Path(source.path).parts) > 1 and Path(source.path).parent.is_dir():
                raise DataError(missing_path(Path(source.path))) from error
            raise HubUnreachable(f"The data set {source.path}", "its path") from error
        raise DataError(loading_failed(source, error, is_local)) from error


def load_split(source: HuggingFaceSource, *, is_local: bool) -> Iterator[object]:
    """The split as Arrow tables."""
    if not is_local and not is_hub_reachable():
        use_cache_only()  # otherwise the library retries for minutes
    import datasets  # takes 1 s, and is only needed here

    datasets.disable_progress_bars()
    path = str(Path(source.path).expanduser()) if is_local else source.path
    if is_local and (Path(path) / "state.json").exists():
        rows = datasets.load_from_disk(path)
    elif is_local and (Path(path) / "dataset_dict.json").exists():
        rows = datasets.load_from_disk(path)[source.split]
    else:
        options: dict[str, object] = {}
        if is_local and datasets.load_dataset_builder(path, source.subset).name == "csv":
            # As written: "007" is not 7, and "None" may be an answer.
            columns = (source.question_field, source.answer_field)
            options = {"converters": dict.fromkeys(columns, str), "keep_default_na": False}
        rows = datasets.load_dataset(path, source.subset, split=source.split, **options)
    yield from rows.with_format("arrow").iter(batch_size=BATCH_ROWS)


def loading_failed(source: HuggingFaceSource, error: Exception, is_local: bool) -> str:
    what = f"split {source.split!r}"
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
            "Check path, subset and split in the recipe. With source: jsonl the files of a folder "
            "are read directly."
        )
    return message + "Check path, subset and split, and whether it requires HF_TOKEN."
