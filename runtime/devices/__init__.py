"""Devices: where buffers live, kernels run and engines infer. The pipeline knows only the verbs of `Device`.

A device owns all that it allocates, frees it on `close`, and is used by one thread at a time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.average import AverageSpec
from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.engines import Engine
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.names import DeviceName
from spinescore.runtime.notices import notice
from spinescore.runtime.warned import caught_warnings

__all__ = [
    "DEVICES",
    "LARGEST_IMAGE_PX",
    "Buffer",
    "Device",
    "Replay",
    "first_gpu",
    "gpu_is_there",
    "hardware_of",
    "loading",
    "open_device",
]

DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI's vendor, and its class of display controllers
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu")  # the latter of Jetsons
LARGEST_IMAGE_PX = 5120 * 5120  # for which a GPU's memory is allocated, where nothing else is said


class Buffer(Protocol):
    """Memory of the device: an array whose slices along the first axis are views of the same memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, part: slice, /) -> Any: ...


# Captured steps. A device may run more views than are asked for; what those yield is left unread.
Replay = Callable[[slice], None]


B = TypeVar("B", bound=Buffer)


class Device(Protocol[B]):
    """The verbs. Launches (`warp` .. `run`, `mark`) are queued in order; `read` and `synchronise` wait for them."""

    kind: str  # "cpu", "cuda"
    name: str  # the hardware, for reports
    precisions: tuple[str, ...]  # of networks, the preferred one first
    warnings: tuple[str, ...]  # for every report: what the device should have been

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> B:
        """A zeroed buffer in C order, kept until `close`."""

    def write(self, buffer: B, values: NDArray[Any]) -> None:
        """Copy host values of the buffer's shape and dtype into it."""

    def read(self, buffer: B) -> NDArray[Any]:
        """A copy of the buffer on the host, after everything queued has run."""

    def upload(self, slot: int, source: Source) -> None:
        """Make `source` the image that ROIs with this source number read (0 or 1), replacing the one before."""

    def forget(self) -> None:
        """Nothing reads the images any more until others are uploaded: let go of what is the caller's."""

    def engines(
        self, networks: Sequence[tuple[Path, str]], before: Callable[[str], None] | None = None
    ) -> list[Engine[B]]:
        """Load networks: their files, and the precisions of those. The engines are closed with the device.

        `before` is told of each that is loaded, maybe from several threads. Raises `EngineError`, and what `before`
        raises.
        """

    def warp(self, rois: B, spec: WarpSpec, out: B) -> None:
        """Kernel 1: `out` (N, channels, height, width) from N ROIs of any shape."""

    def decode(self, heatmaps: B, rois: B, views: B, spec: DecodeSpec, points: B) -> None:
        """Kernel 2: the points (N, 6, 2) of N views."""

    def boxes(self, points: B, views: B, spec: BoxSpec, rois: B) -> None:
        """Kernel 2: the second pass's ROIs (N)."""

    def crops(self, points: B, views: B, spec: CropSpec, rois: B) -> None:
        """Kernel 2: the crops' ROIs (N, 6, flips)."""

    def mirror(self, images: B, out: B) -> None:
        """Kernel 3: `out` (N, channels, height, width) are the images with their last axis reversed."""

    def average(self, heatmaps: Sequence[B], spec: AverageSpec, out: B) -> None:
        """Kernel 3: `out` (N, joints, h, w) is the mean of all runs' heatmaps (N, joints, h_r, w_r)."""

    def run(self, engine: Engine[B], inputs: B, outputs: B) -> None:
        """Infer the batch in `inputs` into `outputs`."""

    def mark(self, stage: str) -> None:
        """Note the time at which everything queued before has run."""

    def marks_ms(self) -> dict[str, float]:
        """The marks of the latest replay, in milliseconds since its first one."""

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        """Make `steps` replayable. A GPU runs them for both views once, in which engines may still allocate."""

    def synchronise(self) -> None:
        """Wait until everything queued has run."""

    def close(self) -> None:
        """Free everything. Closing twice is no error."""


def open_device(
    name: str = "auto",
    threads: int | None = None,
    largest_image_px: int = LARGEST_IMAGE_PX,
    choice: EngineChoice | None = None,
) -> Device[Any]:
    """The device of that name; `auto` takes the GPU, or else the CPU with a warning that says why.

    `threads` limits a CPU's engine, `largest_image_px` is what a GPU allocates memory for, `choice` is what runs the
    networks (without one, what the device does of itself). Raises `DeviceError` where the device is not there,
    `ValueError` for a name that no device has.
    """
    if name not in DEVICES:
        raise ValueError(f"there is no device {name!r}; choose one of {', '.join(DEVICES)}")
    warnings: tuple[str, ...] = ()
    if name != "cpu":
        try:
            device: Device[Any] = _cuda_device()(largest_image_px=largest_image_px, choice=choice)
            return device
        except DeviceError as error:
            if name == "cuda":
                raise
            warnings = (notice("scored-on-cpu", f"Scored on the CPU. {error}"),)
    from spinescore.runtime.devices.host import HostDevice

    return HostDevice(threads, warnings, choice)


def loading(path: Path, precision: str) -> str:
    """What `Device.engines` tells of a network that it loads."""
    return f"loading network {path.name} ({precision})"


def hardware_of(kind: str) -> str:
    """What an acceptance record is of: the kind of this CPU, or the GPU's name. Raises `DeviceError`."""
    return processor_kind() if kind == "cpu" else first_gpu()[0]


def first_gpu() -> tuple[str, tuple[int, int]]:
    """Name and compute capability of the GPU that device `cuda` opens. Raises `DeviceError` where there is none."""
    found: tuple[str, tuple[int, int]] = _cuda_device().first_gpu()
    return found


def gpu_is_there() -> bool:
    """Whether this machine has an NVIDIA GPU, one that can be used or not."""
    try:
        first_gpu()
    except DeviceError:
        return _has_nvidia_hardware()
    return True


def _has_nvidia_hardware() -> bool:
    """As the system says without its driver: PCI display controllers of NVIDIA's, or the driver's device files."""
    if sys.platform == "win32":
        from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY

        try:
            ctypes.CDLL(DRIVER_LIBRARY)
        except OSError:
            return False
        return True
    for folder in _PCI.glob("*"):
        with suppress(OSError, ValueError):
            vendor, kind = ((folder / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA and kind.startswith(_DISPLAY):
                return True
    return any(Path(name).exists() for name in _DEVICE_FILES)


def _cuda_device() -> Any:
    """The class. Raises `DeviceError` that says what is missing."""
    missing = "Device cuda is not available"
    try:
        with caught_warnings():  # pycuda warns of what it then raises, while other threads read files
            from spinescore.runtime.devices.cuda import CudaDevice
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "pycuda":
            raise
        raise DeviceError(
            f"{missing}: pycuda is not installed. Install it (pip install 'spinescore[cuda]'), or use device cpu."
        ) from error
    except ImportError as error:  # pycuda is there, but the driver's library is not, or lacks what pycuda names
        step = "update the NVIDIA driver" if "symbol" in str(error) else "install the NVIDIA driver"
        raise DeviceError(f"{missing}: pycuda cannot load the driver ({error}); {step}, or use device cpu.") from error
    return CudaDevice
