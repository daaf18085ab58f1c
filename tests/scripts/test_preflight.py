"""scripts/preflight.sh: every fault at once, each with a remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contracts.sources import ROOT

DEADLINE_S = 30
TOOLS = ("awk", "cat", "grep", "sed", "timeout")
DEBIAN = "Linux-6.1.0-amd64-x86_64-with-glibc2.36"
# Has what each question is about, unless the question holds a word in `lacks`.
PYTHON = """#!/bin/sh
for lacking in {lacks}; do case "$2" in *"$lacking"*) exit 1 ;; esac; done
case "$2" in *version_info*) echo python3.11 ;; *platform*) echo "{platform}" ;; esac
"""
DISK = """#!/bin/sh
echo "Filesystem 1024-blocks Used Available Capacity Mounted"
echo "/dev/disk 99999999 9 {kib} 1% /"
"""
NO_GPU = "#!/bin/sh\necho 'No devices were found'\nexit 9\n"


@dataclass
class Machine:
    """A machine on which everything is there, but for a GPU, until a test takes something away."""

    root: Path

    def has(self, name: str, text: str = "#!/bin/sh\n") -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def has_python(self, *, lacks: str = "", platform: str = DEBIAN) -> None:
        self.has("python", PYTHON.format(lacks=lacks, platform=platform))

    def has_disk(self, gib: float) -> None:
        self.has("df", DISK.format(kib=int(gib * 1024**2)))

    def has_memory(self, gib: float) -> None:
        self.has_file("proc/meminfo", f"MemTotal: 9 kB\nMemAvailable:    {int(gib * 2**20)} kB\n")

    def has_file(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.root / "bin" / name).unlink()

    def look(self, goal: str, *extra: str) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash
        return subprocess.run(
            [
                bash,
                str(ROOT / "scripts/preflight.sh"),
                goal,
                *extra,
                *(["python"] if extra else []),
            ],
            env={"PATH": str(self.root / "bin"), "PREFLIGHT_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def fault(self, goal: str = "setup", extra: str = "cpu") -> str:
        """The one fault, with its remedy on one line."""
        found = self.look(goal, extra)
        assert found.returncode == 2, found.stderr
        assert found.stderr.startswith("fault: ")
        assert found.stderr.count("\nfault: ") + found.stderr.count("\nwarning: ") == 0
        return " ".join(found.stderr.split())

    def warning(self, goal: str = "setup", extra: str = "cpu") -> str:
        """The one warning, with its remedy on one line."""
        found = self.look(goal, extra)
        assert found.returncode == 0, found.stderr
        assert found.stderr.startswith("warning: ")
        assert found.stderr.count("\nwarning: ") == 0
        return " ".join(found.stderr.split())

    def is_good(self, goal: str = "setup", extra: str = "cpu") -> bool:
        found = self.look(goal, extra)
        return (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    machine = Machine(tmp_path)
    for compiler in ("cc", "c++"):
        machine.has(compiler)
    machine.has("nvidia-smi", NO_GPU)
    machine.has_python()
    machine.has_disk(80)
    machine.has_memory(16)
    machine.has_file("proc/cpuinfo", "flags : fpu avx2 fma\n")
    return machine


def test_a_good_machine_has_no_faults(machine: Machine) -> None:
    assert machine.is_good()
    assert machine.is_good("quickstart")


def test_the_python_of_these_tests_answers_the_questions(machine: Machine) -> None:
    """It installed what runs them, so that it can make environments, and loads libnuma."""
    machine.has("python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    assert machine.is_good()


def test_the_cuda_build_needs_no_libnuma(machine: Machine) -> None:
    machine.has("nvidia-smi", "#!/bin/sh\necho 580.95.05\n")
    machine.has_python(lacks="libnuma")
    assert machine.is_good(extra="gpu")


ON = "Linux-6.1.0-amd64-"
OLD_CPU = "flags : fpu sse2 avx\n"
Change = Callable[[Machine], None]


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (lambda m: m.has_python(lacks="venv"), "virtual environments", "python3.11-venv"),
        (lambda m: m.has_python(lacks="Python.h"), "Python.h", "python3.11-dev"),
        (lambda m: m.lacks("cc"), "no compiler for C.", "build-essential"),
        (lambda m: m.lacks("c++"), "no compiler for C++.", "gcc-c++"),
        (lambda m: m.has_python(lacks="libnuma"), "no libnuma.so.1", "install libnuma1"),
        (lambda m: m.has_python(platform="macOS-15.1-arm64"), "This is macOS", "WSL 2"),
        (lambda m: m.has_python(platform=f"{ON}x86_64-with-musl1.2"), "musl", "not Alpine"),
        (
            lambda m: m.has_python(platform=f"{ON}x86_64-with-glibc2.17"),
            "with-glibc2.17",
            "Ubuntu 20.04",
        ),
        (
            lambda m: m.has_python(platform=f"{ON}riscv64-with-glibc2.39"),
            "riscv64",
            "Use such a machine",
        ),
        (
            lambda m: m.has_file("proc/cpuinfo", OLD_CPU),
            "amd64-x86_64 without AVX2-with-glibc2.36",
            "host's AVX2",
        ),
    ],
)
def test_each_obstacle_is_fatal_and_has_a_remedy(
    machine: Machine, change: Change, what: str, remedy: str
) -> None:
    change(machine)
    fault = machine.fault()
    assert what in fault
    assert remedy in fault


def test_another_compiler_will_do(machine: Machine) -> None:
    machine.lacks("cc", "c++")
    for compiler in ("clang", "g++"):
        machine.has(compiler)
    assert machine.is_good()


def test_a_kernel_may_be_named_after_its_processor(machine: Machine) -> None:
    machine.has_python(platform="Linux-5.14.0-427.el9.x86_64-x86_64-with-glibc2.34")
    assert machine.is_good()
    machine.has_file("proc/cpuinfo", OLD_CPU)
    assert "without AVX2" in machine.fault()


@pytest.mark.parametrize("minor", [28, 36, 40])
def test_a_newer_c_library_will_do(machine: Machine, minor: int) -> None:
    machine.has_python(platform=f"{ON}x86_64-with-glibc2.{minor}")
    assert machine.is_good()


def test_a_full_disk_is_named_with_what_is_missing(machine: Machine) -> None:
    machine.has_disk(1.5)
    fault = machine.fault()
    assert "1 GiB of disk are free here; the installation needs 6." in fault
    assert "Free 5 GiB" in fault
    machine.has_disk(7)
    assert machine.is_good()
    machine.has("nvidia-smi", "#!/bin/sh\necho 580.95.05\n")
    assert "needs 20" in machine.fault(extra="gpu")


def test_an_aarch64_processor_needs_no_avx2_and_has_no_cuda_build(machine: Machine) -> None:
    machine.has_python(platform=f"{ON}aarch64-with-glibc2.36")
    machine.has_file("proc/cpuinfo", "Features : fp asimd\n")
    machine.has("nvidia-smi", "#!/bin/sh\necho 580.95.05\n")
    assert machine.is_good()
    assert "aarch64" in machine.fault(extra="gpu")


def test_little_memory_is_a_warning_for_setup_and_fatal_for_the_quickstart(
    machine: Machine,
) -> None:
    machine.has_memory(3.5)
    assert "3 GiB of memory are available; the quickstart needs 6." in machine.warning()
    assert "3 GiB of memory" in machine.fault(goal="quickstart")


def test_where_all_is_installed_memory_matters_to_the_quickstart_alone(machine: Machine) -> None:
    machine.lacks("cc", "c++")
    machine.has_memory(3)
    assert machine.look("setup").stderr == ""
    found = machine.look("quickstart")
    assert found.returncode == 2
    assert found.stderr.startswith("fault: 3 GiB of memory")
    machine.has_memory(6)
    assert machine.look("quickstart").returncode == 0


def test_only_the_gpu_extra_asks_for_a_gpu(machine: Machine) -> None:
    assert "nvidia-smi" in machine.fault(extra="gpu")
    machine.has("nvidia-smi", "#!/bin/sh\necho 580.95.05\necho 580.95.05\n")
    assert machine.is_good(extra="gpu")
    machine.lacks("nvidia-smi")
    assert "GOAL=image" in machine.fault(extra="gpu")


def test_an_image_for_gpus_is_made_without_one(machine: Machine) -> None:
    assert "GOAL=image" in machine.warning("image", "gpu")
    machine.lacks("cc")
    assert "no compiler" in machine.fault("image")


def test_an_old_driver_is_a_warning(machine: Machine) -> None:
    machine.has("nvidia-smi", "#!/bin/sh\necho 550.54\n")
    assert "driver is 550" in machine.warning(extra="gpu")


def test_all_faults_are_listed_at_once(machine: Machine) -> None:
    machine.lacks("cc", "c++")
    machine.has_python(lacks="Python.h libnuma", platform=f"{ON}x86_64-with-musl1.2")
    machine.has_disk(1)
    machine.has_memory(1)
    found = machine.look("quickstart", "cpu")
    assert found.returncode == 2
    assert found.stderr.count("fault: ") == 7


@pytest.mark.parametrize(
    ("limit", "gib"), [("max", 5), ("2147483648", 2), ("9223372036854771712", 5)]
)
@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_s_limit_counts_where_it_is_less_than_what_is_free(
    machine: Machine, file: str, limit: str, gib: int
) -> None:
    machine.has_memory(5)
    machine.has_file(f"sys/fs/cgroup/{file}", f"{limit}\n")
    assert f"{gib} GiB of memory" in machine.warning()


def test_unknown_memory_is_no_obstacle(machine: Machine) -> None:
    (machine.root / "proc/meminfo").unlink()
    assert machine.is_good("quickstart")
