"""scripts/lock.py: what uv answers for each machine, as the lines that pip reads."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from scripts import lock
from scripts.lock import PROCESSORS, PYTHONS, Machine, Pins, render, resolve

MACHINES = list(product(PYTHONS, PROCESSORS))


def found(pins: dict[Machine, Pins]) -> dict[Machine, Pins]:
    return {machine: pins.get(machine, {}) for machine in MACHINES}


def test_a_pin_for_every_machine_has_all_their_hashes_and_no_marker() -> None:
    pins = found(
        {machine: {"rich==15.0.0": {f"{at}b", "a"}} for at, machine in enumerate(MACHINES)}
    )
    own = [f"{at}b" for at in range(len(MACHINES))]
    hashes = "".join(f" \\\n    --hash=sha256:{one}" for one in [*own, "a"])
    assert render("rich==15.0.0", pins) == f"rich==15.0.0{hashes}"


def test_a_pin_says_which_machines_need_it() -> None:
    needed: Pins = {"intel-openmp==1": {"a"}}
    on_intel = found({(python, "x86_64"): needed for python in PYTHONS})
    expected = 'intel-openmp==1 ; platform_machine == "x86_64" \\\n    --hash=sha256:a'
    assert render("intel-openmp==1", on_intel) == expected
    on_old = found({("3.11", "x86_64"): needed})
    both = 'python_version == "3.11" and platform_machine == "x86_64"'
    assert render("intel-openmp==1", on_old) == f"intel-openmp==1 ; {both} \\\n    --hash=sha256:a"
    soup: Pins = {"soup==1": {"a"}}
    on_new = found(dict.fromkeys(product(PYTHONS[1:], PROCESSORS), soup))
    assert render("soup==1", on_new).startswith('soup==1 ; python_version in "3.12 3.13" \\')


def test_a_file_for_one_processor_has_no_marker_for_it() -> None:
    pins = {(python, "x86_64"): {"vllm==1": {"a"}} for python in PYTHONS}
    assert render("vllm==1", pins) == "vllm==1 \\\n    --hash=sha256:a"


def test_machines_that_no_marker_describes_are_refused() -> None:
    needed: Pins = {"odd==1": {"a"}}
    with pytest.raises(SystemExit, match="odd==1 is needed on"):
        render("odd==1", found({("3.11", "x86_64"): needed, ("3.12", "aarch64"): needed}))


def test_torch_is_not_taken_for_its_cpu_build() -> None:
    pins = found({machine: {"torch==2.13.0": {"a"}} for machine in MACHINES})
    assert render("torch==2.13.0", pins).startswith("torch===2.13.0 \\")


def test_wheels_go_before_source_archives_and_what_another_file_has_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def uv(machine: Machine, *arguments: str, output: Path) -> None:
        asked.append(arguments)
        if output.suffix == ".txt":
            assert output.read_text() == "rich==14.0.0\n"  # the versions to keep, if they fit
            output.write_text("numpy==2.3.5\nrich==15.0.0\nzss==1.2.0\n")
            return
        assert Path(arguments[0]).read_text() == "rich==15.0.0\nzss==1.2.0"
        sdist = '[[packages]]\nname = "{}"\nversion = "{}"\nsdist.hashes.sha256 = "source"\n'
        wheel = f'wheels = [{{hashes = {{sha256 = "{machine[0]}"}}}}]\n'
        output.write_text(sdist.format("rich", "15.0.0") + wheel + sdist.format("zss", "1.2.0"))

    monkeypatch.setattr(lock, "compile_pins", uv)
    file = tmp_path / "dev.txt"
    file.write_text("rich==14.0.0\n")
    pins = resolve(
        file, ["--extra=dev"], machines=MACHINES[:1], unused=[], overrides=[], left_out={"numpy"}
    )
    assert pins == {MACHINES[0]: {"rich==15.0.0": {"3.11"}, "zss==1.2.0": {"source"}}}
    assert "--extra=dev" in asked[0] and "--no-deps" in asked[1]
