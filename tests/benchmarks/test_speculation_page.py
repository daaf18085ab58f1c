"""The numbers of docs/benchmarks/speculation.md, from what the steps measured."""

from __future__ import annotations

from benchmarks.speculation import DRAFTING, PLAIN, Sampled, page_lines, summary

STEPS = [
    {
        PLAIN: Sampled(seconds=4.0, cpu_seconds=6.0, tokens=100, drafted=0, accepted=0),
        DRAFTING: Sampled(seconds=2.0, cpu_seconds=4.0, tokens=100, drafted=60, accepted=40),
    },
    {
        PLAIN: Sampled(seconds=3.0, cpu_seconds=6.0, tokens=100, drafted=0, accepted=0),
        DRAFTING: Sampled(seconds=3.0, cpu_seconds=5.0, tokens=100, drafted=40, accepted=10),
    },
]


def test_a_decode_step_s_yield_is_of_all_steps_and_ratios_are_within_a_step() -> None:
    found = summary(STEPS)
    assert found["tokens_per_decode_step"] == 200 / 150
    assert found["drafted_per_decode_step"] == 100 / 150
    assert found["draft_acceptance"] == 0.5
    assert found["decode_step_cost"] == (9 / 150) / (12 / 200)
    assert found["seconds"]["speedup_range"] == [1.0, 2.0]
    assert found["seconds"]["speedup"] == 1.5
    assert found["cpu_seconds"]["speedup_range"] == [1.2, 1.5]


def test_the_page_has_a_row_for_each_batch_and_says_how_it_was_measured() -> None:
    machine = {
        "commit": "abc",
        "cpu": "one",
        "cores": 2,
        "python": "3.11",
        "packages": {"vllm": "0"},
    }
    lines = list(
        page_lines(
            {
                "batches": {"16": summary(STEPS)},
                "command": "python -m benchmarks.speculation",
                "date": "2026-11-28",
                **machine,
            }
        )
    )
    assert (
        "| 16 | 1.33 | 0.67, 50% | 1.00 | 3.50 s, 2.50 s | 1.50 (1.00, 2.00) | 1.35 (1.20, 1.50) |"
        in lines
    )
    assert lines[-1].startswith("`python -m benchmarks.speculation`, 2026-11-28, commit abc")
