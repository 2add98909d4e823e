"""The slots for radiographs on a GPU, and their uploads.

A radiograph is copied into pinned memory in pieces, by several threads, and each piece is sent as soon as it is there.
A table is sent only if it differs from the table that the slot holds. The address and the size of an image are read
from device memory, so that a slot may grow while captured graphs stay valid.

`drv` is pycuda's driver module, passed in by the device that imports it. The CUDA context must be current.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.layouts import SOURCE, TABLES, line_of, source_record
from spinescore.kernels.warp import Source
from spinescore.runtime.devices.cudamemory import NON_BLOCKING, Memory
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.machine.processor import core_count

__all__ = ["SLOTS", "Radiographs"]

SLOTS = 2
_MOST_TABLE_ENTRIES = 2**16
_MOST_PIXEL_BYTES = 2
# Copied by one thread: long against the 20 us that a thread needs to start, short against a whole radiograph.
_PIECE_BYTES = 2**20
_MOST_THREADS = 4  # a few cores together read memory as fast as all of them


class Radiographs:
    """Two slots for radiographs with their tables, and the records that tell the kernels about them.

    The memory belongs to the device's list `memories`, and is freed with it. `stream` is the one that runs the kernels.
    """

    def __init__(self, drv: Any, mapped: bool, memories: list[Memory]) -> None:
        self._drv, self._mapped, self._memories = drv, mapped, memories
        self.used = False  # the kernels' stream has read the slots since the latest upload
        self._idle: Any = None
        self._records: Any = None
        self._slots: list[_Slot] = []
        threads = min(_MOST_THREADS, core_count())
        self._pool = ThreadPoolExecutor(threads, "spinescore-upload") if threads > 1 else None

    def open(self, first_size_px: int, stream: Any) -> None:
        self._idle = self._drv.Event(self._drv.event_flags.DISABLE_TIMING)
        self._records = self._allocate(SLOTS * SOURCE.itemsize)
        self._records.clear(stream)
        for _ in range(SLOTS):
            pixels = self._allocate(first_size_px * _MOST_PIXEL_BYTES)
            tables = self._allocate(TABLES * _MOST_TABLE_ENTRIES * 4)
            self._slots.append(_Slot(self._drv, pixels, tables))

    @property
    def address(self) -> int:
        return int(self._records.address)

    def upload(self, number: int, source: Source, stream: Any, where: str) -> None:
        """Copy a radiograph, and return while it is on its way. Raises `DeviceError` if its tables do not fit."""
        _check_tables(source, where)
        slot, size = self._slots[number], SOURCE.itemsize
        slot.arrived.synchronize()
        nbytes = source.pixels.size * source.pixels.dtype.itemsize
        if nbytes > slot.pixels.nbytes:
            larger, smaller = self._allocate(nbytes), slot.pixels  # if memory is short, the slot stays as it was
            stream.synchronize()
            slot.pixels = larger
            self._memories.remove(smaller)
            smaller.free()
        if self.used:
            self._idle.record(stream)
            self.used = False
            if self._mapped:  # the GPU reads the host memory itself
                self._idle.synchronize()
        slot.stream.wait_for_event(self._idle)
        record = slot.send(source, self._pool)
        self._records.host[number * size : (number + 1) * size] = np.frombuffer(record.tobytes(), np.uint8)
        self._records.send(number * size, (number + 1) * size, slot.stream)
        slot.arrived.record(slot.stream)
        stream.wait_for_event(slot.arrived)

    def stop(self) -> None:
        """End the threads that copy, before the memory is freed."""
        if self._pool is not None:
            self._pool.shutdown()

    def let_go(self) -> None:
        self._slots.clear()
        self._idle = self._records = None

    def _allocate(self, nbytes: int) -> Memory:
        memory = Memory(self._drv, nbytes, mapped=self._mapped, pinned=True)
        self._memories.append(memory)
        return memory


class _Slot:
    """Memory for one radiograph and its tables, the stream that uploads it, and the event of its arrival."""

    def __init__(self, drv: Any, pixels: Memory, tables: Memory) -> None:
        self.pixels, self._tables = pixels, tables
        self._sent: list[tuple[int, int, np.dtype[Any]]] = []  # of each table: its length, first value, pixels' type
        self._lines: list[NDArray[np.void] | None] = []
        self.stream = drv.Stream(NON_BLOCKING)
        self.arrived = drv.Event(drv.event_flags.DISABLE_TIMING)

    def send(self, source: Source, pool: ThreadPoolExecutor | None) -> NDArray[np.void]:
        """Copy and send pixels and tables; returns the kernels' record of them."""
        tables, lines = self._send_tables(source)
        dtype, shape = source.pixels.dtype.newbyteorder("="), source.pixels.shape
        pitch = shape[1] * dtype.itemsize
        place = self.pixels.host[: shape[0] * pitch].view(dtype).reshape(shape)
        height = max(1, _PIECE_BYTES // max(pitch, 1))
        pieces = [slice(top, min(top + height, shape[0])) for top in range(0, shape[0], height)]

        def copy(piece: slice) -> None:
            place[piece] = source.pixels[piece]

        copies = [pool.submit(copy, piece) for piece in pieces] if pool is not None else []
        try:
            for number, piece in enumerate(pieces):
                if copies:
                    copies[number].result()
                else:
                    copy(piece)
                self.pixels.send(piece.start * pitch, piece.stop * pitch, self.stream)
        finally:
            wait(copies)  # if sending failed, the memory may be freed next
        return source_record(self.pixels.address, pitch, (shape[0], shape[1]), dtype, source.stored_min, tables, lines)

    def _send_tables(self, source: Source) -> tuple[list[tuple[int, int]], list[NDArray[np.void] | None]]:
        """Return address and length, and the line, of each table. What the slot holds already is not sent again."""
        different = list({id(table): table for table in source.tables}.values())
        dtype = source.pixels.dtype.newbyteorder("=")
        sent = [(len(table), source.stored_min, dtype) for table in different]
        starts = [0, *accumulate(map(len, different))]
        greys = self._tables.host.view(np.float32)
        places = [greys[start:end] for start, end in pairwise(starts)]
        if sent != self._sent or not all(map(np.array_equal, places, different)):
            self._sent = []  # until they are sent
            for place, table in zip(places, different, strict=True):
                place[...] = table
            self._tables.send(0, 4 * starts[-1], self.stream)
            self._lines = [line_of(table, source.stored_min, dtype) for table in different]
            self._sent = sent
        numbers = {id(table): number for number, table in enumerate(different)}
        each = [numbers[id(table)] for table in source.tables]
        tables = [(self._tables.address + 4 * starts[number], len(different[number])) for number in each]
        return tables, [self._lines[number] for number in each]


def _check_tables(source: Source, where: str) -> None:
    entries = max(len(table) for table in source.tables)
    if entries > _MOST_TABLE_ENTRIES or len(source.tables) > TABLES:
        raise DeviceError(
            f"{where} takes {TABLES} tables of up to {_MOST_TABLE_ENTRIES} entries with an image, got "
            f"{len(source.tables)} of up to {entries}; shorten the radiograph's table to its stored bits."
        )
