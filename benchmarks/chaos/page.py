"""A campaign's numbers, and the page with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.machine import Result, origin_lines

Record = Mapping[str, Any]


def summary(records: Sequence[Record], references: Sequence[Record]) -> Result:
    """All parts in one."""
    events = [event for one in records for event in one["events"]]
    done = [event for event in events if event["done_to"]]
    kinds = dict.fromkeys(event["kind"] for event in events)
    totals = {
        name: sum(one["problems"][name] for one in records)
        for name in ("trained", "dropped", "missing", "doubled", "wrong_groups")
    }
    return {
        "faults": len(done),
        "steps": sum(one["steps"] for one in records),
        "runs": len(records),
        **{f"problems_{name}" if name != "wrong_groups" else name: n for name, n in totals.items()},
        **{name: sum(len(one[name]) for one in records) for name in ("orphans", "ports", "files")},
        "hangs": sum(len(one["hangs"]) for one in records),
        "unfinished": sum(not one["is_finished"] for one in records),
        "kinds": {kind: of_kind([e for e in events if e["kind"] == kind]) for kind in kinds},
        "engine_return_s": sorted(seconds for one in records for seconds in one["engine_return_s"]),
        "undisturbed_step_s": [one["step_s"] for one in references],
        "accuracy": {
            name: [[one["order"], one["accuracy"]] for one in group]
            for name, group in (("disturbed", records), ("undisturbed", references))
        },
        "memory_slope_mib": [
            {"order": one["order"], "steps": one["memory_steps"], **one["memory_slope_mib"]}
            for one in references
        ],
        "seconds": sum(one["seconds"] for one in records),
    }


def of_kind(events: Sequence[Record]) -> Result:
    """What came of all faults of one kind."""
    done = [event for event in events if event["done_to"]]
    seconds = [event["seconds"] for event in done if event["seconds"] is not None]
    codes = sorted({code for event in done for code in event["ends"]})
    return {
        "times": len(done),
        "nothing_there": len(events) - len(done),
        "went_on": sum(not event["ends"] for event in done),
        "resumed": sum(bool(event["ends"]) for event in done),
        "exit_codes": codes,
        "not_recovered": len(done) - len(seconds),
        "seconds_median": median(seconds) if seconds else None,
        "seconds_max": max(seconds) if seconds else None,
    }


def page_lines(result: Result) -> Iterator[str]:
    """The measured part of docs/results/reliability.md."""
    yield f"{result['faults']} faults in {result['runs']} runs of {result['steps']} steps in all."
    yield f"Problems trained: {result['problems_trained']}, dropped {result['problems_dropped']},"
    yield f"missing {result['problems_missing']}, doubled {result['problems_doubled']}; groups of"
    yield f"another size: {result['wrong_groups']}. Left behind: {result['orphans']} processes,"
    yield f"{result['ports']} ports, {result['files']} files. Hangs: {result['hangs']}; runs that"
    yield f"did not finish: {result['unfinished']}.\n"
    yield "| Fault | Times | Run went on | Ended and resumed | Exit codes | Median s | Longest s |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: |"
    for kind, one in sorted(result["kinds"].items()):
        codes = ", ".join(map(str, one["exit_codes"])) or "-"
        seconds = [shown(one[name]) for name in ("seconds_median", "seconds_max")]
        cells = [kind, one["times"], one["went_on"], one["resumed"], codes, *seconds]
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    if times := result["engine_return_s"]:
        yield f"{len(times)} engines that were lost worked again, with the newest weights, after"
        yield f"{shown(median(times))} s (median; at most {shown(max(times))} s); meanwhile the run"
        yield "went on with the other one.\n"
    steps = ", ".join(shown(seconds) for seconds in result["undisturbed_step_s"])
    yield f"A step of runs that nothing disturbs: {steps} s (median of each)."
    yield from memory_lines(result)
    yield "What was not as it must be:\n" if result["violations"] else "Nothing else was found.\n"
    yield from (f"- {text}" for text in result["violations"])
    yield ""
    commits = ", ".join(result["commits"])
    yield f"Seed {result['seed']}; runs made at {commits}."
    yield from origin_lines(result)


def memory_lines(result: Result) -> Iterator[str]:
    """The growth of memory in undisturbed runs."""
    for one in result["memory_slope_mib"]:
        kinds = [name for name in one if name not in ("order", "steps")]
        slopes = ", ".join(f"{kind} {one[kind]:+.2f}" for kind in sorted(kinds))
        yield f"Memory, {one['order']}, {one['steps']} steps, MiB a step: {slopes or 'too few'}."


def shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"
