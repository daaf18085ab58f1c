"""Two learner ranks on two nodes that share no folder: checkpoint, resume, policy; one hangs."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from safetensors import safe_open

from cluster.board_watch import BoardWatch
from cluster.remote import LOOKS, RemoteActor, wait_for
from cluster.runtime import QUIET_ENVIRONMENT, init_ray
from learner import rank_files as learner_files
from learner.rank import LearnerRank
from learner.rank_files import LearnerFiles
from learner.recipe import learner_recipe
from learner.step_data import StepData
from mgrpo.errors import DeadlineError, LearnerLostError
from mgrpo.training.learner_ranks import LearnerRanks
from tests.learner.builders import random_completions, run_config
from tests.random_policy import save_random_policy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]
IN_TIME = {"deadline_s": 120.0, "setting": "a test"}
TOKENS = [5, 9, 12, 33, 7, 60]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RemoteActor[LearnerRank]]]:
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="mgrpo-n-")  # short: Unix sockets allow 107 bytes
    environment = pytest.MonkeyPatch()
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.setenv("RAY_TMPDIR", folder)  # where Ray notes the latest cluster of this machine
    (Path(folder) / "ray").mkdir()
    common = {"temp_dir": folder, "num_cpus": 2, "object_store_memory": 100 << 20}
    head = {**common, "node_ip_address": "127.0.0.5", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "resources": {"node0": 1}})
    cluster.add_node(node_ip_address="127.0.0.6", resources={"node1": 1}, **common)
    variables = {**QUIET_ENVIRONMENT, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    init_ray(
        address=cluster.address,
        runtime_env={"env_vars": variables},
        log_to_driver=False,
        _node_ip_address="127.0.0.5",
    )
    model = save_random_policy(tmp_path_factory.mktemp("policy"))
    config = run_config(learner={"zero_stage": 2})  # a shard for each rank
    settings: dict[str, Any] = {"recipe": learner_recipe(config), "num_ranks": 2, "device": "cpu"}
    made: list[RemoteActor[LearnerRank]] = [
        RemoteActor(
            ray.remote(concurrency_groups={LOOKS: 1})(LearnerRank)
            .options(resources={f"node{rank}": 1}, name=f"learner-rank-{rank}")
            .remote(model_dir=str(model), rank=rank, **settings),
            f"learner-rank-{rank}",
        )
        for rank in range(2)
    ]
    try:
        address, port = made[0].submit(LearnerRank.meeting_point).result(**IN_TIME)
        everybody(made, LearnerRank.start, address, port)
        yield made
    finally:
        ray.shutdown()
        cluster.shutdown()
        environment.undo()
        shutil.rmtree(folder, ignore_errors=True)


def everybody(
    ranks: list[RemoteActor[LearnerRank]], method: Callable[..., Any], *args: Any
) -> list[Any]:
    return wait_for([rank.submit(method, *args) for rank in ranks], **IN_TIME)


def test_each_rank_writes_on_its_own_node_and_the_driver_has_all_of_it(ranks, tmp_path):
    files = LearnerFiles(ranks, tmp_path / "learner", is_shared=False, **IN_TIME)
    assert files.run("write its state", LearnerRank.save_state, 0) == [True, True]
    first, second = files.homes
    assert first.node != second.node and first.folder != second.folder
    own = [
        sorted(
            Path(name).name
            for name in rank.submit(LearnerRank.list_files, files.path_for(home)).result(**IN_TIME)
            if name.endswith((".pt", ".safetensors"))
        )
        for rank, home in zip(ranks, files.homes, strict=True)
    ]
    shards = [f"weights-zero2-{rank:05d}-of-00002.safetensors" for rank in range(2)]
    assert own == [["common.pt", shards[0]], [shards[1]]]
    files.collect()
    files.close()
    collected = sorted(file.name for file in (tmp_path / "learner").iterdir())
    assert collected == ["common.pt", *shards]
    assert not any(Path(str(home.folder)).exists() for home in files.homes)


def test_ranks_go_on_from_a_checkpoint_that_none_of_their_nodes_has(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(learner_files, "PART_BYTES", 10_000)  # many parts
    directory = tmp_path / "learner"
    before = everybody(ranks, LearnerRank.probe_logprobs, TOKENS)[0]
    assert LearnerFiles(ranks, directory, is_shared=False, **IN_TIME).save_states(0)
    everybody(ranks, LearnerRank.update, StepData.of(0, random_completions(seed=1)))
    assert everybody(ranks, LearnerRank.probe_logprobs, TOKENS)[0] != before
    assert not LearnerFiles(ranks, tmp_path / "late", is_shared=False, **IN_TIME).save_states(0)
    assert LearnerFiles(ranks, directory, is_shared=False, **IN_TIME).load_states() == 0
    assert everybody(ranks, LearnerRank.probe_logprobs, TOKENS)[0] == before


def test_where_all_see_the_folder_nothing_is_copied(ranks, tmp_path):
    directory = tmp_path / "learner"
    files = LearnerFiles(ranks, directory, **IN_TIME)
    assert [home.folder for home in files.homes] == [None, None]
    assert LearnerFiles(ranks, directory, **IN_TIME).save_states(0)
    assert len(list(directory.iterdir())) == 3
    assert LearnerFiles(ranks, directory, **IN_TIME).load_states() == 0
    assert list(tmp_path.iterdir()) == [directory]  # the marker is gone


def test_the_policy_comes_from_rank_0s_node_whole(ranks, tmp_path):
    for _ in range(2):  # the second replaces the first
        LearnerFiles(ranks, tmp_path / "policy", is_shared=False, **IN_TIME).save_policy()
    names = {file.name for file in (tmp_path / "policy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    with safe_open(tmp_path / "policy" / "model.safetensors", "pt") as weights:
        assert weights.get_tensor("model.embed_tokens.weight").shape == (259, 64)
    assert [file.name for file in tmp_path.iterdir()] == ["policy"]


# --- one hangs; the last tests, since the ranks go on from within an update ---


@contextmanager
def one_is_stopped() -> Iterator[None]:
    """The process of one rank, whichever."""
    stopped = next(one for one in psutil.Process().children(recursive=True) if is_rank(one))
    stopped.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stopped.send_signal(signal.SIGCONT)


def is_rank(process: psutil.Process) -> bool:
    try:
        title = process.cmdline()[0]
        return "LearnerRank" in title or "learner-rank" in title
    except (psutil.Error, IndexError):
        return False


def update(ranks: list[RemoteActor[LearnerRank]], watch: BoardWatch, update_s: float) -> None:
    learner = LearnerRanks(ranks, update_s=update_s, shared_folder=True, progress=watch)
    learner.update(random_completions(seed=2), (), 0, (), meanwhile=lambda: None)


def test_boards_are_read_while_the_ranks_work(ranks):
    watch = BoardWatch(ranks, silent_s=60)
    before = [one.look(LearnerRank.progress).result(**IN_TIME) for one in ranks]
    update(ranks, watch, update_s=60)
    after = [one.look(LearnerRank.progress).result(**IN_TIME) for one in ranks]
    assert all(one.is_after(other) for one, other in zip(after, before, strict=True))
    assert {one.doing for one in after} == {"the optimizer's step"}


def test_ranks_without_progress_are_named_with_what_they_did_last(ranks):
    watch = BoardWatch(ranks, silent_s=600)
    everybody(ranks, LearnerRank.node)
    watch.count()
    with (
        one_is_stopped(),
        pytest.raises(
            DeadlineError, match=r"(?s)update the policy.*Nothing moved .*learner-rank-1: "
        ),
    ):
        update(ranks, watch, update_s=4)
    everybody(ranks, LearnerRank.node)  # the update goes on and ends


def test_a_rank_that_is_stopped_is_lost_long_before_an_update_s_deadline(ranks):
    watch = BoardWatch(ranks, silent_s=2)
    update(ranks, watch, update_s=60)
    with (
        one_is_stopped(),
        pytest.raises(LearnerLostError, match=r"learner-rank-\d has not answered"),
    ):
        update(ranks, watch, update_s=600)
