"""The model card that a run leaves beside its policy."""

from __future__ import annotations

import shutil

import pytest
import yaml

from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.report.card import FRONT_MATTER, counts_of, fenced, origin_of, public_name, write_cards
from mgrpo.storage.policies import BestRecord, write_best
from tests.mgrpo.report.fake_run import make_run


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The cards of a run with a best policy, by folder."""
    run_dir = make_run(tmp_path_factory.mktemp("run") / "wide", steps=40)
    for name in ("policy", "policy-best"):
        shutil.copytree(SHIPPED_DEFAULT_DIR, run_dir / name)
    write_best(run_dir / "policy-best", BestRecord(20, "heldout/layer1/accuracy", "max", 0.6))
    return {file.parent.name: file.read_text(encoding="utf-8") for file in write_cards(run_dir)}


def test_the_front_matter_is_the_hubs(cards):
    found = FRONT_MATTER.match(cards["policy"])
    assert found is not None
    front = yaml.safe_load(found[1])
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "text-generation" and "mgrpo" in front["tags"]


def test_a_model_of_the_hub_is_named_with_its_commit(tmp_path):
    run_dir = make_run(tmp_path / "run", steps=2)
    shutil.copytree(SHIPPED_DEFAULT_DIR, run_dir / "policy")
    (run_dir / "environment.json").write_text('{"hub_commits": {"model": "0123abc"}}')
    [card] = write_cards(run_dir)
    assert "| base model's commit | 0123abc |" in card.read_text(encoding="utf-8")


def test_both_turns_are_compared_with_those_before(cards):
    assert "| First attempt, Acc@t1' | 42.0" in cards["policy"]
    assert "| After turn 2, Acc@t2 | 45.0" in cards["policy"]
    assert "trained for 40 steps by MGRPO" in cards["policy"]


def test_the_best_policy_has_its_own_steps_and_accuracy(cards):
    assert "trained for 20 steps by MGRPO" in cards["policy-best"]
    assert "71.0" in cards["policy"].partition("## Method")[0]
    assert "71.0" not in cards["policy-best"].partition("## Method")[0]


def test_a_correction_is_shown_with_its_prompt(cards):
    assert "Layer 1 (solve) reads" in cards["policy"]
    assert "Layer 2 (correct) reads" in cards["policy"]
    assert "Guidance phrases of Layer 2 (correct):" in cards["policy"]


def test_curves_are_short_tables(cards):
    table = cards["policy"].partition("## Accuracy by step")[2].partition("##")[0]
    assert 10 < table.count("\n|") <= 14


def test_counts_are_of_all_answers():
    kinds = {"right_to_right": 3, "wrong_to_right": 2, "right_to_wrong": 1, "wrong_to_wrong": 4}
    assert counts_of({"transitions": [{"counts": kinds}]}) == ["4 of 10", "5 of 10"]
    assert counts_of({"transitions": []}) == []


def test_a_model_is_known_by_its_card(tmp_path):
    assert origin_of(str(tmp_path)) == {}
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\n# x\n")
    assert origin_of(str(tmp_path)) == {"base_model": "a/b", "license": "mit"}
    (tmp_path / "README.md").write_text("---\n[\n---\n")
    assert origin_of(str(tmp_path)) == {}


def test_folders_of_this_machine_stay_out_of_it():
    assert public_name("/path/to/wide/policy") == "wide/policy"
    assert public_name("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"


def test_a_fence_is_longer_than_those_inside():
    assert fenced("```python\n1\n```").startswith("````text\n")
