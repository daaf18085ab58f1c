"""vLLM's own OpenAI server as a child process on a free port of this machine."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mgrpo.config import EnginesConfig
from mgrpo.errors import DeadlineError, MgrpoError

LOOPBACK = "127.0.0.1"
LOOK_S = 0.5
ANSWER_S = 2.0
END_S = 30.0
"""For a server that was asked to end."""


@contextmanager
def vllm_server(
    policy: Path,
    engines: EnginesConfig,
    *,
    dtype: str,
    name: str,
    is_cpu: bool,
    extra: Sequence[str],
    start_s: float,
) -> Iterator[str]:
    """A context with the server answering; gives its address.

    Args:
        policy: the model's folder.
        engines: the run's, whose settings the server takes.
        dtype: of the weights.
        name: what requests call the model.
        is_cpu: this machine has no GPU.
        extra: further arguments of vLLM's.
        start_s: deadline of its start.

    Raises:
        DeadlineError: it does not answer in time.
        MgrpoError: it ended.
    """
    port = free_port()
    process = subprocess.Popen(
        [
            *server_command(policy, engines, dtype=dtype, name=name, port=port, is_cpu=is_cpu),
            *extra,
        ],
        env={**os.environ, **(cpu_environment(engines) if is_cpu else {})},
        stdout=sys.stderr,
    )
    try:
        address = f"http://{LOOPBACK}:{port}"
        wait_until_healthy(process, address, start_s)
        yield address
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        process.kill()
        process.wait(END_S)


def server_command(
    policy: Path, engines: EnginesConfig, *, dtype: str, name: str, port: int, is_cpu: bool
) -> list[str]:
    """As the run's engines were, but for what the server decides better by itself."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(policy), "--served-model-name", name]
    command += ["--host", LOOPBACK, "--port", str(port), "--dtype", dtype]
    command += ["--tensor-parallel-size", str(engines.tensor_parallel_size)]
    command += ["--gpu-memory-utilization", str(engines.gpu_memory_utilization)]
    if engines.max_model_len is not None:
        command += ["--max-model-len", str(engines.max_model_len)]
    if is_cpu:
        command += ["--enforce-eager", "--max-num-seqs", str(engines.max_num_seqs)]
    return command


def cpu_environment(engines: EnginesConfig) -> dict[str, str]:
    """As `Launcher.engine_environment` has it: without compilation, on all cores."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(engines.cpu_kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCHDYNAMO_DISABLE": "1",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_healthy(process: subprocess.Popen[bytes], address: str, start_s: float) -> None:
    """
    Raises:
        DeadlineError: the server does not answer in time.
        MgrpoError: it ended.
    """
    end = time.monotonic() + start_s
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            raise MgrpoError(f"vLLM's server ended with exit code {code}; its reason is above.")
        if answers(f"{address}/health"):
            return
        time.sleep(LOOK_S)
    raise DeadlineError("vLLM's server to answer", deadline_s=start_s, setting="--start-s")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S):
            return True
    except (OSError, http.client.HTTPException):
        return False
