from mgrpo.check.storage import storage_lines
from mgrpo.config import RunConfig


def lines(tree, runs_dir):
    config = RunConfig.model_validate({**tree, "output": {"runs_dir": runs_dir}})
    return [(line.status, line.detail) for line in storage_lines(config.output, config.name)]


def test_a_plain_folder_needs_no_line(tree):
    assert lines(tree, "runs") == []


def test_storage_that_can_be_read_is_said_with_what_is_there(tree, tmp_path):
    ((status, detail),) = lines(tree, f"file://{tmp_path}")
    assert status == "ok" and "nothing there yet" in detail
    (tmp_path / tree["name"]).mkdir()
    (tmp_path / tree["name"] / "metrics.jsonl").write_text("")
    ((status, detail),) = lines(tree, f"file://{tmp_path}")
    assert status == "ok" and "1 files of run" in detail


def test_an_unknown_form_fails_and_memory_is_doubtful(tree):
    assert lines(tree, "quux://bucket/runs")[0][0] == "fail"
    ((status, detail),) = lines(tree, "memory://runs")
    assert status == "warn" and "lost when the run ends" in detail
