"""Memory for pixels, used again from study to study.

Fresh memory comes from the system page by page as it is first written. Where the process, or the host of a virtual
machine, was busy meanwhile, that takes several times as long as to read the pixels themselves.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["pixel_array"]

_KEPT_BLOCKS = 4  # two studies
_LEAST_BYTES, _MOST_BYTES = 1 << 20, 32 << 20  # of a block that is kept
_LARGER = 1.25  # a block serves arrays down to this part of it


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
