"""The driver double (driver_double.cpp) compiled as libcuda.so.1, and child processes that run on it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from spinescore.kernels.compiled import Code

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")


def unavailable() -> str | None:
    """Return why nothing can run on the double here; None if it can."""
    if sys.platform != "linux":
        return "the driver double is built on Linux only"
    missing = [tool for tool in ("g++", "nm") if not shutil.which(tool)]
    if missing:
        return f"{' and '.join(missing)} not installed, so the driver double is not built"
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed (tests/cuda/build_pycuda.py builds it without a GPU)"
    return (
        None if cuda_headers() else "no CUDA headers: set CUDA_HOME, or install nvidia-cuda-runtime and nvidia-cuda-crt"
    )


def cuda_headers() -> Path | None:
    """Return the folder with cuda.h: of CUDA_HOME, of the nvcc on PATH, or of NVIDIA's packages in this environment."""
    nvcc = shutil.which("nvcc")
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    roots += [Path(nvcc).resolve().parents[1]] if nvcc else []
    roots += [Path("/usr/local/cuda")]
    roots += [found for place in map(Path, sys.path) for found in sorted((place / "nvidia").glob("cu*"))]
    return next((root / "include" for root in roots if (root / "include" / "cuda.h").is_file()), None)


def build(folder: Path) -> Path:
    """Compile the double and, for what else pycuda names of the driver, calls that are not supported."""
    library, source = folder / "libcuda.so.1", folder / "unsupported.cpp"
    headers = cuda_headers()
    assert headers is not None
    command = ["g++", *FLAGS, "-I", str(headers), "-o", str(library), str(HERE / "driver_double.cpp")]
    _run(command)
    missing = sorted(_symbols(pycuda_module(), "--undefined-only") - _symbols(library, "--defined-only"))
    lines = [f'extern "C" int {name}() {{ return 801; }}' for name in missing]  # CUDA_ERROR_NOT_SUPPORTED
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _run([*command, str(source)])
    return library


def pycuda_module() -> Path:
    spec = importlib.util.find_spec("pycuda")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("_driver*.so"))


def fatbin(kernels: Path) -> bytes:
    """Return a fatbin for the double: a fatbin's header, and the path of the library that holds the kernels."""
    body = str(kernels).encode() + b"\0"
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def codes(kernels: Path) -> list[Code]:
    """Return the fatbin as the device takes it."""
    return [Code(fatbin(kernels), "the double's kernels")]


def run_child(library: Path, script: str, *arguments: str) -> None:
    """Run a script of this folder on the double; what it prints is shown where it fails."""
    command = [sys.executable, str(HERE / script), *arguments]
    found = subprocess.run(command, env={**os.environ, **settings(library)}, capture_output=True, text=True)
    assert found.returncode == 0, f"{' '.join(arguments)}: status {found.returncode}\n{found.stdout}\n{found.stderr}"
    assert not found.stderr, found.stderr


def settings(library: Path) -> dict[str, str]:
    """The environment of a process that runs on the double."""
    paths = [str(HERE), str(HERE.parent)]
    return {
        "LD_LIBRARY_PATH": str(library.parent),
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "error",
    }


class Control:
    """The double's functions for tests, in a process that runs on it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.double_calls.restype = self._library.double_live.restype = ctypes.c_long
        self._library.double_set.argtypes = [ctypes.c_char_p, ctypes.c_long]
        self._library.double_fail.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p]

    def set(self, name: str, value: int) -> None:
        self._library.double_set(name.encode(), value)

    def fail(self, nth: int, status: int = 999, for_good: bool = False, name: str = "") -> None:
        self._library.double_fail(nth, status, int(for_good), name.encode())

    def calls(self, name: str) -> int:
        return int(self._library.double_calls(name.encode()))

    def live(self) -> dict[str, int]:
        """Return the number of objects that were not freed, by kind; empty if all were."""
        kinds = ("device", "host", "stream", "event", "module", "graph", "runnable", "context", "current")
        found = {kind: int(self._library.double_live(kind.encode())) for kind in kinds}
        return {kind: count for kind, count in found.items() if count}


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\b(cu[A-Z]\w*)$", listed, re.MULTILINE))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
