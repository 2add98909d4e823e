"""A shutter whose pixels are marked by an overlay in the header (PS3.3 C.7.6.15; overlays: C.9.2, PS3.5 8.1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.tags import number

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["BITMAP", "bitmap_elements", "hidden_by_bitmap"]

BITMAP = "BITMAP"  # the shape's name in the header

_GROUPS = range(0x6000, 0x6020, 2)
_ROWS, _COLUMNS, _TYPE, _ORIGIN, _BITS, _POSITION, _DATA = 0x10, 0x11, 0x40, 0x50, 0x100, 0x102, 0x3000
_MOST_SIDE = 1 << 16


def hidden_by_bitmap(ds: Dataset, rows: int, columns: int) -> NDArray[np.bool_] | None:
    """Return the pixels that a bitmap shutter's overlay hides (rows x columns); None if it cannot be understood.

    A 1 in the overlay hides a pixel. Pixels outside a smaller overlay are visible.
    """
    group = int(number(ds, "ShutterOverlayGroup") or 0)
    if group not in _GROUPS:
        return None
    try:
        height, width = (int(_value(ds, group, element)) for element in (_ROWS, _COLUMNS))
        top, left = (int(part) - 1 for part in _value(ds, group, _ORIGIN))
        bits = _bits(ds, group, height * width)
    except Exception:  # pydicom and NumPy can raise anything for a hostile header
        return None
    if not (0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE) or bits is None:
        return None
    hidden = np.zeros((rows, columns), bool)
    bottom, right = min(top + height, rows), min(left + width, columns)
    if bottom > max(top, 0) and right > max(left, 0):
        part = bits.reshape(height, width)[max(-top, 0) : bottom - top, max(-left, 0) : right - left]
        hidden[max(top, 0) : bottom, max(left, 0) : right] = part
    return hidden


def bitmap_elements(hidden: NDArray[np.bool_]) -> list[tuple[int, str, Any]]:
    """Return the elements (tag, VR, value) of an overlay in the first group that hides these pixels."""
    rows, columns = hidden.shape
    packed = np.packbits(hidden, bitorder="little").tobytes()
    first = _GROUPS[0]
    return [
        (first << 16 | _ROWS, "US", rows),
        (first << 16 | _COLUMNS, "US", columns),
        (first << 16 | _TYPE, "CS", "G"),
        (first << 16 | _ORIGIN, "SS", [1, 1]),
        (first << 16 | _BITS, "US", 1),
        (first << 16 | _POSITION, "US", 0),
        (first << 16 | _DATA, "OW", packed + b"\0" * (len(packed) % 2)),
        (0x00181623, "US", first),
    ]


def _value(ds: Dataset, group: int, element: int) -> Any:
    from pydicom.tag import Tag

    return ds[Tag(group, element)].value


def _bits(ds: Dataset, group: int, count: int) -> NDArray[np.bool_] | None:
    """Return the overlay's bits, row by row. Overlays in unused bits of the pixels are retired and not read."""
    from pydicom.tag import Tag

    data = _value(ds, group, _DATA)
    if not isinstance(data, bytes) or count > len(data) * 8 or count < 1:
        return None
    words = np.frombuffer(data, np.uint8)
    if getattr(ds, "original_encoding", (None, True))[1] is False and ds[Tag(group, _DATA)].VR == "OW":
        words = words[: words.size // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    bits = np.unpackbits(words, count=count, bitorder="little")
    return bits.view(bool) if bits.size == count else None
