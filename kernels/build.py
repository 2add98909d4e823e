"""Compiles the CUDA sources with nvcc, to machine code (fatbins) and to PTX that every supported driver understands.

A fatbin holds machine code for every architecture of `ARCHITECTURES` that nvcc knows, and PTX of the oldest. A driver
loads it only if the driver is as new as that nvcc: a CUDA 12 driver loads no code of nvcc 13. So PTX of ISA
`PTX_ISA` lies beside it, which every supported driver compiles for its GPU. `portable_ptx` says why that is right.
This file needs the standard library only, so that building the package can use it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "FLAGS",
    "HERE",
    "PTX_ISA",
    "SOURCES",
    "KernelBuildError",
    "Resources",
    "architectures",
    "compile_fatbin",
    "compile_for",
    "compile_ptx",
    "find_nvcc",
    "portable_ptx",
    "resources",
    "shipped_name",
    "source_key",
]

SOURCES = ("warp", "decode", "average")  # .cu; a fatbin each
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
PTX_ISA = "7.4"  # of CUDA 11.4, the oldest driver that the device accepts (`cudadriver.LEAST_DRIVER`)
FLAGS = ("-O3", "-std=c++17")
HERE = Path(__file__).parent


class KernelBuildError(Exception):
    """No code for the GPU can be compiled here."""


@dataclass(frozen=True)
class Resources:
    """A kernel's resources on one architecture, as ptxas reports them. Local memory holds what registers could not."""

    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


def find_nvcc() -> Path | None:
    """Return nvcc: on PATH, in CUDA_HOME or CUDA_PATH, or where CUDA is installed by default."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [str(Path(home) / "bin") for home in homes if home]
    for folder in (None, *folders, "/usr/local/cuda/bin"):
        path = shutil.which("nvcc", path=folder)
        if path:
            return Path(path)
    return None


def architectures(nvcc: Path) -> tuple[int, ...]:
    """Return the members of `ARCHITECTURES` that this nvcc knows."""
    listed = _listed(nvcc)
    return tuple(architecture for architecture in ARCHITECTURES if architecture in listed)


def compile_fatbin(source: str, target: Path, nvcc: Path, codes: Sequence[str] | None = None) -> str:
    """Compile `source`.cu into `target` for `codes` (sm_NN, or compute_NN for PTX); by default for all architectures.

    Returns the report of nvcc and ptxas, which `resources` reads. Raises `KernelBuildError`.
    """
    if codes is None:
        supported = _supported(nvcc)
        codes = [f"compute_{supported[0]}", *(f"sm_{architecture}" for architecture in supported)]
    options = [f"-gencode=arch=compute_{code.split('_')[1]},code={code}" for code in codes]
    command = [str(nvcc), *FLAGS, "--fatbin", "-Xptxas=-v", "--threads=0", *options, "-o", str(target)]
    return _run([*command, _path(source)], f"Kernel {source} could not be compiled for {', '.join(codes)}")


def compile_ptx(source: str, target: Path, nvcc: Path) -> None:
    """Compile `source`.cu to PTX of the oldest architecture, its ISA lowered to `PTX_ISA`.

    A zero byte ends the file, as the driver needs it. Raises `KernelBuildError`.
    """
    oldest = _supported(nvcc)[0]
    with tempfile.TemporaryDirectory() as folder:
        ptx, machine_code = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        command = [str(nvcc), *FLAGS, f"-arch=compute_{oldest}", "--ptx", "-o", str(ptx)]
        _run([*command, _path(source)], f"Kernel {source} could not be compiled to PTX")
        ptx.write_text(portable_ptx(ptx.read_text(encoding="ascii")), encoding="ascii")
        # ptxas refuses a statement that is newer than the stated ISA.
        command = [str(nvcc), f"-arch=sm_{oldest}", "--cubin", "-o", str(machine_code), str(ptx)]
        _run(command, f"The PTX of kernel {source} is not of ISA {PTX_ISA}")
        target.write_bytes(ptx.read_bytes() + b"\0")


def portable_ptx(ptx: str) -> str:
    """Return the PTX with `PTX_ISA` as its stated ISA, for drivers that are older than the compiler.

    nvcc and NVRTC state the newest ISA that they know, whether a kernel needs it or not. These kernels need none newer
    than 7.4, except `used_bytes_mask` (ISA 8.3): a pragma that changes nothing and is left out.
    """
    without = re.sub(r'^\s*\.pragma\s+"used_bytes_mask[^"]*";\s*\n', "", ptx, flags=re.MULTILINE)
    return re.sub(r"^\.version \d+\.\d+", f".version {PTX_ISA}", without, count=1, flags=re.MULTILINE)


def compile_for(source: str, capability: tuple[int, int], target: Path, nvcc: Path) -> None:
    """Compile `source`.cu for one GPU, or to the newest PTX that this nvcc knows and the GPU understands.

    Raises `KernelBuildError`.
    """
    architecture, listed = 10 * capability[0] + capability[1], _listed(nvcc)
    older = [candidate for candidate in listed if candidate < architecture]
    if architecture not in listed and not older:
        gpu = f"a GPU of compute capability {capability[0]}.{capability[1]}"
        raise KernelBuildError(f"Kernel {source}: {nvcc} no longer compiles for {gpu}; install CUDA 12.")
    code = f"sm_{architecture}" if architecture in listed else f"compute_{max(older)}"
    compile_fatbin(source, target, nvcc, [code])


def resources(report: str) -> list[Resources]:
    """Return each kernel's registers and memory on each architecture, from the report of `compile_fatbin`."""
    rows = []
    for part in report.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)' for 'sm_(\d+)\w*'", part)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        if not (name and frame and registers):
            raise KernelBuildError(f"ptxas describes a kernel in words that are not known here: {part.strip()[:200]!r}")
        shared = re.search(r"(\d+) bytes smem", part)
        stack, stores, loads = (int(number) for number in frame.groups())
        shared_bytes = int(shared[1]) if shared else 0
        rows.append(Resources(name[1], int(name[2]), int(registers[1]), shared_bytes, stack, stores + loads))
    return rows


def shipped_name(source: str, suffix: str = ".fatbin") -> str:
    """Return the name of the file in this package that holds the code of exactly this source."""
    return f"{source_key(source)}{suffix}"


def source_key(source: str) -> str:
    """Return the source's name with a hash of its text and its compiler flags."""
    key = hashlib.sha256("\0".join(FLAGS).encode())
    for path in (HERE / f"{source}.cu", HERE / "records.cuh"):
        key.update(path.read_bytes())
    return f"{source}-{key.hexdigest()[:16]}"


def _path(source: str) -> str:
    return str(HERE / f"{source}.cu")


def _supported(nvcc: Path) -> tuple[int, ...]:
    """Return the architectures to compile for. Raises `KernelBuildError` if there is none."""
    supported = architectures(nvcc)
    if not supported:
        raise KernelBuildError(f"{nvcc} knows none of the architectures {ARCHITECTURES}; install CUDA 12 or later.")
    return supported


def _listed(nvcc: Path) -> set[int]:
    output = _run([str(nvcc), "--list-gpu-code"], f"{nvcc} does not list the architectures that it knows")
    return {int(number) for number in re.findall(r"\bsm_(\d+)\b", output)}


def _run(command: list[str], failure: str) -> str:
    """Return standard output and error of a command that must succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise KernelBuildError(f"{failure}: {error}. Repair the CUDA toolkit, or use device cpu.") from None
    if done.returncode:
        message = (done.stderr or done.stdout).strip()[-2000:]
        raise KernelBuildError(
            f"{failure}: {message}\nRepair the CUDA toolkit and its host compiler, or use device cpu."
        )
    return done.stdout + done.stderr
