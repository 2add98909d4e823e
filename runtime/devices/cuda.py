"""An NVIDIA GPU as a device: CUDA kernels and an engine on one stream, replayed as a CUDA graph.

The only module that imports pycuda.

Memory     The device owns its memory, and `close` frees it: two slots for radiographs of `largest_image_px` pixels with
           pinned host memory beside each, and the pipeline's buffers. A slot grows if a larger radiograph comes. An
           integrated GPU reads radiographs from host memory if the two are fully coherent (Jetson Thor, GB10); a Jetson
           Orin does not cache that memory, so that a copy in device memory is faster (CUDA for Tegra, section 2).
Order      Kernels and engines are queued on one stream; each slot is uploaded on a stream of its own, so that one view
           is on its way while the next is copied into pinned memory. Steps of a graph may fetch buffers: `read` then
           waits for the graph and copies nothing more.
Context    The GPU's primary context, shared with TensorRT, ONNX Runtime and PyTorch. It is current only inside the
           verbs. Any thread may call them, but two at once are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as drv
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.compiled import codes
from spinescore.kernels.launch import Launch
from spinescore.kernels.warp import Source
from spinescore.runtime.devices.cudacontext import NOT_AVAILABLE, PrimaryContext, first_gpu, is_coherent, translated
from spinescore.runtime.devices.cudadriver import CudaDriver, Recording
from spinescore.runtime.devices.cudakernels import Compiled, Kernels, KernelVerbs
from spinescore.runtime.devices.cudamemory import NON_BLOCKING, CudaBuffer, Memory
from spinescore.runtime.devices.cudauploads import Radiographs
from spinescore.runtime.devices.device import LARGEST_IMAGE_PX, Replay, loading
from spinescore.runtime.engines import CudaQueue, Engine, Gpu
from spinescore.runtime.engines.choice import EngineChoice, open_on_gpu
from spinescore.runtime.errors import DeviceError

__all__ = ["CudaBuffer", "CudaDevice"]

_Span = tuple[Memory, int, int]  # first byte, end
OpenEngine = Callable[[Path, str, CudaQueue], Engine[Any]]

_SMALL_BYTES = 2**20  # more than a study writes or reads at once; larger host memory is pinned when it is first used
_BOTH_VIEWS = slice(0, 2)


class CudaDevice(KernelVerbs):
    """The first GPU that CUDA sees. It owns its memory, streams, graphs and engines until `close`.

    `graphs=False` queues every step anew instead of replaying a graph. `choice` says which engine runs networks; by
    default it is the best that is installed. `open_engine` and `compiled` are the sources of engines and kernels.
    Raises `DeviceError` if the GPU cannot be used.
    """

    kind = "cuda"
    precisions: tuple[str, ...] = ("fp16", "fp32")
    warnings: tuple[str, ...] = ()
    index = 0

    def __init__(
        self,
        *,
        largest_image_px: int = LARGEST_IMAGE_PX,
        graphs: bool = True,
        choice: EngineChoice | None = None,
        open_engine: OpenEngine | None = None,
        compiled: Compiled | None = None,
    ) -> None:
        gpu = first_gpu(drv, self.index)
        with translated(drv, NOT_AVAILABLE):
            self.name: str = gpu.name()
            self.compute_capability: tuple[int, int] = gpu.compute_capability()
            self.multiprocessors: int = gpu.multiprocessor_count
            mapped = is_coherent(drv, gpu)
        self._where = f"GPU {self.name}"
        self._driver = CudaDriver(self._where)
        self._largest_px, self._graphs, self._choice = largest_image_px, graphs, choice
        if choice is not None:
            self.precisions = choice.files
        self._open_engine = open_engine or self._best_engine
        self._memories: list[Memory] = []
        self._engines: list[Engine[Any]] = []
        self._recordings: list[Recording] = []
        self._recording: Recording | None = None  # the capture that is going on
        self._marks: dict[str, int] = {}
        self._radiographs = Radiographs(drv, mapped, self._memories)
        self._kernels = Kernels(drv, compiled or codes, self.compute_capability, self._where)
        self._stream: Any = None
        self._busy: set[Memory] = set()  # memory whose host side the GPU may still read or fill
        self._fetched: set[_Span] = set()  # parts of memory that the stream copies to the host before it ends
        self._context = PrimaryContext(drv, gpu, self._where)
        try:
            with self._active():
                self._open()
        except BaseException:
            self.close()
            raise

    @classmethod
    def first_gpu(cls) -> Gpu:
        """Return the GPU that would be opened. Raises `DeviceError` if there is none."""
        gpu = first_gpu(drv, cls.index)
        with translated(drv, NOT_AVAILABLE):
            return Gpu(str(gpu.name()), gpu.compute_capability(), gpu.multiprocessor_count)

    @property
    def stream_handle(self) -> int:
        return int(self._stream.handle)

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> CudaBuffer:
        with self._active(outside_capture="memory is allocated"):
            kind = np.dtype(dtype)
            nbytes = max(prod(shape) * kind.itemsize, 1)
            memory = Memory(drv, nbytes, pinned=nbytes <= _SMALL_BYTES)
            self._memories.append(memory)
            memory.clear(self._stream)
            return CudaBuffer(memory, 0, tuple(shape), kind)

    def write(self, buffer: CudaBuffer, values: NDArray[Any]) -> None:
        if (values.shape, values.dtype) != (buffer.shape, buffer.dtype):
            raise ValueError(f"a buffer {buffer.shape} of {buffer.dtype} got {values.shape} of {values.dtype}")
        with self._active(outside_capture="a buffer is written"):
            if buffer.memory in self._busy:
                self.synchronise()
            start, stop = buffer.offset, buffer.offset + buffer.nbytes
            buffer.memory.host[start:stop] = np.frombuffer(values.tobytes(), np.uint8)
            buffer.memory.send(start, stop, self._stream)
            self._busy.add(buffer.memory)
            self._fetched.clear()

    def read(self, buffer: CudaBuffer) -> NDArray[Any]:
        with self._active(outside_capture="a buffer is read"):
            start, stop = buffer.offset, buffer.offset + buffer.nbytes
            if not any(memory is buffer.memory and a <= start and stop <= b for memory, a, b in self._fetched):
                buffer.memory.fetch(start, stop, self._stream)
            self.synchronise()
            return buffer.memory.host[start:stop].view(buffer.dtype).reshape(buffer.shape).copy()

    def fetch(self, buffer: CudaBuffer) -> None:
        with self._active():
            span = (buffer.memory, buffer.offset, buffer.offset + buffer.nbytes)
            buffer.memory.fetch(*span[1:], self._stream)
            self._busy.add(buffer.memory)
            self._fetched.add(span)

    def upload(self, slot: int, source: Source) -> None:
        """Copies the pixels and returns while they are on their way. Raises `DeviceError` if memory is short."""
        with self._active(outside_capture="a radiograph is uploaded"):
            self._radiographs.upload(slot, source, self._stream, self._where)

    def forget(self) -> None:
        """Do nothing: an upload has copied the caller's pixels."""

    def engines(
        self,
        networks: Sequence[tuple[Path, str]],
        before: Callable[[str], None] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Engine[CudaBuffer]]:
        with self._active(outside_capture="networks are opened"):
            opened = []
            for path, precision in networks:
                if before is not None:
                    before(loading(path, precision))
                opened.append(self._open_engine(path, precision, self))
                self._engines.append(opened[-1])
            return opened

    def run(self, engine: Engine[CudaBuffer], inputs: CudaBuffer, outputs: CudaBuffer) -> None:
        with self._active():
            self._fetched.clear()
            if self._recording is not None and not engine.capturable:
                self._recording.between(lambda: engine.run(inputs, outputs))
            else:
                engine.run(inputs, outputs)

    def mark(self, stage: str) -> None:
        with self._active():
            if stage not in self._marks:
                self._marks[stage] = self._driver.create_event()
            self._driver.record(self._marks[stage], self.stream_handle, captured=self._recording is not None)

    def marks_ms(self) -> dict[str, float]:
        with self._active(outside_capture="the marks are read"):
            self.synchronise()
            first = next(iter(self._marks.values()), 0)
            return {stage: self._driver.elapsed_ms(first, event) for stage, event in self._marks.items()}

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        """The first run, outside of the capture, is the one in which engines and kernels may still allocate."""
        with self._active(outside_capture="another capture begins"):
            steps(_BOTH_VIEWS)
            self.synchronise()
            if not self._graphs:
                return lambda views: steps(_BOTH_VIEWS)  # engines are built for the batch of both
            recording = Recording(self._driver, self.stream_handle)
            self._recordings.append(recording)
            self._recording = recording
            self._fetched.clear()
            try:
                recording.begin()
                steps(_BOTH_VIEWS)
                recording.end()
            except BaseException:
                recording.free()
                raise
            finally:
                self._recording = None
                fetched = frozenset(self._fetched)
                self._fetched.clear()

        def replay(views: slice) -> None:
            with self._active(outside_capture="a graph is replayed"):
                self._radiographs.used = True
                recording.replay()
                self._fetched = set(fetched)
                self._busy.update(memory for memory, _, _ in fetched)

        return replay

    def synchronise(self) -> None:
        with self._active(outside_capture="the device is waited for"):
            self._stream.synchronize()
            self._busy.clear()

    def close(self) -> None:
        with self._context.last_use() as last:
            if last is None:
                return
            self._radiographs.stop()
            with suppress(drv.Error):  # if the GPU is lost, every call to free its memory would fail
                if self._stream is not None:
                    self._stream.synchronize()
                last.callback(self._let_go)
                for memory in self._memories:
                    last.callback(memory.free)
            for event in self._marks.values():
                last.callback(self._driver.destroy_event, event)
            for engine in self._engines:
                last.callback(engine.close)
            for recording in self._recordings:
                last.callback(recording.free)
        self._let_go()

    def _open(self) -> None:
        self._stream = drv.Stream(NON_BLOCKING)
        self._radiographs.open(self._largest_px, self._stream)
        self._kernels.open()
        self.warnings = (*self.warnings, *self._kernels.warnings)
        self._stream.synchronize()

    def _best_engine(self, path: Path, precision: str, queue: CudaQueue) -> Engine[Any]:
        engine, warning = open_on_gpu(self._choice, path, precision, queue)
        self.warnings = (*self.warnings, *([warning] if warning else []))
        return engine

    def _let_go(self) -> None:
        """Streams, events and modules are destroyed with the last reference to them: no other is kept anywhere."""
        for held in (self._memories, self._engines, self._recordings, self._marks):
            held.clear()
        self._radiographs.let_go()
        self._kernels.let_go()
        self._stream = None

    def _launch(self, work: Launch) -> None:
        with self._active():
            self._radiographs.used = True
            self._fetched.clear()
            self._kernels.queue(work, self._stream)

    @contextmanager
    def _active(self, outside_capture: str = "") -> Iterator[None]:
        """Every verb runs in this. `outside_capture` names what a capture cannot hold, and is refused in one."""
        with self._context.active():
            if outside_capture and self._recording is not None:
                raise DeviceError(f"{self._where}: {outside_capture} while steps are captured; do it before or after.")
            yield
