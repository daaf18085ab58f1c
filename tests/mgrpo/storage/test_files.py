import sys
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile
from fsspec.registry import known_implementations

from mgrpo.config import StorageConfig
from mgrpo.errors import StorageError
from mgrpo.storage import files as storage_module
from mgrpo.storage.files import Storage, is_url, local_folder_of

QUICK = StorageConfig(attempts=3, backoff_s=0.01, deadline_s=20)


def test_files_come_back_as_they_went(storage, tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "shard.bin").write_bytes(content)
    storage.put(tmp_path / "shard.bin", "checkpoints/step-1/shard.bin")
    assert storage.find() == {"checkpoints/step-1/shard.bin": len(content)}
    assert storage.find("checkpoints") == storage.find()
    assert storage.read("checkpoints/step-1/shard.bin") == content
    storage.get("checkpoints/step-1/shard.bin", tmp_path / "back" / "shard.bin")
    assert (tmp_path / "back" / "shard.bin").read_bytes() == content
    assert [file.name for file in (tmp_path / "back").iterdir()] == ["shard.bin"]


def test_a_file_is_replaced_removed_and_missed_without_fuss(storage, tmp_path):
    file = tmp_path / "metrics.jsonl"
    for text in ("one", "one and two"):
        file.write_text(text)
        storage.put(file, "metrics.jsonl")
    assert storage.read("metrics.jsonl") == b"one and two"
    storage.remove("metrics.jsonl")
    storage.remove("metrics.jsonl")
    assert storage.find() == {} and storage.find("checkpoints") == {}


@pytest.mark.parametrize("name", ["checkpoints/step-000010/../../../x", "../x", "/x"])
def test_a_name_that_leads_out_of_the_run_is_refused(name):
    storage = Storage("memory://hostile/run", QUICK)
    path = f"{storage.root}/{name}"
    storage.files.store[path] = MemoryFile(storage.files, path, b"x")
    try:
        with pytest.raises(StorageError, match=r"written outside the run's folder"):
            storage.find()
    finally:
        del storage.files.store[path]


def test_a_missing_file_is_an_error_that_names_its_url_and_is_not_tried_again(storage):
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"Cannot read .*nothing\.txt: FileNotFoundError"):
        storage.read("nothing.txt")
    assert time.monotonic() - began < 10


def test_a_connection_that_fails_is_tried_again_with_growing_pauses(monkeypatch, tmp_path):
    storage = Storage("memory://flaky", StorageConfig(attempts=4, backoff_s=0.5))
    pauses, calls = [], []
    monkeypatch.setattr(storage_module.time, "sleep", pauses.append)

    def flaky(path):
        calls.append(path)
        if len(calls) < 4:
            raise ConnectionResetError("peer went away")
        return b"here"

    monkeypatch.setattr(storage.files, "cat_file", flaky)
    assert storage.read("a") == b"here"
    assert pauses == [0.5, 1.0, 2.0] and len(calls) == 4


def test_when_all_tries_fail_the_message_has_the_url_the_reason_and_what_to_do(monkeypatch):
    storage = Storage("memory://down", QUICK)

    def down(path):
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(storage.files, "cat_file", down)
    with pytest.raises(StorageError) as caught:
        storage.read("a.txt")
    assert str(caught.value) == (
        "Cannot read memory://down/a.txt after 3 tries: ConnectionResetError: peer went away. "
        "Check the address, the network and the credentials."
    )
    assert caught.value.exit_code == 8


def test_a_transfer_that_hangs_ends_at_its_deadline(monkeypatch):
    storage = Storage("memory://slow", StorageConfig(attempts=2, backoff_s=0.01, deadline_s=0.05))
    monkeypatch.setattr(storage.files, "cat_file", lambda path: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"raise output\.storage\.deadline_s"):
        storage.read("a.txt")
    assert time.monotonic() - began < 1


def put_slowly(path, target, callback):
    """Longer than its deadline, as a client tells of its parts."""
    for _ in range(12):
        time.sleep(0.05)
        callback.relative_update(1 << 20)


def read_slowly(path, target, callback):
    """The same of a file system that tells nothing: what its thread reads is seen."""
    for _ in range(12):
        time.sleep(0.05)
        Path(path).read_bytes()


@pytest.mark.parametrize("put_file", [put_slowly, read_slowly])
def test_a_transfer_that_moves_is_not_cut_off(put_file, monkeypatch, tmp_path):
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    storage = Storage("memory://moves", StorageConfig(attempts=1, deadline_s=0.3))
    monkeypatch.setattr(storage.files, "put_file", put_file)
    monkeypatch.setattr(storage.files, "size", lambda path: 2 << 20)
    storage.put(tmp_path / "large", "large")
    assert storage.count() >= 3  # and whoever waits for all of them sees it


def test_a_transfer_that_stands_still_says_what_was_moved(monkeypatch, tmp_path):
    def put_file(path, target, callback):
        callback.relative_update(3 << 20)
        time.sleep(2)

    (tmp_path / "large").write_bytes(bytes(10))
    storage = Storage("memory://stalls", StorageConfig(attempts=1, deadline_s=0.1))
    monkeypatch.setattr(storage.files, "put_file", put_file)
    with pytest.raises(StorageError, match=r"no progress for 0\.1 s; 3 MiB were moved before"):
        storage.put(tmp_path / "large", "large")


def test_refused_credentials_are_not_tried_again(monkeypatch):
    storage = Storage("memory://locked", QUICK)
    calls = []

    def locked(path):
        calls.append(path)
        raise PermissionError("Forbidden")

    monkeypatch.setattr(storage.files, "cat_file", locked)
    with pytest.raises(StorageError, match="Check the credentials"):
        storage.read("a.txt")
    assert len(calls) == 1


def test_an_unknown_form_and_a_missing_package_say_what_would_do(monkeypatch):
    with pytest.raises(StorageError, match="Known schemes are s3://, gs://"):
        Storage("quux://bucket/runs", QUICK)

    with pytest.raises(StorageError, match="not installed here: Install adlfs"):
        Storage("abfs://container/runs", QUICK)

    def without_package(url, **options):
        raise ImportError("no gcsfs")

    monkeypatch.setattr(storage_module, "url_to_fs", without_package)
    with pytest.raises(StorageError, match=r"gs://b/runs needs .*pip install 'mgrpo\[gcs\]'"):
        Storage("gs://b/runs", QUICK)


@pytest.mark.parametrize(
    ("url", "implementation"),
    [("gs://bucket/runs", "gcsfs.GCSFileSystem"), ("s3://bucket/runs", "s3fs.S3FileSystem")],
)
def test_the_forms_of_clouds_go_to_their_packages(url, implementation, monkeypatch):
    """The class is looked up by the scheme, with the bucket and the folder as its path."""
    scheme = url.partition("://")[0]
    assert known_implementations[scheme]["class"] == implementation

    registry = sys.modules["fsspec.registry"]  # the package has a mapping of this name, too

    class Cloud(fsspec.AbstractFileSystem):
        protocol = scheme
        cachable = False

    monkeypatch.setitem(registry._registry, scheme, Cloud)
    storage = Storage(url, StorageConfig(options={"project": "p"}))
    assert storage.root == "bucket/runs"
    assert storage.files.storage_options["project"] == "p"
    assert storage.url_of("sums") == f"{url}/sums"


def test_urls_are_told_from_paths_and_have_folders_of_their_own():
    assert [is_url(one) for one in ("s3://b/r", "memory://x", "runs", "~/runs")] == [
        True,
        True,
        False,
        False,
    ]
    assert local_folder_of("s3://bucket/team_a/runs/") == "s3-bucket-team_a-runs"


def test_an_s3_server_that_is_not_there_is_named_within_the_deadline(monkeypatch):
    pytest.importorskip("s3fs", reason="s3fs is not installed: make extras")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    options = {"endpoint_url": "http://127.0.0.1:9"}  # the discard port: nothing listens
    config = StorageConfig(attempts=2, backoff_s=0.01, deadline_s=1, options=options)
    began = time.monotonic()
    with pytest.raises(StorageError, match="Cannot list s3://bucket/runs after 2 tries"):
        Storage("s3://bucket/runs", config).find()
    assert time.monotonic() - began < 10


@pytest.mark.storage
def test_a_bucket_that_is_not_there_is_named(s3_server, tmp_path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(StorageError, match="a bucket must be there before the run"):
        Storage("s3://no-such-bucket/runs", QUICK).put(tmp_path / "a", "a")


@pytest.mark.parametrize("url", ["zz://me:hunter2@host/runs", "zz://host/runs?token=hunter2"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(StorageError, match="FSSPEC_ZZ_PASSWORD") as caught:
        Storage(url, StorageConfig())
    assert "hunter2" not in str(caught.value)


def test_options_that_are_secret_come_from_the_environment(monkeypatch):
    class Cloud(fsspec.AbstractFileSystem):
        protocol = "zz"
        cachable = False

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "zz", Cloud)
    monkeypatch.setitem(fsspec.config.conf, "zz", {})
    fsspec.config.set_conf_env(fsspec.config.conf, {"FSSPEC_ZZ_SECRET": "hunter2"})
    storage = Storage("zz://bucket/runs", StorageConfig(options={"project": "p"}))
    assert storage.files.storage_options["secret"] == "hunter2"
    assert storage.files.storage_options["project"] == "p"
