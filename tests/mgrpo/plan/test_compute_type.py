"""`learner.dtype: auto` on a CPU: by its instruction sets, recorded, and kept by a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mgrpo.plan.compute_type import cpu_flags, typed_here, with_dtype

from learner.deepspeed_config import is_bfloat16
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.plan import compute_type
from mgrpo.storage.run_directory import recorded_recipe, resume_point
from tests.mgrpo.storage.test_checkpoints import make

QUICKSTART = load_recipe("quickstart", ["cluster.address=local"])


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Of a machine without GPUs."""
    found = {"fpu", "avx2"}
    monkeypatch.setattr(compute_type, "local_gpus", lambda: 0)
    monkeypatch.setattr(compute_type, "cpu_flags", lambda: found)
    return found


@pytest.mark.parametrize(
    ("flag", "dtype"),
    [("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx512f", "float32")],
)
def test_the_processor_decides(flags: set[str], flag: str, dtype: str) -> None:
    flags.add(flag)
    config, said = typed_here(QUICKSTART)
    assert config.learner.dtype == dtype
    assert is_bfloat16(dtype, config.model.dtype, "cpu") is (dtype == "bfloat16")
    assert (flag in said) is (dtype == "bfloat16")
    assert typed_here(config) == (config, "")


def test_a_type_that_is_given_stays(flags: set[str]) -> None:
    flags.add("amx_bf16")
    config = load_recipe("quickstart", ["cluster.address=local", "learner.dtype=float32"])
    assert typed_here(config) == (config, "")


@pytest.mark.parametrize("setting", ["cluster.device=cuda", "cluster.address=ray://head:10001"])
def test_gpus_and_clusters_are_left_to_the_learner(flags: set[str], setting: str) -> None:
    flags.add("amx_bf16")
    config = load_recipe("quickstart", ["cluster.address=local", setting])
    assert typed_here(config) == (config, "")


@pytest.mark.parametrize("recorded", ["bfloat16", "float32", "auto"])
def test_a_resumed_run_keeps_its_type_on_another_machine(
    flags: set[str], tmp_path: Path, recorded: str
) -> None:
    """Runs of versions before this choice recorded auto, which was float32."""
    make(tmp_path, 2)
    save_recipe(with_dtype(QUICKSTART, recorded), tmp_path / "config.yaml")
    if recorded != "bfloat16":
        flags.add("amx_bf16")
    config, _ = typed_here(QUICKSTART, recorded_recipe(tmp_path))
    assert config.learner.dtype == recorded
    assert resume_point(tmp_path, config, note=lambda line: None) is not None


def test_a_machine_s_flags_are_read_from_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(compute_type, "CPU_INFO", file)
    assert cpu_flags() == set()
    file.write_text("model name\t: X\nflags\t\t: fpu avx512_bf16\n\nflags\t\t: fpu\n")
    assert {"fpu", "avx512_bf16"} <= cpu_flags()
