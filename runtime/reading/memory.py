"""Memory for pixels: how much of it one call may take, and blocks that are used again from study to study.

Fresh memory comes from the system page by page as it is first written. Where the process, or the host of a virtual
machine, was busy meanwhile, that takes several times as long as to read the pixels themselves.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.runtime.errors import InputRejected

__all__ = ["LIMIT_VARIABLE", "MAX_PIXELS", "PixelBudget", "memory_bytes", "pixel_array", "pixel_limit"]

MAX_PIXELS = 100_000_000  # of one radiograph
LIMIT_VARIABLE = "SPINESCORE_MAX_PIXEL_BYTES"
_MOST_LIMIT = 4 << 30
_UNKNOWN_MEMORY = 4 << 30  # of a machine that does not say how much it has
_CGROUP = Path("/sys/fs/cgroup/memory.max")

_KEPT_BLOCKS = 4  # two studies
_LEAST_BYTES, _MOST_BYTES = 1 << 20, 32 << 20  # of a block that is kept
_LARGER = 1.25  # a block serves arrays down to this part of it


def pixel_limit() -> int:
    """The bytes of pixels that one call may hold: half of the memory that this process may have, at most 4 GiB.

    The environment variable SPINESCORE_MAX_PIXEL_BYTES states another number.
    """
    stated = os.environ.get(LIMIT_VARIABLE, "").strip()
    if stated.isascii() and stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return min(memory_bytes() // 2, _MOST_LIMIT)


def memory_bytes() -> int:
    """Return the memory of the machine, or less if a container or `ulimit -v` allows less."""
    found = [_UNKNOWN_MEMORY]
    if sys.platform != "win32":
        import resource

        found.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        with suppress(OSError, ValueError):
            found[0] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(OSError, ValueError):
            found.append(int(_CGROUP.read_text(encoding="ascii")))
    return min(count for count in found if count > 0)  # no limit is -1


class PixelBudget:
    """The bytes of pixels that are left to one call; they are given out in the order of asking."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = self._left = pixel_limit() if limit is None else limit

    def take(self, byte_count: int, source: str) -> None:
        """Take some of it for a file. Raises InputRejected (too-large) if it does not suffice."""
        if byte_count > self._left:
            raise InputRejected(
                "too-large",
                f"{source} needs {byte_count >> 20} MiB for its pixels, {self._left >> 20} of the {self.limit >> 20} "
                f"MiB that one call may take are left; give fewer or smaller images at a time, or state a larger limit "
                f"in bytes with {LIMIT_VARIABLE}",
            )
        self._left -= byte_count


class _Lent:
    """A block in use: numpy's views of it keep this object alive, and its end says that the last of them is gone."""

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self._block, self.__array_interface__ = block, block.__array_interface__


_kept: deque[NDArray[np.uint8]] = deque(maxlen=_KEPT_BLOCKS)
_lock = threading.Lock()


def pixel_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array in C order for the caller to fill: it holds what was there before, as `numpy.empty`.

    Its memory is used again once no array refers to it. What is kept unused is let go as soon as another size is asked
    for, so that it never adds to the memory that is needed at most.
    """
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if not _LEAST_BYTES <= wanted <= _MOST_BYTES:
        return np.empty(shape, dtype)
    block = _taken(wanted)
    if block is None:
        block = np.empty(wanted, np.uint8)
    lent = _Lent(block)
    weakref.finalize(lent, _kept.append, block).atexit = False  # takes no lock: garbage is collected at any time
    return np.asarray(lent)[:wanted].view(dtype).reshape(shape)


def _taken(wanted: int) -> NDArray[np.uint8] | None:
    """A kept block that fits; None, and nothing is kept any more, where there is none."""
    with _lock:
        for _ in range(len(_kept)):
            block = _kept.popleft()
            if wanted <= block.nbytes <= wanted * _LARGER:
                return block
            _kept.append(block)
        _kept.clear()
    return None
