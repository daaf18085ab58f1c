"""A check that does the worst that its completion says, and one that says how its process is."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

from mgrpo.types import Problem, Reward

SLEEP = ["sh", "-c", "sleep 300; :"]  # the next argument is its name


class Unpicklable(float):
    def __reduce__(self):
        raise pickle.PicklingError("no")


class Unreadable(Exception):
    def __str__(self):
        raise KeyboardInterrupt


def attack(completion: str, problem: Problem) -> object:
    return ATTACKS[completion](problem)


def fine(_):
    return 1.0


def hang(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(300)


def regular_expression(_):
    return bool(re.match(r"(a+)+$", "a" * 40 + "!"))


def exits(_):
    os._exit(0)


def segfault(_):
    import ctypes

    ctypes.string_at(0)


def aborts(_):
    os.abort()


def stops_itself(_):
    os.kill(os.getpid(), signal.SIGSTOP)


def memory(_):
    return float(len(bytearray(2**34)))  # 16 GiB


def prints(_):
    for _number in range(100):
        print("x" * 2**20)
    return 1.0


def long_texts(_):
    text = "y" * 50_000_000
    return Reward(value=1.0, detail=text, feedback=text, extracted_answer=text, parts={text: 1.0})


def many_parts(_):
    return Reward(value=1.0, parts={str(number): 1.0 for number in range(100_000)})


def unpicklable(_):
    return Reward(value=1.0, parts={"x": Unpicklable(1.0)}, detail="z")


def removed(_):
    return Reward(value=1.0, status="removed")


def text_raises(_):
    raise Unreadable


def breaks_the_program(_):
    import mgrpo.types

    mgrpo.types.Reward = None
    sys.modules["rewards.score"].Reward = None
    return 1.0


def huge(_):
    return Reward(value=sys.float_info.max)


def children_and_hang(problem):
    for number in range(4):
        subprocess.Popen([*SLEEP, problem.question], start_new_session=number % 2 == 0)
    orphan(problem)
    time.sleep(300)


def children_and_exit(problem):
    for _ in range(4):
        subprocess.Popen([*SLEEP, problem.question])
    orphan(problem)
    os._exit(1)


def orphan(problem):
    """A grandchild whose parent ends at once."""
    subprocess.run(["sh", "-c", 'sh -c "sleep 300; :" "$0" &', problem.question], check=True)


def fork_bomb(_):
    for _number in range(6):  # 64 processes
        os.fork()
    time.sleep(300)


def threads(_):
    for _number in range(70):
        threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    return 1.0


def process_id(_):
    return float(os.getpid())


ATTACKS = {name: one for name, one in list(globals().items()) if callable(one)}
