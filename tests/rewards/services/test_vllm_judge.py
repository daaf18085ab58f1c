"""The shipped policy as a judge, behind vLLM's own OpenAI-compatible server on the CPU.

It knows nothing of judging, so what it says is nonsense; that it has the verdict's form is the
server's doing, by the schema.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from mgrpo.config.rewards import RewardsConfig
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.types import Problem
from rewards.pool import RewardPool

START_S = 500.0
SEVEN = Problem(problem_id="seven", question="What is 3 + 4?", answer="7")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's process computes, too
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until_healthy(process, url, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    raise AssertionError(f"vLLM's server did not start: {log.read_text()[-4000:]}")


@pytest.fixture
def endpoint(tmp_path):
    port, log = free_port(), tmp_path / "server.log"
    options = {
        "model": SHIPPED_DEFAULT_DIR,
        "served-model-name": "judge",
        "host": "127.0.0.1",
        "port": port,
        "dtype": "float32",
        "max-model-len": 1024,
        "max-num-seqs": 4,
        # Line breaks between a schema's keys would be endless with a policy that likes them.
        "structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the engine's processes
        process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_real_endpoint_judges_by_the_schema(endpoint):
    judge = {"judge": "judge", "url": endpoint, "scale": [0, 3], "max_tokens": 200}
    terms = [
        {"check": "math_answer"},
        {**judge, "name": "short", "critique": False},
        {**judge, "name": "long", "max_critique_chars": 40},
        {**judge, "name": "free", "verdict": "json", "weight": 0.0},
    ]
    config = RewardsConfig.model_validate(
        {"terms": terms[:3], "num_processes": 1, "start_deadline_s": START_S}
    )
    with RewardPool(config) as pool:
        rewards = pool.score_blocking(SEVEN, ["\\boxed{7}", "\\boxed{8}", "I do not know."])
    for reward in rewards:
        assert reward.is_usable, reward.detail
        for name in ("judge.short", "judge.long"):
            assert reward.parts[name] in (0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
    assert [reward.correct for reward in rewards] == [True, False, False]

    unschooled = RewardsConfig.model_validate(
        {"terms": [terms[0], terms[3]], "num_processes": 1, "start_deadline_s": START_S}
    )
    with RewardPool(unschooled) as pool:
        (reward,) = pool.score_blocking(SEVEN, ["\\boxed{7}"])
    assert reward.status == "error", reward  # without the schema it does not know the form
    assert f"{endpoint}/chat/completions answered 200 (OK)" in reward.detail
