"""Known GPUs: their memory as the driver reports it, and their speed by the data sheet.

Speeds are for dense bfloat16 (float16 where there is no bfloat16) and serve the rough times of
a plan only; memory decides whether something fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mgrpo.errors import ConfigError, ConfigFault

MIB = 2**20
TEXT = re.compile(r"(?:(?P<count>\d+)[xX])?(?P<name>[A-Za-z][\w-]*?)(?:-(?P<gb>\d+)GB)?")
TEXT_FORM = "COUNTxNAME-MEMORYGB, such as 8xH100-80GB"


@dataclass(frozen=True, slots=True)
class GpuType:
    """One kind of GPU."""

    name: str  # "H100-80GB"
    memory_bytes: int
    tflops: float | None = None  # dense, 16 bit; None: unknown
    bandwidth_gbps: float | None = None  # of its memory, in 1e9 bytes per second
    has_bfloat16: bool = True


KNOWN = {
    gpu.name: gpu
    for gpu in (
        GpuType("T4-16GB", 15360 * MIB, 65, 300, has_bfloat16=False),
        GpuType("V100-16GB", 16384 * MIB, 125, 900, has_bfloat16=False),
        GpuType("V100-32GB", 32768 * MIB, 125, 900, has_bfloat16=False),
        GpuType("L4-24GB", 23034 * MIB, 121, 300),
        GpuType("A10G-24GB", 23028 * MIB, 70, 600),
        GpuType("RTX4090-24GB", 24564 * MIB, 165, 1008),
        GpuType("L40S-48GB", 46068 * MIB, 362, 864),
        GpuType("A6000-48GB", 49140 * MIB, 155, 768),
        GpuType("A100-40GB", 40960 * MIB, 312, 1555),
        GpuType("A100-80GB", 81920 * MIB, 312, 2039),
        GpuType("H100-80GB", 81559 * MIB, 989, 3350),
        GpuType("H200-141GB", 143771 * MIB, 989, 4800),
        GpuType("B200-180GB", 183359 * MIB, 2250, 8000),
    )
}

RAY_NAMES = {  # values of Ray's own node label, ray.io/accelerator-type
    "T4": "T4-16GB",
    "L4": "L4-24GB",
    "A10G": "A10G-24GB",
    "L40S": "L40S-48GB",
    "A100-40G": "A100-40GB",
    "A100-80G": "A100-80GB",
    "H100": "H100-80GB",
    "H200": "H200-141GB",
    "B200": "B200-180GB",
}


def parse_gpus(text: str) -> tuple[int, GpuType]:
    """ "8xH100-80GB" as a count and a kind; an unknown GPU needs its memory in the text.

    Raises:
        ConfigError: it is not of that form, or not a known GPU.
    """
    match = TEXT.fullmatch(text.strip())
    if match is None or match["count"] == "0":
        raise gpus_error(text, f"is not of the form {TEXT_FORM}.")
    count, gb = int(match["count"] or 1), match["gb"]
    named = [gpu for gpu in KNOWN.values() if gpu.name.split("-")[0] == match["name"].upper()]
    if gb is None and len(named) != 1:
        sizes = " or ".join(gpu.name for gpu in named)
        raise gpus_error(text, f"could be {sizes}." if named else "is not a known GPU.")
    if gb is None:
        return count, named[0]
    exact = [gpu for gpu in named if gpu.name.endswith(f"-{gb}GB")]
    if exact:
        return count, exact[0]
    return count, GpuType(f"{match['name']}-{gb}GB", int(gb) * 10**9)


def gpus_error(text: str, reason: str) -> ConfigError:
    hint = f"Known: {', '.join(KNOWN)}; any other by its name and memory, as in 4xNEW-96GB."
    return ConfigError([ConfigFault("--gpus", text, reason, hint)], source="the command")
