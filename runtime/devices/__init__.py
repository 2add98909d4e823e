"""Devices by name: the CPU, or the first NVIDIA GPU. `device` has the verbs that they share.

`KINDS` is the one table of them. To add a device, write its module and its row.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args

from spinescore.runtime.devices.device import LARGEST_IMAGE_PX, Buffer, Device, Replay, loading
from spinescore.runtime.engines import Gpu
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.names import DeviceName
from spinescore.runtime.notices import notice
from spinescore.runtime.warned import caught_warnings

__all__ = [
    "DEVICES",
    "KINDS",
    "LARGEST_IMAGE_PX",
    "Buffer",
    "Device",
    "Replay",
    "device_kind",
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


def open_device(
    name: str = "auto",
    threads: int | None = None,
    largest_image_px: int = LARGEST_IMAGE_PX,
    choice: EngineChoice | None = None,
) -> Device[Any]:
    """Open the device of that name; `auto` takes the GPU, or else the CPU with a warning that says why.

    `threads` limits a CPU's engine. A GPU allocates memory for images of `largest_image_px`, and more if a larger one
    comes. `choice` says which engine runs the networks; by default the device chooses. Raises `DeviceError` if the
    device is not there, `ValueError` for a name that no device has.
    """
    if name not in DEVICES:
        raise ValueError(f"there is no device {name!r}; choose one of {', '.join(DEVICES)}")
    if name != "auto":
        return KINDS[name].open(threads, largest_image_px, choice, ())
    *first, last = KINDS.values()
    warnings: tuple[str, ...] = ()
    for row in first:
        try:
            return row.open(threads, largest_image_px, choice, warnings)
        except DeviceError as error:  # noqa: PERF203  # the next kind may be there
            warnings = (*warnings, notice("scored-on-cpu", f"Scored on the CPU. {error}"))
    return last.open(threads, largest_image_px, choice, warnings)


def device_kind(name: str) -> str:
    """Return the kind of the device of that name; `auto` is the first kind whose hardware is there."""
    if name != "auto":
        return name
    *first, last = KINDS
    for kind in first:
        with suppress(DeviceError):
            hardware_of(kind)
            return kind
    return last


def hardware_of(kind: str) -> str:
    """Return the hardware that an acceptance record holds for: the kind of CPU, or the GPU. Raises `DeviceError`."""
    return KINDS[kind].hardware()


def first_gpu() -> Gpu:
    """Return the GPU that device `cuda` opens. Raises `DeviceError` if there is none."""
    gpu: Gpu = _cuda_device().first_gpu()
    return gpu


def gpu_is_there() -> bool:
    """Return whether this machine has an NVIDIA GPU, even one that cannot be used."""
    try:
        first_gpu()
    except DeviceError:
        return _has_nvidia_hardware()
    return True


def _open_gpu(
    threads: int | None, largest_image_px: int, choice: EngineChoice | None, warnings: tuple[str, ...]
) -> Device[Any]:
    device: Device[Any] = _cuda_device()(largest_image_px=largest_image_px, choice=choice)
    device.warnings = (*warnings, *device.warnings)
    return device


def _open_cpu(
    threads: int | None, largest_image_px: int, choice: EngineChoice | None, warnings: tuple[str, ...]
) -> Device[Any]:
    from spinescore.runtime.devices.host import HostDevice

    return HostDevice(threads, warnings, choice)


class _Kind(NamedTuple):
    """One row of `KINDS`: how a device is opened, and the hardware that records name. Both raise `DeviceError`."""

    open: Callable[[int | None, int, EngineChoice | None, tuple[str, ...]], Device[Any]]
    hardware: Callable[[], str]


# In the order in which `auto` tries them; the last one is always there.
KINDS: dict[str, _Kind] = {
    "cuda": _Kind(_open_gpu, lambda: str(first_gpu())),
    "cpu": _Kind(_open_cpu, processor_kind),
}


def _has_nvidia_hardware() -> bool:
    """Look without the driver: for NVIDIA's display controllers on PCI, or the driver's device files."""
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
    """Import and return the class. Raises `DeviceError`, which says what is missing."""
    missing = "Device cuda is not available"
    try:
        with caught_warnings():  # pycuda warns of what it then raises, while other threads read files
            from spinescore.runtime.devices.cuda import CudaDevice
    except ImportError as error:
        absent = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if absent == __name__.split(".")[0]:
            raise
        if absent == "pycuda":
            reason = "pycuda is not installed. Install it (pip install 'spinescore[cuda]')"
        else:
            reason = f"pycuda cannot be imported ({error}); {_pycuda_repair(str(error), absent)}"
        raise DeviceError(f"{missing}: {reason}, or use device cpu.") from error
    return CudaDevice


def _pycuda_repair(message: str, absent: str) -> str:
    """Return the next step. The loader's words may be in the user's language; names of files and symbols are not."""
    if absent:
        return f"install what it needs (pip install {absent})"
    if "libcuda." in message or "DLL load failed" in message:
        return "install the NVIDIA driver"
    if re.search(r"\bcu[A-Z]\w+", message):  # a function that this driver lacks
        return "update the NVIDIA driver"
    return "build it anew for this Python (pip install --force-reinstall --no-cache-dir --no-deps pycuda)"
