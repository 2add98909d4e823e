"""Facts about this machine's first GPU for an engine's sidecar, from the driver through ctypes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY, cuda_version

__all__ = ["Gpu", "first_gpu"]

# CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED
_MULTIPROCESSORS, _MAJOR, _MINOR, _INTEGRATED = 16, 75, 76, 18
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """`driver` is the CUDA version that the driver supports, as `13.0`. `integrated`: it has no memory of its own."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    driver: str
    integrated: bool = False


def first_gpu(library: str | None = None) -> Gpu | None:
    """Return the first GPU; None without a driver or a GPU. `library` is the driver's (libcuda.so.1, nvcuda.dll)."""
    try:
        cuda: Any = ctypes.CDLL(library or DRIVER_LIBRARY)
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if cuda.cuDeviceGetName(name, _NAME_BYTES, device):
        return None
    values = []
    for attribute in (_MULTIPROCESSORS, _MAJOR, _MINOR, _INTEGRATED):
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        values.append(value.value)
    version = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    capability = values[1], values[2]
    text = name.value.decode(errors="replace")
    return Gpu(text, capability, values[0], cuda_version(version.value), values[3] == 1)
