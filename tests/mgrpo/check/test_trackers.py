import pytest

from mgrpo.check.trackers import tracker_lines
from mgrpo.config import RunConfig
from mgrpo.trackers import group


def lines(tree, trackers):
    config = RunConfig.model_validate({**tree, "output": {"trackers": trackers}})
    return [(line.status, line.detail) for line in tracker_lines(config.output.trackers)]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """All packages there, nobody logged in."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in group.PACKAGES:
        monkeypatch.setitem(group.PACKAGES, name, "json")


def test_trackers_that_need_nothing_are_named(tree):
    offline = {"use": "wandb", "offline": True}
    assert lines(tree, ["tensorboard", offline, "trackio"]) == [
        ("ok", "tensorboard, wandb (offline, in the run's directory), trackio")
    ]
    assert lines(tree, []) == []


def test_a_package_that_is_not_installed_fails_with_the_command_that_installs_it(tree, monkeypatch):
    monkeypatch.setitem(group.PACKAGES, "mlflow", "a_package_that_is_not_there")
    ((status, detail),) = lines(tree, [{"use": "mlflow", "offline": True}])
    assert status == "fail" and "pip install 'mgrpo[mlflow]'" in detail


def test_wandb_without_a_key_is_doubtful_until_there_is_one(tree, monkeypatch, tmp_path):
    ((status, detail),) = lines(tree, ["wandb"])
    assert status == "warn" and "no API key of Weights & Biases for api.wandb.ai" in detail
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert lines(tree, ["wandb"]) == [("ok", "wandb")]
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert lines(tree, ["wandb"]) == [("ok", "wandb")]


def test_mlflow_without_a_server_is_doubtful(tree):
    ((status, detail),) = lines(tree, ["mlflow"])
    assert status == "warn" and "mlflow has no server" in detail
    assert lines(tree, [{"use": "mlflow", "tracking_uri": "http://127.0.0.1:5000"}]) == [
        ("ok", "mlflow")
    ]


def test_a_tracker_may_be_named_once_and_its_keys_are_checked(tree):
    with pytest.raises(ValueError, match="each tracker can be named once"):
        lines(tree, ["trackio", {"use": "trackio", "offline": True}])
    with pytest.raises(ValueError, match="wandbb"):
        lines(tree, ["wandbb"])
