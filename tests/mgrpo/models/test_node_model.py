"""Nodes are simulated by processes with caches of their own (MGRPO_CACHE)."""

import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from mgrpo.config import StorageConfig
from mgrpo.errors import HubUnreachable, ModelError, StorageError
from mgrpo.models import node_model
from mgrpo.models.node_model import NodeModel, driver_model, node_lock
from mgrpo.storage.files import Storage

QUICK = StorageConfig(attempts=2, backoff_s=0.01, deadline_s=20, upload_s=30)
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"template",
    "model.safetensors": b"\x01" * 100_000,
    "optimizer.pt": b"\x02" * 10,
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def upload(url: str, folder: Path, files: dict[str, bytes] = FILES) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        Storage(url, QUICK).put(folder / name, name)


def fetches(monkeypatch) -> list[str]:
    """The names of the files that are fetched from here on."""
    fetched: list[str] = []
    get = Storage.get

    def counted(self, name, local):
        fetched.append(name)
        get(self, name, local)

    monkeypatch.setattr(Storage, "get", counted)
    return fetched


def test_the_driver_fetches_the_small_files_and_a_node_the_weights_once(
    cache, tmp_path, monkeypatch
):
    url = f"memory://{uuid.uuid4().hex}/model"
    upload(url, tmp_path / "source")
    fetched = fetches(monkeypatch)
    model = driver_model(url, QUICK)
    small = ["chat_template.jinja", "config.json", "tokenizer.json"]
    assert (
        sorted(fetched) == small == sorted(file.name for file in Path(model.driver_dir).iterdir())
    )
    folder = model()
    assert folder == model.driver_dir and fetched[3:] == ["model.safetensors"]
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert model() == folder and len(fetched) == 4


def test_processes_of_one_node_fetch_each_file_once(cache, tmp_path, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/model"
    upload(url, tmp_path / "source")
    fetched = fetches(monkeypatch)
    model = NodeModel(url, "nowhere", QUICK)
    folders: list[str] = []
    threads = [threading.Thread(target=lambda: folders.append(model())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(folders)) == 1 and len(folders) == 6
    assert sorted(fetched) == sorted(set(FILES) - {"optimizer.pt"})


def test_a_model_that_was_replaced_is_fetched_anew(cache, tmp_path):
    url = f"memory://{uuid.uuid4().hex}/model"
    upload(url, tmp_path / "source")
    first = driver_model(url, QUICK)()
    upload(url, tmp_path / "source", {"model.safetensors": b"\x03" * 100_001})
    second = driver_model(url, QUICK)()
    assert first != second
    assert (Path(second) / "model.safetensors").read_bytes()[:1] == b"\x03"


ON_A_NODE = """
import pickle, sys
print("FOUND", pickle.loads(bytes.fromhex(sys.argv[1]))())
"""


def on_a_node(model: NodeModel, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ON_A_NODE, pickle.dumps(model).hex()],
        env={**os.environ, "MGRPO_CACHE": str(cache), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_two_nodes_have_a_copy_each_in_their_own_caches(tmp_path):
    url = f"file://{tmp_path}/shared/model"
    upload(url, tmp_path / "source")
    model = NodeModel(url, str(tmp_path / "not-on-these-nodes"), QUICK)
    for node in ("node-a", "node-b"):
        done = on_a_node(model, tmp_path / node)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.partition("FOUND ")[2].strip())
        assert folder.is_relative_to(tmp_path / node)
        assert {file.name for file in folder.iterdir()} == set(FILES) - {"optimizer.pt"}


def test_a_folder_is_used_where_it_is_seen_and_named_where_it_is_not(tmp_path, cache):
    upload(f"memory://{uuid.uuid4().hex}", tmp_path / "model")
    model = driver_model(str(tmp_path / "model"), QUICK)
    assert model() == model.driver_dir == str(tmp_path / "model")
    with pytest.raises(ModelError, match="is on the driver's machine and not on node"):
        NodeModel("./no-such-model", "no-such-model", QUICK)()


def test_a_prepared_model_is_found_by_its_name_on_every_node(cache):
    model = driver_model("default", QUICK)
    assert (Path(model()) / "model.safetensors").is_file()


def test_an_url_without_a_model_says_so(cache):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        driver_model(f"memory://{uuid.uuid4().hex}", QUICK)


def test_a_hub_name_becomes_a_folder_of_the_nodes_hub_cache(cache, tmp_path, monkeypatch):
    """The hub's cache as a download leaves it; nothing is asked of a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--small"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in FILES.items():
        (snapshot / name).write_bytes(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    model = NodeModel("someone/small", str(snapshot), QUICK)
    done = on_a_node(model, cache, **environment)
    assert done.stdout.partition("FOUND ")[2].strip() == str(snapshot), done.stderr
    missing = on_a_node(NodeModel("someone/other", str(snapshot), QUICK), cache, **environment)
    assert HubUnreachable.__name__ in missing.stderr


def test_a_lock_that_is_held_for_too_long_is_named(tmp_path):
    taken = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with node_lock(tmp_path / "model", 5):
            taken.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(5)
    with (
        pytest.raises(StorageError, match=r"moved nothing for 0\.1 s \(output\.storage\.upload_s"),
        node_lock(tmp_path / "model", 0.1),
    ):
        raise AssertionError("it is held")
    release.set()
    holder.join(5)
    with node_lock(tmp_path / "model", 1):
        pass


MOVES = """
import sys, time
from pathlib import Path
from mgrpo.models.node_model import node_lock

folder = Path(sys.argv[1])
with node_lock(folder, 5):
    print("taken", flush=True)
    for _ in range(12):
        folder.with_suffix(".weights").write_bytes(bytes(2 << 20))
        time.sleep(0.1)
"""


def test_a_process_that_moves_is_waited_for_longer_than_the_deadline(tmp_path):
    folder = tmp_path / "model"
    holder = subprocess.Popen(
        [sys.executable, "-c", MOVES, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "taken\n"
    with node_lock(folder, 0.6):
        assert holder.wait(10) == 0


def test_names_are_told_apart(tmp_path):
    (tmp_path / "model").mkdir()
    found = {
        path: node_model.is_local(path)
        for path in ("default", "someone/small", str(tmp_path / "model"), "./model", "a/b/c")
    }
    assert list(found.values()) == [False, False, True, True, True], json.dumps(found)
