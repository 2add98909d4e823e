"""The networks that engines are built from, the batches and picture sizes that the pipeline runs, and this GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from spinescore.export.int8 import to_tensorrt
from spinescore.kernels.decode import DISCS
from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY, cuda_version
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import HEAD_OUTPUTS, Manifest
from spinescore.runtime.scoring.networks import FLIPS, VIEWS

__all__ = ["Gpu", "Size", "engine_model", "engine_precision", "first_gpu", "network_batches", "network_sizes"]

_PREFERRED = {"fp16": ("fp16", "fp32"), "int8": ("int8", "fp16", "fp32")}  # precisions of a network's files, best first

# CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED
_MULTIPROCESSORS, _MAJOR, _MINOR, _INTEGRATED = 16, 75, 76, 18
_NAME_BYTES = 256

Size = tuple[int, int]  # height and width of a network's input


def network_batches(manifest: Manifest, precision: str = "fp16") -> dict[str, int]:
    """Return the batch of each network file for `precision`; alternative localizers come last."""
    batches, localizer = dict[str, int](), manifest.localizer
    each = VIEWS if localizer.shared else 1
    batches.update({_source(files, precision): each for files in localizer.files.values()})
    head = manifest.grader.head
    for role, files in manifest.grader.files.items():
        flips = FLIPS[HEAD_OUTPUTS[head][role]]
        batches[_source(files, precision)] = VIEWS * DISCS * len(flips)
    others = [files for alternative in localizer.alternatives for files in alternative.files.values()]
    return {**batches, **{_source(files, precision): each for files in others}}


def network_sizes(manifest: Manifest, name: str) -> tuple[Size, ...]:
    """Return the heights and widths at which the network file `name` runs; empty if its size is fixed."""
    localizer = manifest.localizer
    scales, files = localizer.averaging.scales, [*localizer.files.values()]
    files += [files for alternative in localizer.alternatives for files in alternative.files.values()]
    if len(scales) == 1 or not any(name in network.values() for network in files):
        return ()
    return tuple((size.height, size.width) for size in map(localizer.input_at, scales))


def engine_precision(name: str) -> str:
    """Return the precision of a network file's engine: INT8 stays, all others become FP16."""
    return "int8" if name.endswith(".int8.onnx") else "fp16"


def engine_model(path: Path, precision: str) -> onnx.ModelProto:
    """Return the network file's graph as TensorRT builds it in `precision`. Raises `EngineError` if it overflows."""
    if precision == "int8":
        return to_tensorrt(onnx.load(str(path)))
    model, report = to_half(onnx.load(str(path)))
    if report.overflowed:
        layers = ", ".join(count.layer for count in report.overflowed[:3])
        raise EngineError(f"Network {path.name} overflows in half precision in {layers}; no FP16 engine can be built.")
    return model


def _source(files: Any, precision: str) -> str:
    return str(next(files[stored] for stored in _PREFERRED[precision] if stored in files))


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
    device, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    facts = {attribute: ctypes.c_int() for attribute in (_MULTIPROCESSORS, _MAJOR, _MINOR, _INTEGRATED)}
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        or any(cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device) for number, value in facts.items())
        or cuda.cuDriverGetVersion(ctypes.byref(version))
    ):
        return None
    multiprocessors, major, minor, integrated = (value.value for value in facts.values())
    text = name.value.decode(errors="replace")
    return Gpu(text, (major, minor), multiprocessors, cuda_version(version.value), integrated == 1)
