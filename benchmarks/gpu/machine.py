"""The GPU as the driver and nvidia-smi describe it, and the driver calls that the checks make themselves."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spinescore.benchmarks.gpu.record import Record, Skipped
from spinescore.benchmarks.harness.child import run_child
from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY, cuda_version
from spinescore.runtime.errors import EngineError
from spinescore.runtime.machine.memory import memory_bytes

__all__ = ["Driver", "bandwidth_gb_s", "device_in_use_bytes", "run"]

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
_QUERY = (
    "name,driver_version,memory.total,clocks.current.sm,clocks.max.sm,clocks.current.memory,clocks.max.memory,"
    "power.limit,pcie.link.gen.current,pcie.link.width.current,persistence_mode,compute_mode,mig.mode.current"
)


class Driver:
    """Calls of libcuda beside the device's own. Raises `Skipped` if the library is missing or a call fails."""

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
        """Return free and total bytes of the GPU's memory; other processes change the first."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self.current():
            self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def copy_on_device(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy. The context must be current, as in steps that a device captures."""
        addresses = ctypes.c_uint64(to), ctypes.c_uint64(source)
        self.call("cuMemcpyDtoDAsync_v2", *addresses, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))

    def copy_to_device(self, to: int, host: int, nbytes: int, stream: int) -> None:
        places = ctypes.c_uint64(to), ctypes.c_void_p(host)
        self.call("cuMemcpyHtoDAsync_v2", *places, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the first GPU's primary context current on this thread."""
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
    """Return the memory's peak rate by its clock (two transfers a cycle) and width, None if they are unknown."""
    clock_khz, bits = facts.get("memory_clock_khz", 0), facts.get("memory_bus_bits", 0)
    return round(2 * clock_khz * 1e3 * bits / 8 / 1e9, 1) if clock_khz > 1000 and bits > 1 else None


def device_in_use_bytes() -> int | None:
    """Return the bytes of the first GPU's memory that all processes use, None if the driver does not tell."""
    try:
        free, total = Driver().memory()
    except Skipped:
        return None
    return total - free


def run(record: Record, options: Any) -> None:
    """Run the part `machine`."""
    facts = record.check("gpu", lambda: Driver().facts())
    answers = record.check("nvidia-smi", _nvidia_smi)
    record.check("device", _open)
    record.document["machine"] = {"gpu": facts, "nvidia_smi": answers, "host_memory_bytes": memory_bytes()}
    record.write()


def _nvidia_smi() -> dict[str, Any]:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise Skipped("nvidia-smi is not on PATH")
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader", "--id=0"]
    try:
        output = run_child(command, timeout_s=30)
    except EngineError as error:
        raise Skipped(str(error)) from error
    values = [value.strip() for value in output.strip().split(",")]
    return dict(zip(_QUERY.split(","), values, strict=True))


def _open() -> dict[str, Any]:
    """Open the device for the first time, which compiles the kernels if they were not compiled before."""
    from spinescore.runtime.devices import open_device

    started = time.perf_counter()
    device = open_device("cuda", largest_image_px=2**20)
    opened_s = time.perf_counter() - started
    device.close()
    started = time.perf_counter()
    open_device("cuda", largest_image_px=2**20).close()
    return {"first_open_s": round(opened_s, 3), "open_and_close_s": round(time.perf_counter() - started, 3)}
