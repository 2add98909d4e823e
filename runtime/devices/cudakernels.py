"""The compiled kernels in a GPU's context, and the device's verbs that launch them.

`drv` is pycuda's driver module, passed in by the device that imports it. The CUDA context must be current.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from spinescore.kernels import launch
from spinescore.kernels.average import AverageSpec
from spinescore.kernels.build import KernelBuildError
from spinescore.kernels.compiled import Code
from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import WarpSpec
from spinescore.runtime.devices.cudadriver import cuda_version
from spinescore.runtime.devices.cudamemory import CudaBuffer
from spinescore.runtime.devices.cudauploads import SLOTS, Radiographs
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.caches import cache_values
from spinescore.runtime.notices import notice
from spinescore.runtime.warned import caught_warnings

__all__ = ["Compiled", "KernelVerbs", "Kernels"]

Compiled = Callable[[str, tuple[int, int]], Iterable[Code]]  # kernel source, compute capability -> code, best first

# Parts of the driver's messages (cuGetErrorString) if it cannot load code, whether the code is whole or damaged.
_REFUSALS = ("kernel image", "kernel source", "PTX", "shared object", "not supported", "not found")


class Kernels:
    """All kernels, loaded for one GPU. `warnings` says if code that was compiled now could not be kept."""

    def __init__(self, drv: Any, compiled: Compiled, capability: tuple[int, int], where: str) -> None:
        self._drv, self._compiled, self._capability, self._where = drv, compiled, capability, where
        self.warnings: tuple[str, ...] = ()
        self._modules: dict[str, Any] = {}  # by source file
        self._functions: dict[str, Any] = {}  # by kernel

    def open(self) -> None:
        """Load the kernels. Raises `DeviceError` if the driver loads no code of a kernel."""
        for source in sorted({source for source, _ in launch.KERNELS.values()}):
            self._load(source)

    def let_go(self) -> None:
        self._functions.clear()
        self._modules.clear()

    def queue(self, work: launch.Launch, stream: Any) -> None:
        self._functions[work.kernel](work.args[()], grid=work.grid, block=work.block, stream=stream)

    def _load(self, source: str) -> None:
        """Load the first code that the driver accepts."""
        refused: list[str] = []
        try:
            with caught_warnings() as caught:  # compiled code that could not be kept
                for code in self._compiled(source, self._capability):
                    if self._accepted(source, code, refused):
                        return
        except KernelBuildError as error:
            if not refused:
                raise DeviceError(str(error)) from error
            refused.append(str(error))
        finally:
            notices = [notice("cache-not-writable", text, **cache_values()) for text in caught]
            self.warnings = (*self.warnings, *notices)
        raise DeviceError(
            f"{self._where}: kernel {source} cannot be loaded. The driver supports CUDA "
            f"{cuda_version(self._drv.get_driver_version())}. {'; '.join(refused)} Update the NVIDIA driver, or put "
            "the nvcc of a CUDA that the driver supports on PATH, or install the package again if its files are "
            "damaged, or use device cpu."
        )

    def _accepted(self, source: str, code: Code, refused: list[str]) -> bool:
        """Load the code and its kernels; if the driver refuses it, append the reason and return False."""
        try:
            self._modules[source] = self._drv.module_from_buffer(code.data)
            for kernel, (holder, _) in launch.KERNELS.items():
                if holder == source:  # a driver may load a kernel's code no sooner than it is asked for
                    self._functions[kernel] = self._modules[source].get_function(kernel)
            return True
        except self._drv.Error as error:
            if not any(part in str(error) for part in _REFUSALS):
                raise
            refused.append(f"{code.description}: {str(error).rstrip(' -')}")
        except UnicodeDecodeError:  # pycuda reads a log that the driver did not write
            refused.append(f"{code.description}: refused without a reason")
        return False


class KernelVerbs:
    """The verbs of a device that launch one kernel each, on buffers in device memory."""

    _radiographs: Radiographs

    def _launch(self, work: launch.Launch) -> None:
        raise NotImplementedError

    def warp(self, rois: CudaBuffer, spec: WarpSpec, out: CudaBuffer) -> None:
        half, sources = out.dtype == np.float16, self._radiographs.address
        self._launch(launch.warp_launch(sources, SLOTS, rois.address, prod(rois.shape), spec, out.address, half))

    def decode(
        self, heatmaps: CudaBuffer, rois: CudaBuffer, views: CudaBuffer, spec: DecodeSpec, points: CudaBuffer
    ) -> None:
        count, joints, height, width = heatmaps.shape
        half = heatmaps.dtype == np.float16
        places = (rois.address, views.address, count, spec, points.address)
        self._launch(launch.decode_launch(heatmaps.address, (joints, height, width), half, *places))

    def boxes(self, points: CudaBuffer, views: CudaBuffer, spec: BoxSpec, rois: CudaBuffer) -> None:
        self._launch(launch.boxes_launch(points.address, views.address, views.shape[0], spec, rois.address))

    def crops(self, points: CudaBuffer, views: CudaBuffer, spec: CropSpec, rois: CudaBuffer) -> None:
        self._launch(launch.crops_launch(points.address, views.address, views.shape[0], spec, rois.address))

    def mirror(self, images: CudaBuffer, out: CudaBuffer) -> None:
        rows, width = prod(images.shape[:-1]), images.shape[-1]
        self._launch(launch.mirror_launch(images.address, rows, width, out.dtype == np.float16, out.address))

    def average(self, heatmaps: Sequence[CudaBuffer], spec: AverageSpec, out: CudaBuffer) -> None:
        count, joints, height, width = out.shape
        runs = [(maps.address, (maps.shape[2], maps.shape[3])) for maps in heatmaps]
        half = out.dtype == np.float16
        self._launch(launch.average_launch(runs, count * joints, (height, width), half, spec, out.address))
