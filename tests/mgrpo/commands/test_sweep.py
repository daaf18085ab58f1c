"""A sweep trains what is left of a grid and sorts what is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.commands.sweep import trial_name, trials_of, values_of
from mgrpo.config import RunConfig
from mgrpo.config.load import save_recipe
from mgrpo.errors import ConfigError, DataError, RunInterrupted

RATES = "learner.learning_rate=1e-4,3e-4"
SCORES = {1e-4: 0.4, 3e-4: 0.6}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,2", ["1", "2"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{a: 1, b: 2}", ["{a: 1, b: 2}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("", [""]),
    ],
)
def test_commas_separate_values_outside_of_brackets_and_quotes(text, values):
    assert values_of(text) == values


def test_names_have_as_much_of_a_key_as_tells_them_apart():
    assert trial_name({"learner.learning_rate": "1e-4", "seed": "0"}) == "learning_rate_1e-4-seed_0"
    sizes = {"layers.solve.group_size": "2", "layers.correct.group_size": "4"}
    assert trial_name(sizes) == "solve.group_size_2-correct.group_size_4"
    assert trial_name({"loss": "{type: gspo}"}) == "loss_type_gspo"


def test_a_sweep_is_checked_before_anything_starts():
    with pytest.raises(ConfigError, match="no key has several values"):
        trials_of("quickstart", ["seed=1"], None)
    with pytest.raises(ConfigError, match="steps"):
        trials_of("quickstart", ["steps=1,-1"], None)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that are trained at once: their records are written, not sampled."""
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def train(config: RunConfig, *, overwrite: bool) -> Path:
        names.append(config.name)
        folder = Path(config.output.runs_dir) / config.name
        folder.mkdir(parents=True, exist_ok=overwrite)
        save_recipe(config, folder / "config.yaml")
        score = SCORES[config.learner.learning_rate] + config.seed / 100
        (folder / "metrics.jsonl").write_text('{"step": 0}\n')
        row = {"step": config.steps, "label": "after", "acc": [score, score]}
        (folder / "evaluation.jsonl").write_text(json.dumps(row) + "\n")
        (folder / "policy").mkdir(exist_ok=True)
        return folder

    monkeypatch.setattr("mgrpo.library.start.train_recipe", train)
    return names


def sweep(*arguments: str) -> int:
    return main(["sweep", "quickstart", *arguments])


def test_the_grid_is_trained_once_and_the_best_is_first(trained, capsys):
    assert sweep(RATES, "seed=0,1", "steps=3", "--json") == 0
    assert trained == [
        f"learning_rate_{rate}-seed_{seed}" for rate in ("1e-4", "3e-4") for seed in (0, 1)
    ]
    found = json.loads(capsys.readouterr().out)
    assert [row["settings"] for row in found["rows"]] == [
        {"learner.learning_rate": "3e-4"},
        {"learner.learning_rate": "1e-4"},
    ]
    assert found["rows"][0]["values"]["heldout/layer2/accuracy"] == {"0": 0.6, "1": 0.61}
    assert found["sorted_by"] == "heldout/layer2/accuracy" and found["left"] == []
    assert sweep(RATES, "seed=0,1,2", "steps=3") == 0
    assert len(trained) == 6  # the two with the new seed
    shown = capsys.readouterr().out
    assert "6 of 6 runs are done" in shown and "0, 1, 2" in shown
    assert (Path("runs") / "quickstart-sweep" / trained[0] / "config.yaml").is_file()


def test_a_list_starts_nothing(trained, capsys):
    assert sweep(RATES, "--list") == 0
    assert trained == []
    assert capsys.readouterr().out.count("left: ") == 2


def test_runs_with_other_settings_are_trained_again_only_if_asked(trained):
    assert sweep(RATES, "--name", "rates") == 0
    assert sweep(RATES, "--name", "rates", "prompts_per_step=4", "--overwrite") == 0
    assert len(trained) == 4


def test_a_failed_run_is_named_and_the_others_go_on(trained, monkeypatch, capsys):
    from mgrpo.library import start

    train = start.train_recipe

    def fails(config: RunConfig, *, overwrite: bool) -> Path:
        if config.learner.learning_rate == 1e-4:
            raise DataError("no data")
        return train(config, overwrite=overwrite)

    monkeypatch.setattr("mgrpo.library.start.train_recipe", fails)
    assert sweep(RATES) == 1
    assert "left: learning_rate_1e-4 (failed: no data)" in capsys.readouterr().out
    assert trained == ["learning_rate_3e-4"]


def test_a_signal_ends_the_sweep(trained, monkeypatch, capsys):
    def stopped(config: RunConfig, *, overwrite: bool) -> Path:
        raise RunInterrupted("SIGTERM", 143)

    monkeypatch.setattr("mgrpo.library.start.train_recipe", stopped)
    assert sweep(RATES) == 143
    assert "The same command resumes the sweep" in capsys.readouterr().err
