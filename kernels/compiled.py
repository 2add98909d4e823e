"""Compiled kernels for a GPU: shipped with the package, kept in the cache, or compiled now by nvcc or NVRTC."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spinescore.kernels.build import (
    ARCHITECTURES,
    HERE,
    PTX_ISA,
    KernelBuildError,
    compile_for,
    compile_ptx,
    find_nvcc,
    shipped_name,
    source_key,
)
from spinescore.kernels.cache import user_cache
from spinescore.kernels.nvrtc import compile_ptx_by_nvrtc
from spinescore.kernels.signing import key_fault, sign, signed_bytes

__all__ = ["Code", "cache_folder", "codes"]

_FATBIN_MAGIC = 0xBA55ED50


@dataclass(frozen=True)
class Code:
    """Compiled kernels as the driver loads them: a fatbin, or PTX that ends with a zero byte."""

    data: bytes
    origin: str

    @property
    def description(self) -> str:
        """Where the code comes from and which CUDA compiled it, for messages."""
        release = re.search(rb"Cuda compilation tools, release ([\d.]+)", self.data)
        return f"{self.origin} (compiled by {f'CUDA {release[1].decode()}' if release else 'an unknown CUDA version'})"


def codes(source: str, capability: tuple[int, int]) -> Iterator[Code]:
    """Yield compiled code of `source`.cu for a GPU, the best first. The caller takes the first that its driver loads.

    Machine code comes before PTX, and shipped code before code that is compiled here. Each is fetched or compiled only
    when the caller asks for it. At the end raises `KernelBuildError`, which says why there is no more.
    """
    gpu = f"a GPU of compute capability {capability[0]}.{capability[1]}"
    if 10 * capability[0] + capability[1] < ARCHITECTURES[0]:
        raise KernelBuildError(f"Kernel {source}: {gpu} is older than 7.5, the oldest supported; use device cpu.")
    for suffix, is_whole, kind in ((".fatbin", _is_fatbin, "machine code"), (".ptx", _is_ptx, "PTX")):
        if is_whole(shipped := _read(HERE / shipped_name(source, suffix))):
            yield Code(shipped, f"the package's {kind}")
    yield from _compiled_here(source, capability, gpu)


def cache_folder() -> Path:
    """Return the folder in which compiled kernels are kept."""
    return user_cache() / "kernels"


def _compiled_here(source: str, capability: tuple[int, int], gpu: str) -> Iterator[Code]:
    key, faults = source_key(source), []
    fatbin_by_nvcc = partial(_by_nvcc, partial(compile_for, source, capability))
    ptx_compilers = (partial(_by_nvcc, partial(compile_ptx, source)), partial(compile_ptx_by_nvrtc, source))
    kinds = (
        (f"{key}-sm_{capability[0]}{capability[1]}.fatbin", _is_fatbin, (fatbin_by_nvcc,), "machine code of nvcc"),
        (f"{key}-isa_{PTX_ISA}.ptx", _is_ptx, ptx_compilers, "PTX compiled"),
    )
    for name, is_whole, compilers, origin in kinds:
        data = _cached(name, is_whole)
        for compiler in () if data else compilers:
            try:
                data = compiler()
            except KernelBuildError as error:
                faults.append(str(error))
            if data:
                _keep(name, data)
                break
        if data:
            yield Code(data, f"{origin} on this machine")
    if find_nvcc() is None:
        faults.append(
            f"nvcc, which compiles kernel {source} for {gpu}, was not found. Install the CUDA toolkit (put nvcc on "
            "PATH or set CUDA_HOME), or pip install nvidia-cuda-nvrtc nvidia-cuda-runtime, or install a wheel of "
            "spinescore that was built where nvcc is, or use device cpu."
        )
    raise KernelBuildError(" ".join(faults) or f"Kernel {source}: there is no other code for {gpu}.")


def _by_nvcc(compile_into: Callable[[Path, Path], object]) -> bytes:
    """Return the file that nvcc makes; nothing if there is no nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel"
        compile_into(target, nvcc)
        return target.read_bytes()


def _is_fatbin(data: bytes) -> bool:
    """Return whether the data are as long as a fatbin's header says; if not, it is compiled again."""
    length = int.from_bytes(data[6:8], "little") + int.from_bytes(data[8:16], "little")
    return len(data) >= 16 and int.from_bytes(data[:4], "little") == _FATBIN_MAGIC and len(data) == length


def _is_ptx(data: bytes) -> bool:
    return b".version" in data and data.endswith(b"\0")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _cached(name: str, is_whole: Callable[[bytes], bool]) -> bytes:
    try:
        data = signed_bytes(name, _read(cache_folder() / name))
    except OSError:  # this user has no home
        return b""
    return data if data and is_whole(data) else b""


def _keep(name: str, data: bytes) -> None:
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
            stacklevel=4,
        )
