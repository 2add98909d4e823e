"""From the CUDA sources to fatbins: shipped with the package, else compiled once on this machine and kept in a cache.

A fatbin holds code for every architecture of `ARCHITECTURES` that the nvcc at hand knows, and the PTX of the oldest,
from which a driver compiles for any other GPU. What is compiled at first use is for that machine's GPU alone.
This file needs the standard library only, so that building the package can use it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "SOURCES",
    "KernelBuildError",
    "Resources",
    "architectures",
    "cache_folder",
    "compile_fatbin",
    "fatbin",
    "find_nvcc",
    "resources",
    "shipped_name",
]

SOURCES = ("warp", "decode", "average")  # .cu; a fatbin each
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
FLAGS = ("-O3", "-std=c++17")

_HERE = Path(__file__).parent
_FATBIN_MAGIC = 0xBA55ED50


class KernelBuildError(Exception):
    """There is no fatbin for the GPU, and none can be compiled here."""


@dataclass(frozen=True)
class Resources:
    """What ptxas says of a kernel on one architecture; local memory is what registers did not suffice for."""

    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


def fatbin(source: str, capability: tuple[int, int]) -> bytes:
    """The fatbin of `source`.cu for a GPU of that compute capability: shipped, cached, or compiled now.

    Raises `KernelBuildError` where there is none and this machine cannot compile it.
    """
    architecture = 10 * capability[0] + capability[1]
    gpu = f"a GPU of compute capability {capability[0]}.{capability[1]}"
    if architecture < ARCHITECTURES[0]:
        raise KernelBuildError(f"Kernel {source}: {gpu} is older than 7.5, the oldest supported; use device cpu.")
    from spinescore.kernels.signing import signed_bytes  # not there when the package is built

    shipped = _whole_fatbin(_HERE / shipped_name(source))
    name = f"{_stem(source)}-sm_{architecture}.fatbin"
    data = shipped or signed_bytes(name, _cached(name) or b"")
    if data is not None:
        return data
    nvcc = find_nvcc()
    if nvcc is None:
        raise KernelBuildError(
            f"Kernel {source}: the package was installed without compiled kernels, and nvcc, which compiles them for "
            f"{gpu}, was not found. Install the CUDA toolkit (put nvcc on PATH or set CUDA_HOME), or install a wheel "
            "that was built where nvcc is, or use device cpu."
        )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel.fatbin"
        compile_fatbin(source, target, nvcc, _nearest(source, gpu, architecture, nvcc))
        data = target.read_bytes()
    _keep(name, data)
    return data


def find_nvcc() -> Path | None:
    """nvcc: on PATH, in CUDA_HOME or CUDA_PATH, or where CUDA is installed by default."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [str(Path(home) / "bin") for home in homes if home]
    for folder in (None, *folders, "/usr/local/cuda/bin"):
        found = shutil.which("nvcc", path=folder)
        if found:
            return Path(found)
    return None


def architectures(nvcc: Path) -> tuple[int, ...]:
    """Those of `ARCHITECTURES` that this nvcc knows."""
    known = _known(nvcc)
    return tuple(architecture for architecture in ARCHITECTURES if architecture in known)


def compile_fatbin(source: str, target: Path, nvcc: Path, codes: Sequence[str] | None = None) -> str:
    """Compile `source`.cu into `target` for `codes` (sm_NN, or compute_NN for PTX); by default for all architectures.

    Returns what nvcc and ptxas said, which `resources` reads. Raises `KernelBuildError`.
    """
    if codes is None:
        known = architectures(nvcc)
        if not known:
            raise KernelBuildError(f"{nvcc} knows none of the architectures {ARCHITECTURES}; install CUDA 12 or later.")
        codes = [f"compute_{known[0]}", *(f"sm_{architecture}" for architecture in known)]
    wanted = [f"-gencode=arch=compute_{code.split('_')[1]},code={code}" for code in codes]
    command = [str(nvcc), *FLAGS, "--fatbin", "-Xptxas=-v", "--threads=0", *wanted, "-o", str(target)]
    return _run(
        [*command, str(_HERE / f"{source}.cu")], f"Kernel {source} could not be compiled for {', '.join(codes)}"
    )


def resources(report: str) -> list[Resources]:
    """Registers and memory of each kernel and architecture, from what `compile_fatbin` returned."""
    found = []
    for part in report.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)' for 'sm_(\d+)\w*'", part)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        if not (name and frame and registers):
            raise KernelBuildError(f"ptxas describes a kernel in words that are not known here: {part.strip()[:200]!r}")
        shared = re.search(r"(\d+) bytes smem", part)
        stack, stores, loads = (int(number) for number in frame.groups())
        shared_bytes = int(shared[1]) if shared else 0
        found.append(Resources(name[1], int(name[2]), int(registers[1]), shared_bytes, stack, stores + loads))
    return found


def shipped_name(source: str) -> str:
    """The file in this package that holds the fatbin of exactly this source."""
    return f"{_stem(source)}.fatbin"


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    from spinescore.kernels.cache import user_cache  # not there when the package is built

    return user_cache() / "kernels"


def _stem(source: str) -> str:
    key = hashlib.sha256("\0".join(FLAGS).encode())
    for path in (_HERE / f"{source}.cu", _HERE / "records.cuh"):
        key.update(path.read_bytes())
    return f"{source}-{key.hexdigest()[:16]}"


def _whole_fatbin(path: Path) -> bytes | None:
    """The file where it is there and as long as its header says; a fatbin that is not is compiled again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < 16 or int.from_bytes(data[:4], "little") != _FATBIN_MAGIC:
        return None
    length = int.from_bytes(data[6:8], "little") + int.from_bytes(data[8:16], "little")
    return data if len(data) == length else None


def _known(nvcc: Path) -> set[int]:
    listed = _run([str(nvcc), "--list-gpu-code"], f"{nvcc} does not list the architectures that it knows")
    return {int(number) for number in re.findall(r"\bsm_(\d+)\b", listed)}


def _nearest(source: str, gpu: str, architecture: int, nvcc: Path) -> list[str]:
    """Code for this architecture, or PTX of the newest that this nvcc knows and the GPU understands."""
    known = _known(nvcc)
    if architecture in known:
        return [f"sm_{architecture}"]
    older = [candidate for candidate in known if candidate < architecture]
    if not older:
        raise KernelBuildError(f"Kernel {source}: {nvcc} no longer compiles for {gpu}; install CUDA 12.")
    return [f"compute_{max(older)}"]


def _cached(name: str) -> bytes | None:
    try:
        return _whole_fatbin(cache_folder() / name)
    except OSError:  # this user has no home
        return None


def _keep(name: str, data: bytes) -> None:
    from spinescore.kernels.signing import key_fault, sign

    try:
        path = cache_folder() / name
        unfinished = path.with_suffix(f".{os.getpid()}")
        if not sign(name, hashlib.sha256(data).hexdigest()):
            raise OSError(key_fault())
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        warnings.warn(
            f"The compiled kernel could not be kept ({error}), so that the next start compiles it again; set "
            "SPINESCORE_CACHE to a folder that can be written.",
            RuntimeWarning,
            stacklevel=3,
        )


def _run(command: list[str], failure: str) -> str:
    """Standard output and error of a command that must succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise KernelBuildError(f"{failure}: {error}. Repair the CUDA toolkit, or use device cpu.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise KernelBuildError(f"{failure}: {said}\nRepair the CUDA toolkit and its host compiler, or use device cpu.")
    return done.stdout + done.stderr
