"""Memory for pixels: the limit for one call, and blocks that are reused from study to study.

The system provides fresh memory page by page, when it is first written. On a busy machine, or on the busy host of a
virtual machine, this takes several times as long as reading the pixels.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.machine.memory import memory_bytes

__all__ = ["LIMIT_VARIABLE", "MAX_PIXELS", "PixelBudget", "pixel_array", "pixel_limit"]

MAX_PIXELS = 100_000_000  # default limit of one radiograph
LIMIT_VARIABLE = "SPINESCORE_MAX_PIXEL_BYTES"
_MOST_LIMIT = 4 << 30

_KEPT_BLOCKS = 4  # enough for two studies
_LEAST_BYTES, _MOST_BYTES = 1 << 20, 32 << 20  # of a block that is kept
_LARGER = 1.25  # a block may be larger than its array by this factor


def pixel_limit() -> int:
    """Return the bytes of pixels that one call may hold: half of the process' memory limit, at most 4 GiB.

    The environment variable SPINESCORE_MAX_PIXEL_BYTES overrides it.
    """
    stated = os.environ.get(LIMIT_VARIABLE, "").strip()
    if stated.isascii() and stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return min(memory_bytes() // 2, _MOST_LIMIT)


class PixelBudget:
    """The bytes of pixels that one call may still take."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = self._left = pixel_limit() if limit is None else limit

    def take(self, byte_count: int, source: str) -> None:
        """Take bytes for a file. Raises InputRejected (too-large) if not enough are left."""
        if byte_count > self._left:
            raise InputRejected(
                "too-large",
                f"{source} needs {byte_count >> 20} MiB for its pixels, {self._left >> 20} of the {self.limit >> 20} "
                f"MiB that one call may take are left; give fewer or smaller images at a time, or state a larger limit "
                f"in bytes with {LIMIT_VARIABLE}",
            )
        self._left -= byte_count


class _Lent:
    """A block in use. NumPy's views keep this object alive, so it is collected when the last view is gone."""

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self._block, self.__array_interface__ = block, block.__array_interface__


_kept: deque[NDArray[np.uint8]] = deque(maxlen=_KEPT_BLOCKS)
_lock = threading.Lock()


def pixel_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised array in C order for the caller to fill, like `numpy.empty`.

    Its memory is reused once no array refers to it. Unused blocks are released as soon as another size is requested, so
    that they never add to the peak of memory.
    """
    byte_count = math.prod(shape) * np.dtype(dtype).itemsize
    if not _LEAST_BYTES <= byte_count <= _MOST_BYTES:
        return np.empty(shape, dtype)
    block = _take_kept(byte_count)
    if block is None:
        block = np.empty(byte_count, np.uint8)
    lent = _Lent(block)
    weakref.finalize(lent, _kept.append, block).atexit = False  # needs no lock: garbage may be collected at any time
    return np.asarray(lent)[:byte_count].view(dtype).reshape(shape)


def _take_kept(byte_count: int) -> NDArray[np.uint8] | None:
    """Return a kept block that fits. If there is none, release all kept blocks and return None."""
    with _lock:
        for _ in range(len(_kept)):
            block = _kept.popleft()
            if byte_count <= block.nbytes <= byte_count * _LARGER:
                return block
            _kept.append(block)
        _kept.clear()
    return None
