"""The CPU as the reference of whole studies, with any OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
from numpy.typing import NDArray

from spinescore.kernels.warp import Source, WarpSpec, warp
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import DeviceError

__all__ = ["ReferenceHost", "open_host"]


class ReferenceHost(HostDevice):
    """The CPU with the float64 reference in place of OpenCV's warp. It is slow, and asks nothing of OpenCV."""

    def __init__(self) -> None:
        version = cv2.__version__
        cv2.__version__ = "5.0"  # older ones are refused because of their warp, which is not used here
        try:
            super().__init__()
        finally:
            cv2.__version__ = version
        self._images: list[Source | None] = [None, None]

    def upload(self, slot: int, source: Source) -> None:
        self._images[slot] = source

    def forget(self) -> None:
        self._images = [None, None]

    def warp(self, rois: NDArray[Any], spec: WarpSpec, out: NDArray[Any]) -> None:
        out[...] = warp(self._images, rois.reshape(-1), spec)


def open_host() -> HostDevice:
    """Return the CPU with OpenCV's warp, or with the float64 reference if this OpenCV is too old."""
    try:
        return HostDevice()
    except DeviceError:
        return ReferenceHost()
