"""What the machine is, by the driver and nvidia-smi; and the few driver calls that the checks make of their own."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from spinescore.benchmarks.gpu.record import Record, Skipped
from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY, cuda_version

__all__ = ["Driver", "bandwidth_gb_s", "host_memory_bytes", "run"]

_ATTRIBUTES = {  # CUdevice_attribute
    "multiprocessors": 16,
    "compute_capability_major": 75,
    "compute_capability_minor": 76,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
    "copy_engines": 40,
    "integrated": 18,
    "ecc": 32,
    "registers_per_multiprocessor": 82,
    "shared_bytes_per_multiprocessor": 81,
}
_ASKED = (
    "name,driver_version,memory.total,clocks.current.sm,clocks.max.sm,clocks.current.memory,clocks.max.memory,"
    "power.limit,pcie.link.gen.current,pcie.link.width.current,persistence_mode,compute_mode,mig.mode.current"
)
_PACKAGES = (
    "spinescore", "numpy", "pycuda", "onnx", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "pydicom",
    "torch", "triton", "cupy-cuda13x", "tensorrt", "tensorrt-lean", "tensorrt-rtx-cu13", "nvidia-cudnn-cu13",
    "imagecodecs",
)  # fmt: skip


class Driver:
    """Calls of libcuda beside the device's own. Raises `Skipped` where the library or a call is not to be had."""

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL(DRIVER_LIBRARY)
        except OSError as error:
            raise Skipped(f"the CUDA driver cannot be loaded: {error}") from error

    def call(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._library, name)(*arguments))
        if status:
            raise Skipped(f"{name} answered {status}")

    def facts(self) -> dict[str, Any]:
        device, version, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(256)
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDeviceGetName", name, 256, device)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        facts: dict[str, Any] = {
            "name": name.value.decode(errors="replace"),
            "driver_cuda": cuda_version(version.value),
        }
        for attribute, number in _ATTRIBUTES.items():
            value = ctypes.c_int()
            if not self._library.cuDeviceGetAttribute(ctypes.byref(value), number, device):
                facts[attribute] = value.value
        if not self._library.cuDeviceTotalMem_v2(ctypes.byref(total), device):
            facts["memory_bytes"] = total.value
        facts["bandwidth_gb_s"] = bandwidth_gb_s(facts)
        return facts

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all of them. Other processes' doings show in the first."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self.current():
            self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def copy_on_device(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy; the context must be current, as it is in steps that a device captures."""
        addresses = ctypes.c_uint64(to), ctypes.c_uint64(source)
        self.call("cuMemcpyDtoDAsync_v2", *addresses, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))

    def copy_to_device(self, to: int, host: int, nbytes: int, stream: int) -> None:
        places = ctypes.c_uint64(to), ctypes.c_void_p(host)
        self.call("cuMemcpyHtoDAsync_v2", *places, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))

    @contextmanager
    def current(self) -> Iterator[None]:
        """The first GPU's primary context, current on this thread."""
        context, popped = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        try:
            self.call("cuCtxPushCurrent_v2", context)
            try:
                yield
            finally:
                self._library.cuCtxPopCurrent_v2(ctypes.byref(popped))
        finally:
            self._library.cuDevicePrimaryCtxRelease_v2(0)


def bandwidth_gb_s(facts: dict[str, Any]) -> float | None:
    """The memory's peak by its clock (two transfers a cycle) and width; None where the driver does not tell them."""
    clock_khz, bits = facts.get("memory_clock_khz", 0), facts.get("memory_bus_bits", 0)
    return round(2 * clock_khz * 1e3 * bits / 8 / 1e9, 1) if clock_khz > 1000 and bits > 1 else None


def host_memory_bytes() -> int | None:
    """This process's resident memory (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None


def run(record: Record, options: Any) -> None:
    """The part `machine`."""
    facts = record.check("gpu", lambda: Driver().facts())
    said = record.check("nvidia-smi", _nvidia_smi)
    record.check("packages", _packages)
    record.check("device", lambda: _open(options))
    record.document["machine"] = {"gpu": facts, "nvidia_smi": said, "host": _host()}
    record.write()


def _nvidia_smi() -> dict[str, Any]:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise Skipped("nvidia-smi is not on PATH")
    command = [program, f"--query-gpu={_ASKED}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Skipped(f"nvidia-smi ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}")
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(_ASKED.split(","), values, strict=True))


def _packages() -> dict[str, Any]:
    found = reversed(list(metadata.distributions()))  # of two, the one that is imported comes last
    installed = {str(one.metadata["Name"]).lower(): one.version for one in found}
    return {"python": platform.python_version(), **{name: installed.get(name, "not installed") for name in _PACKAGES}}


def _open(options: Any) -> dict[str, Any]:
    """Open the device for the first time: where kernels are compiled at first use, this is when."""
    from spinescore.runtime.devices import open_device

    started = time.perf_counter()
    device = open_device("cuda", largest_image_px=2**20)
    opened_s = time.perf_counter() - started
    device.close()
    started = time.perf_counter()
    open_device("cuda", largest_image_px=2**20).close()
    return {"first_open_s": round(opened_s, 3), "open_and_close_s": round(time.perf_counter() - started, 3)}


def _host() -> dict[str, Any]:
    from spinescore.runtime.doctor import hardware

    return {**hardware(), "host_memory_bytes": _host_total()}


def _host_total() -> int | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    try:
        pages: int = os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return pages * mmap.PAGESIZE
