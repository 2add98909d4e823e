"""Compiled kernels for a GPU: shipped with the package, kept in the cache, or compiled now by nvcc or NVRTC."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    shipped = _whole_fatbin(_read(HERE / shipped_name(source)))
    if shipped is not None:
        yield Code(shipped, "the package's machine code")
    shipped = _whole_ptx(_read(HERE / shipped_name(source, ".ptx")))
    if shipped is not None:
        yield Code(shipped, "the package's PTX")
    yield from _compiled_here(source, capability, gpu)


def cache_folder() -> Path:
    """Return the folder in which compiled kernels are kept."""
    return user_cache() / "kernels"


def _compiled_here(source: str, capability: tuple[int, int], gpu: str) -> Iterator[Code]:
    key, faults = source_key(source), []
    kinds = (
        (f"{key}-sm_{capability[0]}{capability[1]}.fatbin", _whole_fatbin, (_fatbin_by_nvcc,), "machine code of nvcc"),
        (f"{key}-isa_{PTX_ISA}.ptx", _whole_ptx, (_ptx_by_nvcc, _ptx_by_nvrtc), "PTX compiled"),
    )
    for name, whole, compilers, origin in kinds:
        data = whole(_cached(name))
        for compiler in () if data is not None else compilers:
            try:
                data = compiler(source, capability)
            except KernelBuildError as error:
                faults.append(str(error))
            if data is not None:
                _keep(name, data)
                break
        if data is not None:
            yield Code(data, f"{origin} on this machine")
    if find_nvcc() is None:
        faults.append(
            f"nvcc, which compiles kernel {source} for {gpu}, was not found. Install the CUDA toolkit (put nvcc on "
            "PATH or set CUDA_HOME), or pip install nvidia-cuda-nvrtc nvidia-cuda-runtime, or install a wheel of "
            "spinescore that was built where nvcc is, or use device cpu."
        )
    raise KernelBuildError(" ".join(faults) or f"Kernel {source}: there is no other code for {gpu}.")


def _fatbin_by_nvcc(source: str, capability: tuple[int, int]) -> bytes | None:
    """Return the fatbin for this GPU; None if there is no nvcc."""
    return _by_nvcc(lambda target, nvcc: compile_for(source, capability, target, nvcc))


def _ptx_by_nvcc(source: str, capability: tuple[int, int]) -> bytes | None:
    return _by_nvcc(lambda target, nvcc: compile_ptx(source, target, nvcc))


def _ptx_by_nvrtc(source: str, capability: tuple[int, int]) -> bytes:
    return compile_ptx_by_nvrtc(source)


def _by_nvcc(compile_into: Callable[[Path, Path], object]) -> bytes | None:
    nvcc = find_nvcc()
    if nvcc is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel"
        compile_into(target, nvcc)
        return target.read_bytes()


def _whole_fatbin(data: bytes | None) -> bytes | None:
    """Return the data if it is as long as a fatbin's header says, else None, so that it is compiled again."""
    if data is None or len(data) < 16 or int.from_bytes(data[:4], "little") != _FATBIN_MAGIC:
        return None
    length = int.from_bytes(data[6:8], "little") + int.from_bytes(data[8:16], "little")
    return data if len(data) == length else None


def _whole_ptx(data: bytes | None) -> bytes | None:
    return data if data is not None and b".version" in data and data.endswith(b"\0") else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _cached(name: str) -> bytes | None:
    try:
        return signed_bytes(name, _read(cache_folder() / name) or b"")
    except OSError:  # this user has no home
        return None


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
