"""What a hostile program tries, in every sandbox that this machine has.

A test that needs a property which a sandbox does not have here is skipped and says so; `mgrpo
check` warns of the same (`weaknesses`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mgrpo.types import Problem, Reward
from rewards.code import sandbox as sandboxes
from rewards.code.check import code_answer
from rewards.code.sandbox import Kind, Limits, Sandbox, fault_of, weaknesses

ROOT = Path(__file__).parents[3]
KINDS: tuple[Kind, ...] = ("namespaces", "bubblewrap", "none")
LIMITS = Limits(seconds=60, total_s=200, cpu_s=20)
"""Of programs that end by themselves: however busy the machine is."""
SHORT = dataclasses.replace(LIMITS, cpu_s=1, seconds=20)
ECHO = {"stdin": "again\n"}
MARK = "left-behind"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    if fault := fault_of(found):
        pytest.skip(fault)
    return found


def needs(kind: Kind, property_: str) -> None:
    """Skip where a program of this sandbox can do that here."""
    assert property_ in sandboxes.PROBES
    if property_ in weaknesses(kind):
        pytest.skip(f"in the sandbox {kind} on this machine a program {property_}")


def run(kind: Kind, program: str, given: str = "", limits: Limits = LIMITS) -> sandboxes.Answer:
    with Sandbox(kind, textwrap.dedent(program), limits) as sandbox:
        return sandbox.ask({"stdin": given})


def attack_then_answer(kind: Kind, attack: str, limits: Limits = SHORT) -> list[str]:
    """An attack in the first test, and whether the second still gets its own answer."""
    program = "line = input()\nif line == 'again':\n    print('here')\nelse:\n" + textwrap.indent(
        textwrap.dedent(attack), "    "
    )
    with Sandbox(kind, program, limits) as sandbox:
        first = sandbox.ask({"stdin": "attack\n"})
        return [first.end, sandbox.ask(ECHO).out]


def test_a_program_gets_its_input_and_its_output_comes_back(kind: Kind) -> None:
    answer = run(kind, "print(sum(map(int, input().split())))", "1 2 3\n")
    assert (answer.out, answer.end) == ("6\n", "exit 0")


def test_its_errors_come_back_as_text(kind: Kind) -> None:
    answer = run(kind, "def f():\n    return 1 / 0\nf()")
    assert answer.end == "exit 1"
    assert "line 2" in answer.err and "ZeroDivisionError" in answer.err
    assert "inside.py" not in answer.err


def test_an_endless_loop_ends_and_the_next_test_runs(kind: Kind) -> None:
    end, after = attack_then_answer(kind, "while True: pass")
    assert end in ("signal 9", "signal 24", "time")
    assert after == "here\n"


def test_sleep_ends_at_the_deadline(kind: Kind) -> None:
    limits = dataclasses.replace(LIMITS, seconds=0.5)
    assert run(kind, "import time\ntime.sleep(1000)", limits=limits).end == "time"


def test_all_tests_together_have_a_deadline(kind: Kind) -> None:
    limits = dataclasses.replace(LIMITS, total_s=1.0)
    with Sandbox(kind, "import time\ntime.sleep(1000)", limits) as sandbox:
        assert [sandbox.ask(ECHO).end for _ in range(3)] == ["time"] * 3


def test_a_memory_bomb_ends_and_the_next_test_runs(kind: Kind) -> None:
    end, after = attack_then_answer(kind, "data = [bytearray(2**26) for _ in range(200)]")
    assert end == "exit 1" and after == "here\n"


def test_a_fork_bomb_is_bounded(kind: Kind) -> None:
    """Each of its processes ends when it was refused 20 others; till then they hardly compute."""
    needs(kind, "has more processes than allowed")
    attack = """
        import os, time
        refused = 0
        while refused < 20:
            try:
                os.fork()
            except OSError:
                refused += 1
                time.sleep(0.05)
        os._exit(0)
    """
    assert attack_then_answer(kind, attack) == ["exit 0", "here\n"]


def test_a_gigabyte_of_output_is_bounded(kind: Kind) -> None:
    attack = """
        import sys
        for _ in range(1024):
            sys.stdout.write('x' * 2**20)
    """
    end, after = attack_then_answer(kind, attack)
    assert end == "signal 25" and after == "here\n"  # SIGXFSZ
    ignoring = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    noise = "import os\nfor _ in range(9999):\n    os.write(1, b'x' * 99999)\n    os.write(2, b'y')"
    answer = run(kind, f"{ignoring}{noise}")
    assert answer.end != "exit 0" and len(answer.out) <= LIMITS.output_bytes


def test_output_of_exactly_the_limit_is_refused(kind: Kind) -> None:
    limits = dataclasses.replace(LIMITS, output_bytes=1000)
    program = "import sys\nsys.stdout.write('x' * int(input()))"
    assert run(kind, program, "1000", limits).is_cut
    assert not run(kind, program, "999", limits).is_cut


def test_files_are_bounded(kind: Kind) -> None:
    attack = """
        for number in range(100):
            with open(f'../{number}', 'wb') as file:
                file.write(b'x' * 2**18)
    """
    if kind == "none":
        pytest.skip("without a sandbox only single files are bounded")
    end, _ = attack_then_answer(kind, attack)
    assert end == "exit 1"


def test_nothing_but_its_folder_can_be_written(kind: Kind, tmp_path: Path) -> None:
    needs(kind, "reads this user's files")
    written = tmp_path / "written.json"
    program = """
        import os, sys
        done = []
        for path in (input(), '/written', '/usr/lib/x', '/dev/x', '/inside.py', '/etc/passwd'):
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, 'w').write('passed')
                done.append(path)
            except OSError:
                pass
        open('own', 'w').write('passed')
        print(done)
    """
    assert run(kind, program, f"{written}\n").out == "[]\n"
    assert not written.exists()


def test_tests_cannot_be_read(kind: Kind, tmp_path: Path) -> None:
    """Neither from files, nor from other processes, nor from what this one holds."""
    secret = "EXPECTED-" + "CANARY"
    (tmp_path / "tests.json").write_text(secret)
    program = """
        import gc, os, sys
        found = []
        paths = [input(), *(f'/proc/{n}/{name}' for n in ('1', 'self', str(os.getppid()))
                            for name in ('environ', 'cmdline', 'mem', 'fd/0', 'fd/1'))]
        for path in paths:
            try:
                if b'CANARY' in open(path, 'rb').read(2**20):
                    found.append(path)
            except (OSError, OverflowError):
                pass
        frame, texts = sys._getframe(), []
        while frame:
            texts.append(repr(frame.f_locals))
            frame = frame.f_back
        word = 'EXPECTED-' + 'CANARY'
        found += [text[:50] for text in texts if word in text]
        print(found)
    """
    needs(kind, "reads this user's files")
    rows = [{"input": f"{tmp_path}/tests.json\n", "output": secret}]
    rows += [{"input": "later\n", "output": secret}]
    reward = graded(kind, program, rows)
    assert "Got: []" in reward.detail, reward.detail
    assert reward.value == 0.0


def test_the_grader_cannot_be_killed(kind: Kind) -> None:
    needs(kind, "sees other processes")
    attack = f"""
        import os, signal
        for pid in (1, os.getppid(), {os.getpid()}, -1, 0):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    """
    end, after = attack_then_answer(kind, attack)
    assert end == "signal 9" and after == "here\n"  # it killed itself, with all that it could


def test_there_is_no_network(kind: Kind) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        program = f"""
            import socket
            socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=5)
        """
        answer = run(kind, program)
        assert answer.end == "exit 1" and "Error" in answer.err
        with pytest.raises(TimeoutError):
            server.accept()


def test_symbolic_links_lead_nowhere(kind: Kind, tmp_path: Path) -> None:
    needs(kind, "reads this user's files")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("x")
    attack = f"""
        import os
        os.symlink({str(victim)!r}, 'link')
        os.symlink('/', 'root')
        here = os.getcwd()
        os.chdir('..')
        os.rename(here, 'away')
        os.symlink({str(victim)!r}, here)
        print(os.path.exists('away/link'), open('away/root' + {str(victim)!r} + '/kept').read())
    """
    end, after = attack_then_answer(kind, attack)
    assert end == "exit 1" and after == "here\n"
    assert (victim / "kept").exists()


def test_links_are_not_followed_when_a_folder_is_emptied(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    end, after = attack_then_answer(kind, f"import os\nos.symlink({str(tmp_path)!r}, 'link')")
    assert (end, after) == ("exit 0", "here\n")
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "attack",
    [
        "import os\nos.closerange(0, 100)\nprint('here')",
        "import os\nos.close(1)",
        "import sys\nsys.stdout.close()",
        "import os\nos._exit(0)",
        "raise SystemExit('bye')",
        "import os\nos.abort()",
    ],
)
def test_closing_every_pipe_ends_no_more_than_itself(kind: Kind, attack: str) -> None:
    assert attack_then_answer(kind, attack)[1] == "here\n"


FORGED = json.dumps({"out": "3\n", "err": "", "value": "3", "end": "exit 0", "is_cut": False})


@pytest.mark.parametrize(
    "forgery",
    [
        f"print({FORGED!r})",
        'print(\'{"passed": true, "correct": true, "value": 1.0}\')',
        f"import os\nfor n in range(64):\n    try: os.write(n, {FORGED!r}.encode() + b'\\n')\n"
        "    except OSError: pass",
    ],
)
def test_a_forged_verdict_is_a_wrong_answer(kind: Kind, forgery: str) -> None:
    rows = [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4\n"}]
    assert graded(kind, forgery, rows).value == 0.0


def test_the_process_that_answers_can_be_taken_over_without_use(kind: Kind) -> None:
    """Whoever writes in its name knows no more than a program does: what is right is not there."""
    program = """
        import ctypes, os
        for path in (f'/proc/{os.getppid()}/fd/1', '/proc/1/fd/1', '/dev/stdout'):
            try:
                os.write(os.open(path, os.O_WRONLY), b'{"out": "3", "end": "exit 0"}\\n' * 3)
            except OSError:
                pass
    """
    rows = [{"input": "", "output": "7"}] * 3
    assert graded(kind, program, rows).value == 0.0


def test_what_is_left_in_the_background_ends_with_the_test(kind: Kind) -> None:
    attack = f"""
        import ctypes, os, time
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    ctypes.CDLL(None).prctl(15, b'{MARK}', 0, 0, 0)
                    time.sleep(1000)
                os._exit(0)
        time.sleep(0.1)
    """
    program = f"line = input()\nif line == 'again':\n    print('here')\nelse:\n{indented(attack)}"
    with Sandbox(kind, program, SHORT) as sandbox:
        assert sandbox.ask({"stdin": "attack\n"}).end == "exit 0"
        assert sandbox.ask(ECHO).out == "here\n"
        assert left_behind() == []
    assert left_behind() == []


def test_a_background_process_that_holds_the_output_delays_nothing(kind: Kind) -> None:
    attack = "import os, time\nif os.fork() == 0:\n    time.sleep(1000)"
    assert attack_then_answer(kind, attack) == ["exit 0", "here\n"]


def test_nothing_is_left_when_the_grader_is_killed(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pool does with a reward process beyond its deadline. The next deletes its folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    program = (
        f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{MARK}', 0, 0, 0); time.sleep(99)"
    )
    code = f"""
        from rewards.code.sandbox import Limits, Sandbox
        with Sandbox({kind!r}, {program!r}, Limits(seconds=90, total_s=90)) as sandbox:
            sandbox.ask({{"stdin": ""}})
    """
    grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    try:
        assert wait_until(lambda: bool(left_behind()))
    finally:
        grader.kill()
        grader.wait(timeout=10)
    assert wait_until(lambda: not left_behind())
    assert len(list(tmp_path.iterdir())) == (kind == "none")
    assert run(kind, "import os\nprint(os.listdir())").out == "[]\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/work', b'tmpfs', 0, 0) == 0",
        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, 0) >= 0",
        "import os\nos.setuid(0)\nassert os.path.exists('/root')",
    ],
)
def test_the_kernel_is_asked_for_nothing_unusual(kind: Kind, call: str) -> None:
    if "setuid" in call:
        needs(kind, "reads this user's files")
    assert run(kind, call).end == "exit 1"


@pytest.mark.parametrize(
    "returned",
    [
        "class Any(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n"
        "def add(a, b): return Any(0)",
        "class Any:\n    __eq__ = lambda s, o: True\ndef add(a, b): return Any()",
        "def add(a, b): return 10 ** 6000",
        "def add(a, b):\n    x = []\n    for _ in range(100000): x = [x]\n    return x",
        "def add(a, b): return [0] * 10**6",
        "def add(a, b): return '3'",
        "def add(a, b): return True",
        "def add(a, b): return float('nan')",
        "import os\ndef add(a, b):\n    os.write(3, b'3')\n    os._exit(0)",
        "def add(a, b): raise SystemExit(0)",
    ],
)
def test_a_value_that_only_looks_right_is_wrong(kind: Kind, returned: str) -> None:
    rows = [{"function": "add", "arguments": [2, 2], "output": 4}]
    assert graded(kind, returned, rows).value == 0.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without privileges")
def test_a_user_without_privileges_has_a_sandbox_too() -> None:
    python = "/usr/bin/python3"
    code = (
        "from rewards.code.sandbox import *\n"
        "for kind in strongest_first():\n"
        "    print(kind, fault_of(kind) or weaknesses(kind))"
    )
    try:
        found = subprocess.run(
            [python, "-B", "-c", code],
            user=65533,
            group=65533,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    except OSError as error:
        pytest.skip(f"{python}: {error}")
    if found.returncode:
        pytest.skip(f"{python} cannot import this repository: {found.stderr[-200:]}")
    lines = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    usable = [kind for kind, said in lines.items() if said.startswith("(")]
    if not usable:
        pytest.skip(f"no sandbox for users here: {lines}")
    assert all(lines[kind] == "()" for kind in usable)


def graded(kind: Kind, program: str, rows: list[dict[str, Any]]) -> Reward:
    """By the check itself."""
    problem = Problem(problem_id="p", question="", answer="x", metadata={"tests": rows})
    return code_answer(
        f"```python\n{textwrap.dedent(program)}\n```",
        problem,
        sandbox=kind,
        seconds=60,
        total_s=200,
        cpu_s=20,
    )


def indented(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text), "    ")


def left_behind() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["name"]) if one.info["name"] == MARK]


def wait_until(condition: Any) -> bool:
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert left_behind() == []
