"""Calls of the CUDA driver that pycuda lacks: graphs, event nodes in them, and the order of contexts at close.

Calls go through ctypes to the library that pycuda has loaded. Every status is checked; a call that fails raises a
`DeviceError` that says what to do next. Handles belong to the caller, and the context must be current.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from spinescore.runtime.errors import DeviceError

__all__ = ["DRIVER_LIBRARY", "LEAST_DRIVER", "CudaDriver", "Recording", "cuda_version", "explained"]

DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

LEAST_DRIVER = 11040  # CUDA 11.4: cuGraphInstantiateWithFlags

_THREAD_LOCAL = 1  # capture mode: other threads of the process (another engine, PyTorch) may allocate meanwhile
_EXTERNAL = 1  # record: as a node of the graph, so that every replay records the event anew

# Parts of the driver's messages (cuGetErrorString) -> the next step; the first that fits counts.
_NEXT_STEPS = (
    ("out of memory", "free memory of the GPU, declare a smaller largest image, or use device cpu"),
    ("no CUDA-capable device", "check that the GPU is visible (nvidia-smi, CUDA_VISIBLE_DEVICES), or use device cpu"),
    ("invalid device ordinal", "check that the GPU is visible (nvidia-smi, CUDA_VISIBLE_DEVICES), or use device cpu"),
    ("driver version is insufficient", "update the NVIDIA driver"),
    ("unsupported display driver", "update the NVIDIA driver, and restart where an update is pending"),
    ("busy or unavailable", "another process holds the GPU exclusively; end it, or use device cpu"),
    ("illegal memory access", "the GPU's context is lost: close the scorer and start the process again"),
    ("launch failure", "the GPU's context is lost: close the scorer and start the process again"),
    ("ECC error", "the GPU's memory is faulty: restart it, and have it examined if this comes again"),
    ("captur", "a step that a CUDA graph cannot hold was captured; open the device with graphs=False and report this"),
)
_OTHERWISE = "close the scorer and open it again; if it fails again, look for Xid lines in the system's log"


def explained(message: str, where: str) -> DeviceError:
    """Return the error for a driver call that failed; `message` reads like `cuMemAlloc failed: out of memory`."""
    step = next((step for fragment, step in _NEXT_STEPS if fragment in message), _OTHERWISE)
    return DeviceError(f"{where}: {message.rstrip(' -.')}; {step}.")  # pycuda writes " - " before an empty log


def cuda_version(number: int) -> str:
    """Return `13.0` for 13000, as cuDriverGetVersion counts."""
    return f"{number // 1000}.{number % 1000 // 10}"


class CudaDriver:
    """A few calls of libcuda for one GPU, whose name `where` stands in messages."""

    def __init__(self, where: str) -> None:
        self._where = where
        try:
            self._library = ctypes.CDLL(DRIVER_LIBRARY)
        except OSError as error:
            raise DeviceError(
                f"{where}: the CUDA driver cannot be loaded ({error}); install the NVIDIA driver."
            ) from error

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Return the executable graph of the steps since `begin_capture`; 0 if there were none."""
        graph, runnable, steps = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call("cuGraphGetNodes", graph, None, ctypes.byref(steps))
            if steps.value:
                self._call("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_ulonglong(0))
        finally:
            self._quietly("cuGraphDestroy", graph)
        return runnable.value or 0

    def upload_graph(self, runnable: int, stream: int) -> None:
        """Bring the graph to the GPU, so that its first launch is as fast as the others."""
        self._call("cuGraphUpload", ctypes.c_void_p(runnable), ctypes.c_void_p(stream))

    def abandon_capture(self, stream: int) -> None:
        """End a capture that failed, and discard it."""
        graph = ctypes.c_void_p()
        self._quietly("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        if graph.value:
            self._quietly("cuGraphDestroy", graph)

    def launch(self, runnable: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(runnable), ctypes.c_void_p(stream))

    def destroy_graph(self, runnable: int) -> None:
        self._quietly("cuGraphExecDestroy", ctypes.c_void_p(runnable))

    def create_event(self) -> int:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        return event.value or 0

    def destroy_event(self, event: int) -> None:
        self._quietly("cuEventDestroy_v2", ctypes.c_void_p(event))

    def record(self, event: int, stream: int, captured: bool) -> None:
        flags = _EXTERNAL if captured else 0
        self._call("cuEventRecordWithFlags", ctypes.c_void_p(event), ctypes.c_void_p(stream), flags)

    def elapsed_ms(self, first: int, last: int) -> float:
        """Return the time between two events that have both been reached."""
        ms = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(ms), ctypes.c_void_p(first), ctypes.c_void_p(last))
        return ms.value

    def forget_context(self, handle: int) -> None:
        """Take a context off this thread's stack, even from below others; pycuda releases it but leaves it there."""
        above, popped = [], ctypes.c_void_p()
        while self._quietly("cuCtxPopCurrent_v2", ctypes.byref(popped)) == 0 and popped.value not in (handle, None):
            above.append(ctypes.c_void_p(popped.value))
        for context in reversed(above):
            self._quietly("cuCtxPushCurrent_v2", context)

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._quietly(name, *arguments)
        if status:
            text = ctypes.c_char_p()
            self._quietly("cuGetErrorString", status, ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {status}"
            raise explained(f"{name} failed: {reason}", self._where)

    def _quietly(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._library, name)(*arguments))


class Recording:
    """Captured steps: graphs, and between them the calls that a graph cannot hold."""

    def __init__(self, driver: CudaDriver, stream: int) -> None:
        self._driver, self._stream = driver, stream
        self._graphs: list[int] = []
        self._parts: list[Callable[[], None]] = []
        self._capturing = False

    def begin(self) -> None:
        self._driver.begin_capture(self._stream)
        self._capturing = True

    def end(self) -> None:
        graph = self._driver.end_capture(self._stream)
        self._capturing = False
        if graph:
            self._graphs.append(graph)
            self._driver.upload_graph(graph, self._stream)
            self._parts.append(lambda: self._driver.launch(graph, self._stream))

    def between(self, call: Callable[[], None]) -> None:
        """Make `call` a step between two graphs."""
        self.end()
        self._parts.append(call)
        self.begin()

    def replay(self) -> None:
        for part in self._parts:
            part()

    def free(self) -> None:
        """Free the graphs, also in the middle of a capture. Calling it twice is no error."""
        if self._capturing:
            self._capturing = False
            self._driver.abandon_capture(self._stream)
        self._parts.clear()
        while self._graphs:
            self._driver.destroy_graph(self._graphs.pop())
