"""Display Shutter: the visible part of a picture, and the grey of the rest (PS3.3 C.7.6.11).

Networks and results see a picture through one table from stored value to grey. So all pixels that a shutter hides get
one stored value, if possible one that no visible pixel has, and the table maps it to the shutter's grey.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.percentiles import PIXELS_AT_ONCE, counts
from spinescore.runtime.reading.tags import ignored, is_stated, number, text, value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = [
    "BITMAP",
    "Shutter",
    "bitmap_elements",
    "close_shutter",
    "hidden_by_bitmap",
    "hide",
    "read_shutter",
    "shutter_shapes",
]

BITMAP = "BITMAP"  # the name of a shape whose pixels are marked by an overlay (PS3.3 C.7.6.15, C.9.2, PS3.5 8.1.2)

_GROUPS = range(0x6000, 0x6020, 2)  # of overlays
_ROWS, _COLUMNS, _TYPE, _ORIGIN, _BITS, _POSITION, _DATA = 0x10, 0x11, 0x40, 0x50, 0x100, 0x102, 0x3000
_MOST_SIDE = 1 << 16
_MAX_SHAPES, _MAX_VERTICES = 8, 1024
_FARTHEST = 1 << 20  # no row or column is beyond it
_WHITE = 65535  # the shutter's grey is stated in P-Values
_KEYWORDS = {
    "RECTANGULAR": (
        "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge",
        "ShutterLeftVerticalEdge",
        "ShutterRightVerticalEdge",
    ),
    "CIRCULAR": ("CenterOfCircularShutter", "RadiusOfCircularShutter"),
    "POLYGONAL": ("VerticesOfThePolygonalShutter",),
}

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shutter:
    """A mask of the visible pixels (rows x columns), `seen`, and the grey of all others, in [0, 1]."""

    seen: Mask
    grey: float


def shutter_shapes(ds: Dataset, notes: list[str]) -> dict[str, dict[str, list[int]]]:
    """Return the shapes of a header's shutter: name of the shape -> keyword -> whole numbers.

    Rows and columns are counted from 1. A shape that cannot be understood adds a warning to `notes`. A bitmap has no
    numbers and is left out.
    """
    shapes: dict[str, dict[str, list[int]]] = {}
    if not is_stated(ds, "ShutterShape"):
        return shapes
    for name in (name for name in _names(ds) if name != BITMAP):
        numbers = {keyword: _whole_numbers(ds, keyword) for keyword in _KEYWORDS.get(name, ())}
        if numbers and _is_complete(name, [len(values) for values in numbers.values()]):
            shapes[name] = numbers
        else:
            ignored(notes, "ShutterShape", "a shape of the Display Shutter cannot be understood and was ignored")
    return shapes


def read_shutter(ds: Dataset, rows: int, columns: int, notes: list[str]) -> Shutter | None:
    """Return the shutter of a header; None without one, or, with a warning in `notes`, if it cannot be used.

    It may have rectangles, circles, polygons and the bitmap of an overlay; a pixel is visible if all of them show it. A
    shutter that hides the whole picture or nothing is ignored. The standard allows bitmaps only in presentation states;
    in an image they are read in the same way.
    """
    shapes = shutter_shapes(ds, notes)
    bitmap = hidden_by_bitmap(ds, rows, columns) if BITMAP in _names(ds) else None
    if bitmap is None and BITMAP in _names(ds):
        ignored(notes, "ShutterOverlayGroup", "the bitmap of the Display Shutter cannot be understood and was ignored")
    if not shapes and bitmap is None:
        return None
    seen = np.ones((rows, columns), bool) if bitmap is None else ~bitmap
    for name, numbers in shapes.items():
        seen &= _MASKS[name](rows, columns, [*chain(*numbers.values())])
    if not seen.any():
        ignored(notes, "ShutterShape", "the Display Shutter hides all of the picture and was ignored")
    if seen.all() or not seen.any():
        return None
    return Shutter(seen, min(max((number(ds, "ShutterPresentationValue") or 0.0) / _WHITE, 0.0), 1.0))


def close_shutter(
    pixels: NDArray[np.integer],
    ds: Dataset,
    declared: PixelFormat,
    padding: tuple[int, int] | None,
    notes: list[str],
    masked: Mask | None = None,
) -> tuple[int, float | None] | None:
    """Hide the pixels outside a header's shutter, in place; return their stored value and grey as `hide` does.

    Pixels that are `masked` are hidden as well; without a shutter they are black. Returns None if nothing is hidden.
    """
    shutter = read_shutter(ds, declared.rows, declared.columns, notes)
    if masked is not None and masked.any():
        seen, grey_outside = (True, 0.0) if shutter is None else (shutter.seen, shutter.grey)
        shutter = Shutter(seen & ~masked, grey_outside)
    return None if shutter is None else hide(pixels, shutter, declared, padding)


def hide(
    pixels: NDArray[np.integer], shutter: Shutter, declared: PixelFormat, padding: tuple[int, int] | None = None
) -> tuple[int, float | None]:
    """Give all pixels that a shutter hides one stored value, in place; return the value and its grey.

    The value is the padding value if that has the same grey, or else an unused value near the dark end. If all values
    are used, the value is the one nearest to the shutter's grey, and the returned grey is None.
    """
    stored_min, entries = declared.stored_min, 1 << declared.bits_stored
    dark_first = declared.photometric == "MONOCHROME2"
    grey: float | None = shutter.grey
    if padding is not None and grey == 0.0:
        place = padding[0] - stored_min
    else:
        visible = sum(counts(pixels[rows][shutter.seen[rows]], stored_min, entries) for rows in _blocks(pixels))
        unused = np.flatnonzero(visible == 0)
        if unused.size:
            place = int(unused[0 if dark_first else -1])
        else:
            place = round((shutter.grey if dark_first else 1.0 - shutter.grey) * (entries - 1))
            grey = None
    for rows in _blocks(pixels):
        pixels[rows][~shutter.seen[rows]] = stored_min + place
    return stored_min + place, grey


def hidden_by_bitmap(ds: Dataset, rows: int, columns: int) -> Mask | None:
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


def bitmap_elements(hidden: Mask) -> list[tuple[int, str, Any]]:
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


def _bits(ds: Dataset, group: int, count: int) -> Mask | None:
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


def _names(ds: Dataset) -> list[str]:
    """Return the names of the shutter's shapes, in capitals."""
    names = ((text(ds, "ShutterShape", index) or "").upper() for index in range(_MAX_SHAPES))
    return [name for name in names if name]


def _blocks(pixels: NDArray[np.integer]) -> Iterator[slice]:
    """Yield blocks of rows, so that computations on them take little memory."""
    height = max(1, PIXELS_AT_ONCE // pixels.shape[1])
    return (slice(top, top + height) for top in range(0, pixels.shape[0], height))


def _whole_numbers(ds: Dataset, keyword: str) -> list[int]:
    """Return all values of an element, if each of them can be a row or a column; else an empty list."""
    stated = value(ds, keyword)
    several = hasattr(stated, "__len__") and not isinstance(stated, (str, bytes))
    count = min(len(stated), 2 * _MAX_VERTICES + 1) if several else 1
    parts = [number(ds, keyword, index) for index in range(count)]
    return [round(part) for part in parts if part is not None and abs(part) < _FARTHEST] if None not in parts else []


def _is_complete(name: str, counts: list[int]) -> bool:
    if name == "POLYGONAL":
        return counts[0] % 2 == 0 and 6 <= counts[0] <= 2 * _MAX_VERTICES
    return counts == ([2, 1] if name == "CIRCULAR" else [1] * 4)


def _in_rectangle(rows: int, columns: int, edges: list[int]) -> Mask:
    """Return the pixels in a rectangle, including its edges."""
    upper, lower, left, right = edges
    seen = np.zeros((rows, columns), bool)
    seen[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return seen


def _in_circle(rows: int, columns: int, circle: list[int]) -> Mask:
    """Return the pixels in a circle, including its edge."""
    row, column, radius = circle
    reach = float(radius) ** 2 - (np.arange(1.0, rows + 1) - row) ** 2
    half = np.where(reach >= 0, np.sqrt(np.maximum(reach, 0.0)), -1.0)[:, None]
    across = np.abs(np.arange(1.0, columns + 1) - column)[None, :]
    seen: Mask = across <= half
    return seen


def _in_polygon(rows: int, columns: int, numbers: list[int]) -> Mask:
    """Return the pixels in a polygon, including its outline. If it crosses itself, the even-odd rule applies."""
    import cv2

    seen = np.zeros((rows, columns), np.uint8)
    vertices = np.array(numbers, np.int32).reshape(-1, 2)[:, ::-1] - 1  # columns first, from 0
    cv2.fillPoly(seen, [np.ascontiguousarray(vertices)], 1)
    return seen.view(bool)


_MASKS = {"RECTANGULAR": _in_rectangle, "CIRCULAR": _in_circle, "POLYGONAL": _in_polygon}
