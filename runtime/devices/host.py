"""The CPU as a device: NumPy buffers, OpenCV for the warp, the float64 reference for decoding, a CPU's engine.

The warp stays within 0.1 grey level (of 255) of its reference on white noise and 0.02 on band-limited pictures, for
images up to 4096 x 4096: OpenCV 5 interpolates with float32 coordinates (4.x rounds them to 1/32 pixel).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.average import AverageSpec, average, mirror
from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec, boxes, crops, decode
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.devices.device import Replay, loading
from spinescore.runtime.engines import Engine
from spinescore.runtime.engines.choice import EngineChoice, open_on_cpu
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.processor import core_count, processor_name

__all__ = ["HostDevice"]

Array = NDArray[Any]
_Row = tuple[float, float, float]  # of a matrix: a, b and c of a x + b y + c

_TILE_PX = 900  # side of the source rectangle that a tile reads: as float32 it has 3 MB, and stays in a cache
_LEAST_TILE = 16
_FAR_PX = 2.0**20  # beyond any image; coordinates there are not exact in float32, and need not be


class HostDevice:
    """Every verb runs when it is called; a replay runs only the views that are asked for.

    With two threads or more the two views of a replay run side by side, each in a thread of its own: one view's warp
    uses the time that the other view's network leaves. Other batches are halved if their halves suit the engine.
    """

    kind = "cpu"
    precisions: tuple[str, ...] = ("fp32", "fp16")

    def __init__(
        self,
        threads: int | None = None,
        warnings: tuple[str, ...] = (),
        choice: EngineChoice | None = None,
    ) -> None:
        """`choice` says which engine runs networks; by default ONNX Runtime, in the bundle's highest precision."""
        if int(cv2.__version__.split(".")[0]) < 5:
            raise DeviceError(
                f"OpenCV {cv2.__version__} rounds coordinates; install 5.0 or later: pip install opencv-python-headless"
            )
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.name, self.warnings = processor_name(), warnings
        self._threads, self._choice = threads or core_count(), choice
        self._other = ThreadPoolExecutor(1, "spinescore-view") if self._threads > 1 else None
        self._apart = False  # while both views are under way
        if choice is not None:
            self.precisions = choice.files
        self._sources: list[tuple[Array, tuple[Array, ...]] | None] = [None, None]
        self._sizes: dict[int, set[tuple[int, int]]] = {}  # of the outputs, by table
        self._greys = [_Greys(), _Greys()]
        self._marks: dict[str, list[int]] = {}
        self._engines: list[Engine[Array]] = []

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def write(self, buffer: Array, values: Array) -> None:
        buffer[...] = values

    def read(self, buffer: Array) -> Array:
        return buffer.copy()

    def fetch(self, buffer: Array) -> None:
        """Do nothing: the buffer is on the host."""

    def upload(self, slot: int, source: Source) -> None:
        """Keep a reference to the pixels, and spread the tables over all values that the pixels' type can take."""
        self._greys[slot].table = None
        different = {id(table): table for table in source.tables}
        spread = {key: _spread(table, source) for key, table in different.items()}
        pixels = np.ascontiguousarray(source.pixels).view(f"u{source.pixels.dtype.itemsize}")
        self._sources[slot] = (pixels, tuple(spread[id(table)] for table in source.tables))

    def forget(self) -> None:
        self._sources = [None, None]

    def engines(
        self,
        networks: Sequence[tuple[Path, str]],
        before: Callable[[str], None] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Engine[Array]]:
        """Load two networks at a time if there are threads; loading one keeps at most one core busy."""
        callers = 1 if self._other is None else 2

        def load(path: Path, precision: str, rows: int | None) -> Engine[Array]:
            if before is not None:
                before(loading(path, precision))
            engine = open_on_cpu(self._choice, path, precision, self._threads, callers, rows)
            self._engines.append(engine)
            return engine

        with ThreadPoolExecutor(callers, "spinescore-load") as pool:
            each: Sequence[int | None] = rows or [None] * len(networks)
            running = [pool.submit(load, *network, count) for network, count in zip(networks, each, strict=True)]
        return [opened.result() for opened in running]

    def warp(self, rois: Array, spec: WarpSpec, out: Array) -> None:
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
        self._sizes.setdefault(spec.table, set()).add((spec.height, spec.width))
        for roi, image in zip(rois.reshape(-1), out, strict=True):
            grey = np.zeros((spec.height, spec.width), np.float32)
            source = self._source(int(roi["source"]), spec.table)
            if source is not None and np.isfinite(roi["matrix"]).all():
                _cut(*source, roi, spec.antialias, grey)
            normal = image if image.dtype == np.float32 else np.empty(image.shape, np.float32)
            np.subtract(grey, mean, out=normal)  # in place: fresh memory costs more than the arithmetic
            np.divide(normal, std, out=normal)
            if normal is not image:
                image[...] = normal

    def _source(self, number: int, table: int) -> tuple[Array, Array | None] | None:
        """Return the pixels of a source and its table, or its greys and None; None if there is no such source.

        If one table serves outputs of several sizes (test-time averaging), it is applied once to the whole image.
        """
        source = self._sources[number] if 0 <= number < len(self._sources) else None
        if source is None:
            return None
        pixels, tables = source
        if len(self._sizes[table]) == 1:
            return pixels, tables[table]
        return self._greys[number].of(pixels, tables, table), None

    def decode(self, heatmaps: Array, rois: Array, views: Array, spec: DecodeSpec, points: Array) -> None:
        points[...] = decode(heatmaps, rois, views, spec)

    def boxes(self, points: Array, views: Array, spec: BoxSpec, rois: Array) -> None:
        rois[...] = boxes(points, views, spec)

    def crops(self, points: Array, views: Array, spec: CropSpec, rois: Array) -> None:
        rois[...] = crops(points, views, spec)

    def mirror(self, images: Array, out: Array) -> None:
        out[...] = mirror(images)

    def average(self, heatmaps: Sequence[Array], spec: AverageSpec, out: Array) -> None:
        """Average in float32, the precision of the heatmaps."""
        out[...] = average(heatmaps, spec, out.shape[2:], np.float32)

    def run(self, engine: Engine[Array], inputs: Array, outputs: Array) -> None:
        half = len(inputs) // (2 * engine.rows) * engine.rows
        if self._other is None or self._apart or not half:
            engine.run(inputs, outputs)
        else:
            _both(
                self._other,
                lambda: engine.run(inputs[:half], outputs[:half]),
                lambda: engine.run(inputs[half:], outputs[half:]),
            )

    def mark(self, stage: str) -> None:
        self._marks.setdefault(stage, []).append(time.perf_counter_ns())

    def marks_ms(self) -> dict[str, float]:
        """A stage begins with the first view and ends with the last one."""
        began = min((min(times) for times in self._marks.values()), default=0)
        later = {stage: (max(times) - began) / 1e6 for stage, times in self._marks.items()}
        return {stage: 0.0 if number == 0 else ms for number, (stage, ms) in enumerate(later.items())}

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        """Return the steps as a replay. Nothing runs now, so that the first replay is slower than the others."""

        def replay(views: slice) -> None:
            self._marks = {}
            if self._other is None or views != slice(0, 2):
                steps(views)
                return
            self._apart = True
            try:
                _both(self._other, lambda: steps(slice(0, 1)), lambda: steps(slice(1, 2)))
            finally:
                self._apart = False

        return replay

    def synchronise(self) -> None:
        """Do nothing: every verb waits for its own end."""

    def close(self) -> None:
        self.forget()
        if self._other is not None:
            self._other.shutdown()
        while self._engines:
            self._engines.pop().close()


class _Greys:
    """A whole image after one of its tables, in memory that is used again for the next image."""

    def __init__(self) -> None:
        self.table: int | None = None
        self._memory = np.empty(0, np.float32)

    def of(self, pixels: Array, tables: tuple[Array, ...], table: int) -> Array:
        if self._memory.size < pixels.size:
            self._memory = np.empty(pixels.size, np.float32)
        greys = self._memory[: pixels.size].reshape(pixels.shape)
        if self.table != table:
            cv2.LUT(pixels, tables[table], greys)
            self.table = table
        return greys


def _both(other: ThreadPoolExecutor, here: Callable[[], None], there: Callable[[], None]) -> None:
    """Run both at the same time, `there` on the other thread. An error is raised when both have ended."""
    running = other.submit(there)
    try:
        here()
    finally:
        wait([running])
    running.result()


def _spread(table: Array, source: Source) -> Array:
    """Return the table (float32) for all values of the pixels' type, in the order of their bit patterns."""
    least, count = int(np.iinfo(source.pixels.dtype).min), 256**source.pixels.dtype.itemsize
    offset = source.stored_min - least
    first, end = (min(max(place, 0), count) for place in (offset, offset + len(table)))
    spread = np.empty(count, np.float32)
    spread[:first] = table[0]
    spread[first:end] = table[first - offset : end - offset]
    spread[end:] = table[-1]
    return np.roll(spread, least) if least else spread  # the bit patterns of negative values come last


def _cut(pixels: Array, table: Array | None, roi: np.void, antialias: int, grey: Array) -> None:
    """Fill `grey` (H x W) tile by tile, so that coordinates stay small. Without a table the pixels are greys."""
    (ax, bx, cx), (ay, by, cy) = roi["matrix"].tolist()
    cx, cy = cx + int(roi["origin"][0]), cy + int(roi["origin"][1])
    scale = max(abs(ax) + abs(bx), abs(ay) + abs(by))
    side = max(_LEAST_TILE, int(min(max(grey.shape), _TILE_PX / max(scale, 1e-9))))
    for top in range(0, grey.shape[0], side):
        for left in range(0, grey.shape[1], side):
            tile = grey[top : top + side, left : left + side]
            x, y = cx + ax * left + bx * top, cy + ay * left + by * top  # where the tile's first pixel lies
            _cut_tile(pixels, table, (ax, bx, x), (ay, by, y), antialias, tile)


def _cut_tile(pixels: Array, table: Array | None, x_row: _Row, y_row: _Row, n: int, tile: Array) -> None:
    """Fill one tile from the source rectangle that its samples touch. Outside of the source it stays 0.

    The rows of the matrix are numbers; arrays would take 0.1 ms of a tile's half millisecond.
    """
    height, width = tile.shape
    rows, columns = pixels.shape
    (low_x, high_x), (low_y, high_y) = _reach(x_row, width, height), _reach(y_row, width, height)
    farthest = max(abs(low_x), abs(high_x), abs(low_y), abs(high_y))
    if not (high_x > -1 and high_y > -1 and low_x < columns and low_y < rows and farthest < _FAR_PX):
        return
    x0, y0 = max(0, math.floor(low_x) - 1), max(0, math.floor(low_y) - 1)
    x1, y1 = min(columns, math.ceil(high_x) + 2), min(rows, math.ceil(high_y) + 2)
    rectangle = pixels[y0:y1, x0:x1]
    # The copy costs less than it saves: `LUT` reads narrow rows slowly, because the processor fetches nothing ahead.
    greys = rectangle if table is None else cv2.LUT(rectangle.copy(), table)
    # From the pixel of the n times finer grid to the rectangle's pixel.
    fine = np.array([_finer(x_row, x0, n), _finer(y_row, y0, n)])
    samples = cv2.warpAffine(
        greys,
        fine,
        (width * n, height * n),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    tile[...] = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA) if n > 1 else samples


def _reach(row: _Row, width: int, height: int) -> tuple[float, float]:
    """Return the least and the greatest coordinate of a tile's pixels, their edges included."""
    a, b, c = row
    across, down = (-0.5 * a, (width - 0.5) * a), (-0.5 * b, (height - 0.5) * b)
    return c + min(across) + min(down), c + max(across) + max(down)


def _finer(row: _Row, start: int, n: int) -> _Row:
    a, b, c = row
    return a / n, b / n, c - start + (a + b) * (0.5 / n - 0.5)
