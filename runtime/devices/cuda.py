"""An NVIDIA GPU as a device: CUDA kernels and an engine on one stream, replayed as a CUDA graph.

The only module that imports pycuda.

Memory     Everything is allocated at open, belongs to the device and is freed by `close`: two slots for radiographs of
           up to `largest_image_px` pixels with pinned host memory beside each, and what the pipeline allocates. Where
           host and GPU share their memory (Jetson) the slots' host memory is mapped and radiographs are not copied.
Order      Kernels and engines are queued on one stream; each slot is uploaded on a stream of its own, so that one view
           is on its way while the next is brought into pinned memory. Where an image lies and how large it is stands in
           device memory, so that a graph that was captured once serves every size.
Context    The GPU's primary context, shared with TensorRT, ONNX Runtime and PyTorch. It is current only inside the
           verbs, so that any thread may call them, but one at a time: two at once are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as drv
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels import launch
from spinescore.kernels.average import AverageSpec
from spinescore.kernels.build import KernelBuildError, fatbin
from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.devices.cudacontext import NOT_AVAILABLE, PrimaryContext, first_gpu, translated
from spinescore.runtime.devices.cudadriver import CudaDriver, Recording
from spinescore.runtime.devices.cudamemory import MOST_TABLE_ENTRIES, NON_BLOCKING, CudaBuffer, Memory, Slot
from spinescore.runtime.devices.device import LARGEST_IMAGE_PX, Replay, loading
from spinescore.runtime.engines import CudaQueue, Engine, Gpu
from spinescore.runtime.engines.choice import EngineChoice, open_on_gpu
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.caches import cache_values
from spinescore.runtime.notices import notice
from spinescore.runtime.warned import caught_warnings

__all__ = ["CudaBuffer", "CudaDevice"]

OpenEngine = Callable[[Path, str, CudaQueue], Engine[Any]]
Compiled = Callable[[str, tuple[int, int]], bytes]  # kernel source and compute capability -> what the driver loads

_SLOTS = 2
_SMALL_BYTES = 2**20  # what is written and read for each study; host memory beside more is pinned when it is asked for
_BOTH_VIEWS = slice(0, 2)


class CudaDevice:
    """The first GPU that CUDA sees. Owns its memory, streams, graphs and engines; close it, or lose them at exit.

    `graphs=False` queues every step anew instead of replaying a graph. `choice` is what runs networks; without one the
    best engine that there is. `open_engine` and `compiled` are where networks
    and compiled kernels come from. Raises `DeviceError` where the GPU cannot be used.
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
            self._mapped = bool(gpu.integrated and gpu.can_map_host_memory)
        self._where = f"GPU {self.name}"
        self._driver = CudaDriver(self._where)
        self._largest_px, self._graphs, self._choice = largest_image_px, graphs, choice
        if choice is not None:
            self.precisions = choice.files
        self._open_engine, self._compiled = open_engine or self._best_engine, compiled or _fatbin
        self._memories: list[Memory] = []
        self._engines: list[Engine[Any]] = []
        self._recordings: list[Recording] = []
        self._recording: Recording | None = None  # the capture that is going on
        self._marks: dict[str, int] = {}
        self._slots: list[Slot] = []
        self._modules: dict[str, Any] = {}  # by source file
        self._functions: dict[str, Any] = {}  # by kernel
        self._stream: Any = None
        self._idle: Any = None
        self._sources: Any = None
        self._sent: set[Memory] = set()  # whose host memory may still be on its way
        self._used = False  # the slots have been read since the latest upload
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
            memory = self._keep(Memory(drv, max(prod(shape) * kind.itemsize, 1)))
            memory.clear(self._stream)
            if memory.nbytes <= _SMALL_BYTES:
                memory.pin()
            return CudaBuffer(memory, 0, tuple(shape), kind)

    def write(self, buffer: CudaBuffer, values: NDArray[Any]) -> None:
        if (values.shape, values.dtype) != (buffer.shape, buffer.dtype):
            raise ValueError(f"a buffer {buffer.shape} of {buffer.dtype} got {values.shape} of {values.dtype}")
        with self._active(outside_capture="a buffer is written"):
            if buffer.memory in self._sent:
                self.synchronise()
            start, stop = buffer.offset, buffer.offset + buffer.nbytes
            buffer.memory.host[start:stop] = np.frombuffer(values.tobytes(), np.uint8)
            buffer.memory.send(start, stop, self._stream)
            self._sent.add(buffer.memory)

    def read(self, buffer: CudaBuffer) -> NDArray[Any]:
        with self._active(outside_capture="a buffer is read"):
            start, stop = buffer.offset, buffer.offset + buffer.nbytes
            buffer.memory.fetch(start, stop, self._stream)
            self.synchronise()
            return buffer.memory.host[start:stop].view(buffer.dtype).reshape(buffer.shape).copy()

    def upload(self, slot: int, source: Source) -> None:
        """Copies the pixels and returns while they are on their way. Raises `DeviceError` for a larger image."""
        self._check_size(source)
        with self._active(outside_capture="a radiograph is uploaded"):
            place, size = self._slots[slot], launch.SOURCE.itemsize
            place.arrived.synchronize()
            if self._used:
                self._idle.record(self._stream)
                self._used = False
                if self._mapped:  # there the GPU reads the host memory itself
                    self._idle.synchronize()
            record, pixel_bytes, table_bytes = place.fill(source)
            self._sources.host[slot * size : (slot + 1) * size] = np.frombuffer(record.tobytes(), np.uint8)
            place.stream.wait_for_event(self._idle)
            place.pixels.send(0, pixel_bytes, place.stream)
            place.tables.send(0, table_bytes, place.stream)
            self._sources.send(slot * size, (slot + 1) * size, place.stream)
            place.arrived.record(place.stream)
            self._stream.wait_for_event(place.arrived)

    def forget(self) -> None:
        """Nothing: an upload copies what is the caller's."""

    def engines(
        self, networks: Sequence[tuple[Path, str]], before: Callable[[str], None] | None = None
    ) -> list[Engine[CudaBuffer]]:
        with self._active(outside_capture="networks are opened"):
            opened = []
            for path, precision in networks:
                if before is not None:
                    before(loading(path, precision))
                opened.append(self._open_engine(path, precision, self))
                self._engines.append(opened[-1])
            return opened

    def warp(self, rois: CudaBuffer, spec: WarpSpec, out: CudaBuffer) -> None:
        half = out.dtype == np.float16
        count = prod(rois.shape)
        self._launch(launch.warp_launch(self._sources.address, _SLOTS, rois.address, count, spec, out.address, half))

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

    def run(self, engine: Engine[CudaBuffer], inputs: CudaBuffer, outputs: CudaBuffer) -> None:
        with self._active():
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
                return steps
            recording = Recording(self._driver, self.stream_handle)
            self._recordings.append(recording)
            self._recording = recording
            try:
                recording.begin()
                steps(_BOTH_VIEWS)
                recording.end()
            except BaseException:
                recording.free()
                raise
            finally:
                self._recording = None

        def replay(views: slice) -> None:
            with self._active(outside_capture="a graph is replayed"):
                self._used = True
                recording.replay()

        return replay

    def synchronise(self) -> None:
        with self._active(outside_capture="the device is waited for"):
            self._stream.synchronize()
            self._sent.clear()

    def close(self) -> None:
        with self._context.last_use() as last:
            if last is None:
                return
            if self._finished():
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

    def _finished(self) -> bool:
        """False where the GPU is lost: its memory went with it, and every call to free it would fail."""
        try:
            if self._stream is not None:
                self._stream.synchronize()
        except drv.Error:
            return False
        return True

    def _open(self) -> None:
        self._stream = drv.Stream(NON_BLOCKING)
        self._idle = drv.Event(drv.event_flags.DISABLE_TIMING)
        self._sources = self._keep(Memory(drv, _SLOTS * launch.SOURCE.itemsize, self._mapped)).pin()
        self._sources.clear(self._stream)
        for _ in range(_SLOTS):
            self._slots.append(Slot(drv, self._largest_px, self._mapped, self._keep))
        for source in sorted({source for source, _ in launch.KERNELS.values()}):
            with caught_warnings() as told:  # a compiled kernel that could not be kept
                code = self._compiled(source, self.compute_capability)
            notices = (notice("cache-not-writable", text, **cache_values()) for text in told)
            self.warnings = (*self.warnings, *notices)
            self._modules[source] = drv.module_from_buffer(code)
        for kernel, (source, _) in launch.KERNELS.items():
            self._functions[kernel] = self._modules[source].get_function(kernel)
        self._stream.synchronize()

    def _best_engine(self, path: Path, precision: str, queue: CudaQueue) -> Engine[Any]:
        engine, warning = open_on_gpu(self._choice, path, precision, queue)
        self.warnings = (*self.warnings, *([warning] if warning else []))
        return engine

    def _keep(self, memory: Memory) -> Memory:
        self._memories.append(memory)
        return memory

    def _let_go(self) -> None:
        """Streams, events and modules are destroyed with the last reference to them: no other is kept anywhere."""
        for slot in self._slots:
            slot.let_go()
        for kept in (self._functions, self._modules, self._marks):
            kept.clear()
        for held in (self._memories, self._slots, self._engines, self._recordings):
            held.clear()
        self._stream = self._idle = self._sources = None

    def _launch(self, what: launch.Launch) -> None:
        with self._active():
            self._used = True
            self._functions[what.kernel](what.args[()], grid=what.grid, block=what.block, stream=self._stream)

    def _check_size(self, source: Source) -> None:
        rows, columns = source.pixels.shape
        if source.pixels.size > self._largest_px:
            raise DeviceError(
                f"{self._where} was opened for images of up to {self._largest_px} pixels, this one has {rows} x "
                f"{columns} = {rows * columns}; open it again with largest_image_px={rows * columns} or more."
            )
        entries = max(len(table) for table in source.tables)
        if entries > MOST_TABLE_ENTRIES or len(source.tables) > launch.TABLES:
            raise DeviceError(
                f"{self._where} takes {launch.TABLES} tables of up to {MOST_TABLE_ENTRIES} entries with an image, got "
                f"{len(source.tables)} of up to {entries}; shorten the radiograph's table to its stored bits."
            )

    @contextmanager
    def _active(self, outside_capture: str = "") -> Iterator[None]:
        """Every verb runs in this. `outside_capture` names what a capture cannot hold, and is refused in one."""
        with self._context.active():
            if outside_capture and self._recording is not None:
                raise DeviceError(f"{self._where}: {outside_capture} while steps are captured; do it before or after.")
            yield


def _fatbin(source: str, compute_capability: tuple[int, int]) -> bytes:
    try:
        return fatbin(source, compute_capability)
    except KernelBuildError as error:
        raise DeviceError(str(error)) from error
