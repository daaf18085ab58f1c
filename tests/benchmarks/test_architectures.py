import json

import pytest

from benchmarks.architectures import __main__ as command
from benchmarks.architectures.learner_side import measure_learner
from benchmarks.architectures.page import describe, engine_reason, root_cause
from benchmarks.architectures.zoo import ARCHITECTURES, save

FACTS = {"command": "make architectures", "cores": 2, "cpu": "a CPU", "packages": {"torch": "2"}}
LEARNER = {
    "outcome": "merged",
    "reason": "",
    "logits": "unchanged",
    "frozen": 0,
    "tensors": 21,
    "hub_tensors": 21,
    "logprob_difference": 1e-6,
    "gradient_difference": 2e-6,
}
COMPARED = {"status": "compared", "gap_at_start": 1e-7, "gap_before": 0.5, "gap_after": 2e-7}


def test_the_table_counts_and_explains():
    rows = {
        "llama_3": {"learner": LEARNER, "engine": COMPARED},
        "gemma_3__images_": {
            "learner": {**LEARNER, "outcome": "padded", "reason": "a window", "frozen": 34},
            "engine": {"status": "not started", "reason": "no /some/where/processor"},
        },
        "mixtral": {"learner": LEARNER, "engine": {**COMPARED, "gap_after": 0.7}},
        "opt": {"learner": {"outcome": "refused", "reason": "of a reason"}},
    }
    page = describe(rows, FACTS)
    assert (
        "4 architectures: 2 train with merged prefixes, 1 with padded rows, 1 are refused" in page
    )
    assert "tried on 3 and started 2; after a weight update 1 of those" in page
    assert (
        "| Llama 3 | `llama` | merged | unchanged | 1e-06 | 2e-06 | 2e-07 (before: 0.50) |" in page
    )
    assert "padded, 34 weights frozen" in page and "- Gemma 3 (images): a window" in page
    assert "- OPT: of a reason" in page
    assert "not started: no processor" in page  # without the machine's path
    assert "Mixtral: it loads the checkpoint rightly and its own reload wrongly" in page


def test_an_engine_that_differs_from_the_start_is_not_blamed_on_the_update():
    row = {"engine": {**COMPARED, "gap_at_start": 0.03, "gap_after": 0.03}}
    assert "before any update" in engine_reason(row)


def test_the_cause_is_the_error_below_those_that_only_pass_it_on():
    output = (
        "(EngineCore) ERROR ValueError: no such architecture\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
        "EngineDeadError: EngineCore encountered an issue.\n"
    )
    assert root_cause(output) == "ValueError: no such architecture"


def test_the_command_goes_on_where_it_stopped(tmp_path, monkeypatch):
    results, page = tmp_path / "rows.json", tmp_path / "page.md"
    done = {one.key: {"learner": LEARNER, "engine": COMPARED} for one in ARCHITECTURES[3:]}
    done["llama_4_text"] = {"learner": LEARNER}  # without an engine
    results.write_text(json.dumps({"rows": done}))
    measured = []

    def run(command, **_):
        measured.append(command[3])
        if command[3] == "llama_3":
            raise fail
        return "talk\n" + json.dumps({"learner": LEARNER})

    fail = command.CommandFailed("it crashed")
    monkeypatch.setattr(command, "run_command", run)
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(command, "PAGE", page)
    assert command.main(["--write"]) == 1
    assert measured == ["llama_3", "llama_3__tied", "llama_4_text"]
    assert len(json.loads(results.read_text())["rows"]) == len(ARCHITECTURES) - 1
    assert f"{len(ARCHITECTURES) - 1} architectures" in page.read_text()


def test_there_are_enough_architectures_and_their_keys_differ():
    assert len({one.key for one in ARCHITECTURES}) == len(ARCHITECTURES) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.key)
def test_every_architecture_trains_as_its_untouched_model(tmp_path, architecture):
    row = measure_learner(save(architecture, tmp_path))
    assert (row["outcome"] != "refused") == architecture.trains, row["reason"]
    if not architecture.trains:
        return
    assert row["logprob_difference"] < 1e-4 and row["gradient_difference"] < 1e-3
