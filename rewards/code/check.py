"""The check `code_answer`: the share of a problem's tests that the completion's program passes.

The program is the last fenced block of Python in the completion. It runs in a sandbox
(`sandbox.py`), every test in a process of its own, and its answers are compared out here.
"""

from __future__ import annotations

import re

from mgrpo.types import Problem, Reward
from rewards.code.problem_tests import ProgramTest, read_tests
from rewards.code.sandbox import Answer, Choice, Limits, Sandbox, kind_for

FENCED = re.compile(r"```[ \t]*([^\n`]*)\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
LANGUAGES = ("python", "python3", "py", "")
SHOWN_CHARACTERS = 300


def code_answer(
    completion: str,
    problem: Problem,
    *,
    sandbox: Choice = "auto",
    tests: str = "tests",
    partial: bool = True,
    shown: bool = True,
    tolerance: float = 1e-6,
    prelude: str = "",
    seconds: float = 4.0,
    total_s: float = 8.0,
    cpu_s: float = 2.0,
    memory_mb: int = 256,
    processes: int = 8,
    output_kb: int = 256,
    files_mb: int = 16,
) -> Reward:
    """1 for a program that passes all tests, else 0 or the share that it passes.

    Args:
        completion: the policy's text; its last fenced block of Python is the program.
        problem: its tests are in `metadata`, else its answer: see `rewards/code/problem_tests.py`.
        sandbox: auto (the strongest that the machine has), namespaces, bubblewrap, or none, in
            which a program can read and write whatever this user can.
        tests: column of the tests, one of the source's `metadata_fields`.
        partial: the share of passed tests; false: 0, and nothing after the first failure runs.
        shown: the first failing test's input and expected output are in the text about it; false:
            only what happened.
        tolerance: of decimals, relative above 1.
        prelude: code before every program, such as the imports that its problem takes for granted.
        seconds, total_s: of one test and of all, by the clock; below rewards.deadline_s.
        cpu_s, memory_mb: of each process of a test.
        processes: at a time, threads included.
        output_kb: of each of a test's streams, and of each file.
        files_mb: of the working folder.

    Raises:
        SandboxError: the machine has no such sandbox.
        ValueError: the problem has no tests that can be read.
    """
    wanted = read_tests(problem, tests)
    kind = kind_for(sandbox)
    found = FENCED.findall(completion)
    blocks = [code for language, code in found if language.strip().casefold() in LANGUAGES]
    if not blocks or not blocks[-1].strip():
        detail = "no closed block of code (```python ... ```)"
        return Reward(value=0.0, status="unparsable", detail=detail, feedback=f"There is {detail}.")
    limits = Limits(
        seconds=seconds,
        total_s=total_s,
        cpu_s=cpu_s,
        memory_mb=memory_mb,
        processes=processes,
        output_bytes=output_kb * 1024,
        files_mb=files_mb,
    )
    passed, failure = 0, ""
    code = f"{prelude}\n{blocks[-1]}" if prelude else blocks[-1]
    with Sandbox(kind, code, limits) as program:
        for number, test in enumerate(wanted, start=1):
            answer = program.ask(test.asked)
            if test.passes(answer, tolerance=tolerance):
                passed += 1
                continue
            failure = failure or said(test, answer, limits, shown=shown, number=number)
            if not partial:
                break
    share = passed / len(wanted)
    return Reward(
        value=share if partial or share == 1.0 else 0.0,
        correct=share == 1.0,
        extracted_answer=blocks[-1].strip(),
        detail=f"passed {passed} of {len(wanted)} tests. {failure}".strip(),
        feedback=failure or "All tests passed.",
    )


def said(test: ProgramTest, answer: Answer, limits: Limits, *, shown: bool, number: int) -> str:
    """What went wrong in a test, for people and for a correction's prompt."""
    lines = [f"Test {number}: {outcome(answer, limits)}"]
    if shown:
        lines += [
            f"{'Call' if test.is_call else 'Input'}: {short(test.shown_input)}",
            f"Expected: {short(repr(test.expected) if test.is_call else test.expected)}",
        ]
    if answer.end == "exit 0":
        lines.append(f"Got: {short(answer.value if test.is_call else answer.out)}")
    return "\n".join(lines)


def outcome(answer: Answer, limits: Limits) -> str:
    match answer.end:
        case "exit 0":
            return "it wrote too much." if answer.is_cut else "wrong output."
        case "time":
            return f"not done after {limits.seconds:g} s."
        case "signal 9" | "signal 24":
            return f"ended: it took more than {limits.cpu_s:g} s of the processor, or of memory."
        case "signal 25":
            return f"ended: it wrote more than {limits.output_bytes:,} bytes."
        case end:
            reason = answer.err.strip() or end
            return f"ended with an error.\n{short(reason, SHOWN_CHARACTERS * 2)}"


def short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Its beginning and its end."""
    text = text.strip()
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
