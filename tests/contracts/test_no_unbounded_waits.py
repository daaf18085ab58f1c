"""Nothing waits without a deadline: a lost process must end in a message, never in a hang.

The check reads the code. It knows the calls that block by their names, and looks for a timeout
among their arguments.
"""

from __future__ import annotations

import ast

import pytest

from tests.contracts.sources import ROOMS, python_files, shown, tree_of

# Blocks for ever unless `timeout` is given, whatever else is.
NEED_TIMEOUT = {
    "ray.get",
    "ray.wait",
    "asyncio.wait",
    "wait",  # concurrent.futures.wait, imported by its name
    "futures.wait",
    "concurrent.futures.wait",
    "subprocess.run",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
    "urlopen",
    "urllib.request.urlopen",
    "requests.get",
    "requests.post",
}
# Methods that block for ever when they are called with nothing: a process's join (a string's has
# an argument), a future's result, a queue's get (a dict's has an argument), a lock's acquire.
BLOCKING_WHEN_BARE = {"result", "join", "wait", "get", "acquire", "recv", "communicate"}

# (file, function): why what is called there does not wait.
ALLOWED = {
    ("learner/trainer.py", "__iter__"): "a thread of its own lays rows out: nothing it waits for",
    ("learner/tree_attention.py", "tree_being_read"): "a context variable: it has a value at once",
    ("mgrpo/training/tree_feed.py", "feed"): "sampling, which has deadlines, tells it of its end",
    ("mgrpo/training/sampling.py", "settled"): "requests have deadlines, and end it",
    ("cluster/fleet/leases.py", "passed"): "a broadcast, which has a deadline, opens the gate",
    ("mgrpo/trackers/background.py", "_work"): "a daemon thread: waiting for rows is its job",
    ("rewards/pool.py", "score_blocking"): "the future was reported done by a wait with a timeout",
    ("rewards/services/process.py", "_listen"): "a daemon thread: a process's end ends it",
    ("rewards/services/child.py", "take"): "the event loop calls it when there is a message",
    ("rewards/worker.py", "exit_after"): "a daemon thread: waiting for the parent's end is its job",
}


def unbounded_waits(tree: ast.Module) -> list[tuple[str, int, str]]:
    """(function, line, call) of every call that may block for ever."""
    finder = WaitFinder()
    finder.visit(tree)
    return finder.found


class WaitFinder(ast.NodeVisitor):
    """Walks the code, knowing which function it is in."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []
        self.functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.enter(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.enter(node)

    def enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.functions.append(node)
        self.generic_visit(node)
        self.functions.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if self.blocks(node):
            function = self.functions[-1].name if self.functions else "<module>"
            self.found.append((function, node.lineno, ast.unparse(node)[:80]))
        self.generic_visit(node)

    def blocks(self, node: ast.Call) -> bool:
        if ast.unparse(node.func) in NEED_TIMEOUT:
            return not has_timeout(node)
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in BLOCKING_WHEN_BARE:
            return False
        if node.func.attr == "communicate":
            return not has_timeout(node)
        if node.func.attr == "result" and self.is_in_coroutine():
            return False  # a task's result() raises when it is not there; it never waits
        return not node.args and not has_any_keyword(node)

    def is_in_coroutine(self) -> bool:
        return bool(self.functions) and isinstance(self.functions[-1], ast.AsyncFunctionDef)


def has_timeout(node: ast.Call) -> bool:
    """Is there a timeout that is not None? `**kwargs` may bring one, and is trusted."""
    return any(
        keyword.arg is None or ("timeout" in keyword.arg and not is_none(keyword.value))
        for keyword in node.keywords
    )


def has_any_keyword(node: ast.Call) -> bool:
    return any(not is_none(keyword.value) for keyword in node.keywords)


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(reference)",
        "ray.get(reference, timeout=None)",
        "ray.wait(references, num_returns=1)",
        "future.result()",
        "future.result(timeout=None)",
        "process.join()",
        "event.wait()",
        "queue.get()",
        "lock.acquire()",
        "connection.recv()",
        "process.communicate(b'input')",
        "subprocess.run(['ls'], check=True)",
        "urllib.request.urlopen(address)",
        "await asyncio.wait(tasks)",
    ],
)
def test_a_wait_without_a_deadline_is_found(line: str) -> None:
    keyword = "async def" if "await" in line else "def"
    tree = ast.parse(f"{keyword} f():\n    {line}\n")
    assert [(function, number) for function, number, _ in unbounded_waits(tree)] == [("f", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(reference, timeout=3)",
        "future.result(timeout=deadline_s)",
        "future.result(5)",
        "process.join(timeout=5)",
        "', '.join(words)",
        "settings.get('key')",
        "event.wait(2.0)",
        "group.wait(timeout_seconds=4)",
        "subprocess.run(['ls'], **settings, timeout=9)",
        "process.communicate(timeout=2)",
    ],
)
def test_a_wait_with_a_deadline_is_not_found(line: str) -> None:
    assert unbounded_waits(ast.parse(f"def f():\n    {line}\n")) == []


def test_a_finished_task_s_result_in_a_coroutine_is_not_a_wait() -> None:
    assert unbounded_waits(ast.parse("async def f():\n    return task.result()\n")) == []


def test_no_room_waits_without_a_deadline() -> None:
    found, used = [], set()
    for path in python_files(*ROOMS, "scripts"):
        for function, line, call in unbounded_waits(tree_of(path)):
            if (shown(path), function) in ALLOWED:
                used.add((shown(path), function))
            else:
                found.append(f"{shown(path)}:{line} in {function}: {call}")
    assert not found, "no deadline:\n" + "\n".join(found)
    assert used == set(ALLOWED), f"no longer there, so strike out: {set(ALLOWED) - used}"
