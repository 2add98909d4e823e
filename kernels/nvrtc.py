"""Compiles the CUDA sources with NVRTC, a library that needs neither nvcc nor a host compiler.

It is found where the system's loader finds it, in CUDA's folder, and in NVIDIA's Python packages (PyTorch brings them).
NVRTC User Guide, sections 2 and 3.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spinescore.kernels.build import HERE, KernelBuildError, portable_ptx

__all__ = ["compile_ptx_by_nvrtc"]

_NAMES = (
    ("nvrtc64_130_0.dll", "nvrtc64_120_0.dll")
    if sys.platform == "win32"
    else ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
)
_OPTIONS = ("--gpu-architecture=compute_75", "--std=c++17")
# NVRTC has no headers of C++; these are the constants that the kernels use.
_CFLOAT = "#pragma once\n#define FLT_MAX 3.402823466e+38f\n#define DBL_MAX 1.7976931348623157e+308\n"


def compile_ptx_by_nvrtc(source: str) -> bytes:
    """Return the PTX of `source`.cu for every supported driver, with a zero byte at its end.

    Raises `KernelBuildError`.
    """
    library = _library()
    headers = next((folder for folder in _folders("include") if (folder / "cuda_fp16.h").is_file()), None)
    if library is None or headers is None:
        missing = "NVRTC" if library is None else "cuda_fp16.h, which NVRTC needs,"
        raise KernelBuildError(f"Kernel {source}: {missing} was not found.")
    program = _program(library, source)
    try:
        options = [option.encode() for option in (*_OPTIONS, f"-I{headers}")]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            log = _text(library, program, "ProgramLog").decode(errors="replace").strip()[-2000:]
            raise KernelBuildError(f"Kernel {source} could not be compiled by NVRTC (status {status}): {log}")
        return portable_ptx(_text(library, program, "PTX").decode("ascii")).encode("ascii") + b"\0"
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _program(library: Any, source: str) -> ctypes.c_void_p:
    program, two = ctypes.c_void_p(), ctypes.c_char_p * 2
    contents = two((HERE / "records.cuh").read_bytes(), _CFLOAT.encode())
    code = (HERE / f"{source}.cu").read_bytes()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), code, f"{source}.cu".encode(), 2, contents, two(b"records.cuh", b"cfloat")
    )
    if status:
        raise KernelBuildError(f"Kernel {source}: NVRTC does not start (status {status}).")
    return program


def _text(library: Any, program: ctypes.c_void_p, kind: str) -> bytes:
    size = ctypes.c_size_t()
    if getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)):
        return b""
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{kind}")(program, buffer)
    return buffer.value


def _library() -> Any:
    folders = _folders("bin" if sys.platform == "win32" else "lib")
    paths = [str(folder / name) for folder in folders for name in _NAMES if (folder / name).is_file()]
    for path in (*_NAMES, *paths):
        with suppress(OSError):
            return ctypes.CDLL(path)
    return None


def _folders(kind: str) -> Iterator[Path]:
    """Yield the folders for `kind` ("include", "lib") of CUDA's installations and of NVIDIA's Python packages."""
    homes = [Path(os.environ[variable]) for variable in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(variable)]
    for home in (*homes, Path("/usr/local/cuda")):
        yield home / kind
        yield home / f"{kind}64"
    for entry in sys.path:
        for package in sorted((Path(entry or ".") / "nvidia").glob("*")):
            yield package / kind
