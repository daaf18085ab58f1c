import json

import pytest

from mgrpo.config import MlflowConfig
from mgrpo.errors import TrackerError
from mgrpo.trackers import RunFacts, open_trackers
from tests.mgrpo.trackers.resumed_run import record

pytestmark = pytest.mark.trackers
pytest.importorskip("mlflow", reason="mlflow is not installed: make extras")


def test_an_offline_run_is_resumed_under_its_id_with_the_recipe_as_parameters(tmp_path):
    from mlflow import MlflowClient

    record(MlflowConfig(offline=True, experiment="sums-of-three"), tmp_path)
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("sums-of-three")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    assert (run.info.run_name, run.info.status) == ("sums", "FINISHED")
    assert run.data.params == {
        "steps": "5",
        "layers.0.name": "solve",
        "layers.1.name": "correct",
        "tags": "['a', 'b']",
    }
    (file,) = (tmp_path / "mlruns").rglob("completions/*")
    assert file.name == "step-000000.md" and "| so<br>7 |" in file.read_text()
    steps = client.get_metric_history(run.info.run_id, "layer1/accuracy")
    assert sorted((metric.step, metric.value) for metric in steps) == [
        (0, 0.25),
        (1, 0.25),
        (2, 0.25),
        (3, 0.25),
        (3, 0.75),  # MLflow keeps what was repeated and shows the later one
        (4, 0.25),
        (4, 0.75),
    ]


def test_a_server_that_cannot_be_reached_is_an_error_at_the_start(tmp_path):
    config = MlflowConfig(tracking_uri="http://127.0.0.1:9", deadline_s=5)
    with pytest.raises(TrackerError, match=r"The tracker mlflow .*offline: true"):
        open_trackers([config], RunFacts("sums", tmp_path))
    assert not (tmp_path / "trackers.json").exists()


def test_a_run_is_found_again_after_storage_without_empty_folders(tmp_path):
    config = MlflowConfig(offline=True)
    with open_trackers([config], RunFacts("sums", tmp_path)) as trackers:
        trackers.write(0, {"a": 1.0})
    (run,) = tmp_path.glob("mlruns/*/*/artifacts")
    run.rmdir()
    with open_trackers([config], RunFacts("sums", tmp_path, first_step=1)) as trackers:
        trackers.write(1, {"a": 2.0})
    assert (run.parent / "metrics" / "a").read_text().count("\n") == 2
