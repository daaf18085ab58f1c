"""What the curves and the costs of methods are made from."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.method_curves import OWN_SETTINGS, SETTINGS, curve_of, is_left
from benchmarks.method_overhead import Row, median_ratio, plain_name, ratios
from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import method_files
from scripts.method_pages.curves import method_digest, read_curves, write_curves


def recorded_run(folder: Path) -> Path:
    rows = [
        {"step": 0, "layer1/reward_mean": 0.25, "learner/grad_norm": 1.0, "seconds/step": 1.0},
        {"step": 1, "learner/grad_norm": 2.00001, "seconds/step": 3.0},
    ]
    evaluations = [
        {"step": 0, "label": "before", "acc": [0.3, 0.4]},
        {"step": 2, "label": "after", "acc": [0.6, 0.7]},
    ]
    for name, lines in (("metrics", rows), ("evaluation", evaluations)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_curve_holds_what_a_run_measured(tmp_path: Path) -> None:
    found = curve_of("gspo", 1, ["steps=2", "output.report=false"], recorded_run(tmp_path), 61.26)
    assert found.seed == 1
    assert found.reward == [0.25, None]
    assert found.grad_norm == [1.0, 2.0]
    assert (found.accuracy, found.final_accuracy) == ([0.3, 0.6], [0.4, 0.7])
    assert (found.step_s, found.seconds, found.settings) == (2.0, 61.3, ["steps=2"])


def test_a_recipe_is_left_until_it_has_a_curve_of_its_present_form(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    assert is_left("gspo", 1, file)
    curve = curve_of("gspo", 1, [], recorded_run(tmp_path), 1.0)
    assert curve.digest == method_digest(load_recipe("methods/gspo"))
    write_curves(file, {"gspo": [curve]})
    assert not is_left("gspo", 1, file)
    assert is_left("gspo", 0, file) and is_left("gmpo", 1, file)
    text = file.read_text(encoding="utf-8").replace(curve.digest, "another")
    file.write_text(text, encoding="utf-8")
    assert list(read_curves(file)) == ["gspo"] and is_left("gspo", 1, file)


def test_the_settings_of_curves_suit_every_recipe() -> None:
    for name in method_files():
        config = load_recipe(f"methods/{name}", [*SETTINGS, *OWN_SETTINGS.get(name, ())])
        assert method_digest(config) == method_digest(load_recipe(f"methods/{name}")) or (
            name in OWN_SETTINGS
        )


def test_a_cost_is_taken_round_by_round_against_grpo() -> None:
    plain = Row("plain", None, [], "plain", seconds=[1.0, 2.0, 4.0])
    own = Row("own", None, [], "plain", seconds=[2.0, 3.0, 4.0])
    rows = {"plain": plain, "own": own}
    assert ratios(own, rows) == [2.0, 1.5, 1.0]
    assert median_ratio(own, rows) == 1.5 and median_ratio(plain, rows) == 1.0


def test_a_method_is_compared_with_a_grpo_of_as_many_updates_on_the_same_completions() -> None:
    names = {
        "grpo": "GRPO, attempts, 1 update",
        "gspo": "GRPO, attempts, 1 update of 4 minibatches",
        "mgrpo": "GRPO, attempts and corrections, 1 update",
    }
    for name, expected in names.items():
        assert plain_name(load_recipe(f"methods/{name}")) == expected
