"""The CUDA sources compiled for the host by g++, as a shared library.

Entry points (C)
    int  spinescore_launch(const char *kernel, const unsigned grid[3], const unsigned block[3], const void *args)
         runs the kernel to its end; 0: done, 1: no such kernel, 2: a grid or block that a GPU refuses
    long spinescore_args_bytes(const char *kernel)      size of the kernel's argument block, -1: no such kernel
    void spinescore_reverse_threads(int reversed)       the order of a block's threads, for the calling thread
Kernel names and argument blocks are those of `spinescore.kernels.launch`; addresses in them are host addresses.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from spinescore.kernels.launch import Launch

HERE = Path(__file__).parent
KERNELS = HERE.parent.parent / "kernels"
INPUTS = (*sorted((HERE / "host").iterdir()), *sorted(KERNELS.glob("*.cu*")))
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")  # nvcc knows `#pragma unroll`
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", *WARNINGS, "-shared", "-fPIC", "-pthread")


def unavailable() -> str | None:
    """Return why the kernels cannot be compiled for the host here; None if they can."""
    if sys.platform == "win32":
        return "the kernels are compiled for the host on Linux only (coroutines by ucontext)"
    return None if shutil.which("g++") else "g++ is not installed, so the kernels are not compiled for the host"


def build(folder: Path, *extra: str) -> Path:
    """The library in `folder`, compiled unless these very sources and flags were before. `extra`: further flags."""
    key = hashlib.sha256("\0".join([*FLAGS, *extra]).encode())
    for path in INPUTS:
        key.update(path.read_bytes())
    library = folder / f"kernels-{key.hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = ["g++", *FLAGS, *extra, "-I", str(HERE / "host"), "-I", str(KERNELS), "-o", str(unfinished)]
        done = subprocess.run([*command, str(HERE / "host" / "host_kernels.cpp")], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"g++ could not compile the kernels for the host:\n{done.stderr}")
        unfinished.replace(library)
    return library


class HostKernels:
    """The library, called with the `Launch` records that a device would launch."""

    def __init__(self, library: Path) -> None:
        self.handle = ctypes.CDLL(str(library))
        three = ctypes.c_uint * 3
        self.handle.spinescore_launch.argtypes = [ctypes.c_char_p, three, three, ctypes.c_void_p]
        self.handle.spinescore_args_bytes.argtypes = [ctypes.c_char_p]
        self.handle.spinescore_args_bytes.restype = ctypes.c_long
        self.handle.spinescore_reverse_threads.argtypes = [ctypes.c_int]
        self._three = three

    def run(self, launch: Launch) -> None:
        args = np.ascontiguousarray(launch.args)
        name, grid, block = launch.kernel.encode(), self._three(*launch.grid), self._three(*launch.block)
        status = self.handle.spinescore_launch(name, grid, block, args.ctypes.data)
        if status:
            raise RuntimeError(f"kernel {launch.kernel}: status {status} for grid {launch.grid}, block {launch.block}")

    def args_bytes(self, kernel: str) -> int:
        return int(self.handle.spinescore_args_bytes(kernel.encode()))

    def reverse_threads(self, reverse: bool) -> None:
        self.handle.spinescore_reverse_threads(int(reverse))
