"""The libraries that ONNX Runtime's CUDA provider links to: loaded from NVIDIA's Python packages, or found missing."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["load_cuda_libraries", "missing_library"]

_LIBRARIES = ("cudart", "cublasLt", "cublas", "curand", "cufft", "nvrtc", "cudnn")  # each before those that need it
_PROVIDER = ("onnxruntime_providers_shared", "onnxruntime_providers_cuda")


def load_cuda_libraries() -> None:
    """Load the CUDA libraries of NVIDIA's Python packages, if they are installed.

    The provider looks for them by name, and the system's loader does not search their folders.
    """
    for name in _LIBRARIES:
        for folder in sys.path:
            for path in sorted(Path(folder or ".").glob(f"nvidia/*/lib/lib{name}.so.*")):
                with suppress(OSError):  # of another CUDA: the provider itself says what is missing
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def missing_library(folder: Path) -> str:
    """Return why the CUDA provider's library in `folder` cannot be loaded, in the loader's words; empty if it can be.

    ONNX Runtime writes the reason to its log alone.
    """
    for name in _PROVIDER:
        for path in (*folder.glob(f"lib{name}.so"), *folder.glob(f"{name}.dll")):
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:  # noqa: PERF203  # the first one that fails is the answer
                return str(error)
    return ""
