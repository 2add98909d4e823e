"""One table from stored values to grey in [0, 1].

Each of DICOM's display steps (`display`) maps a value to a value. So one float32 table with an entry for every stored
value replaces them all: `grey = table[stored - stored_min]`, 1 is brightest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.notices import notice
from spinescore.runtime.reading.display import Display, Window, display_of
from spinescore.runtime.reading.lookup import Values
from spinescore.runtime.reading.percentiles import (
    GLANCE_PER_SIDE,
    displayed_percentiles,
    exposed,
    picture_percentiles,
)
from spinescore.runtime.reading.pixelformat import PixelFormat
from spinescore.runtime.study import Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["ONE_GREY", "contrast_table", "displayed_table", "header_table", "plain_table", "stored_values", "table"]

DEFAULT_PERCENTILES = (1.0, 99.0)
ONE_GREY = "shows nearly all of the image in one grey; contrast was taken from the pixels"

Range = tuple[int, int]  # inclusive, of stored values
Occluded = tuple[int, float | None]  # stored value and grey of hidden pixels; no grey if visible ones share the value


def stored_values(bits_stored: int, stored_min: int) -> Values:
    """Return all values that can be stored, in the order of the table's entries."""
    return stored_min + np.arange(1 << bits_stored, dtype=np.float64)


def table(
    ds: Dataset,
    pixels: NDArray[np.integer],
    bits_stored: int,
    stored_min: int,
    padding: Range | None = None,
    window: str | None = None,
    occluded: Occluded | None = None,
) -> tuple[NDArray[np.float32], bool, list[str]]:
    """Return the table of one image, whether the header's window shaped it, and warnings.

    `padding` is the inclusive range of stored values that are no exposure (C.7.5.1.1.2); their grey is 0. `occluded` is
    the stored value of pixels outside a shutter, and its grey. Of several VOI transformations the first is used, or the
    one whose explanation is `window`. Without one, or if it shows the whole image in one grey, the contrast runs from
    the 1st to the 99th percentile of the exposed field.
    """
    notes: list[str] = []
    display = display_of(ds, stored_values(bits_stored, stored_min), notes, window)
    grey, has_window = displayed_table(display, pixels, bits_stored, stored_min, padding, occluded)
    if display.voi is not None and not has_window:
        notes.append(notice("window-replaced", f"the header's window {ONE_GREY}"))
    return grey, has_window, notes


def displayed_table(
    display: Display,
    pixels: NDArray[np.integer],
    bits_stored: int,
    stored_min: int,
    padding: Range | None = None,
    occluded: Occluded | None = None,
) -> tuple[NDArray[np.float32], bool]:
    """Return the table of given display steps, and whether their VOI step shaped it; arguments as in `table`."""
    values = display.values(stored_values(bits_stored, stored_min))
    grey = None if display.voi is None else display.voi.greys(values)
    hidden = _hidden(padding, occluded)
    if grey is None or not _shows_dark_and_bright(grey, exposed(pixels, hidden, GLANCE_PER_SIDE), stored_min):
        span = displayed_percentiles(pixels, *DEFAULT_PERCENTILES, hidden)
        low, high = (int(np.clip(round(edge) - stored_min, 0, values.size - 1)) for edge in span)
        if grey is not None and low != high and grey[low] == grey[high]:
            grey = None
    has_window = grey is not None
    if grey is None:
        grey = _ramp(values, values[low], values[high])
    return _finished(display.shown(grey), stored_min, padding, occluded), has_window


def plain_table(
    pixels: NDArray[np.integer],
    declared: PixelFormat,
    window: tuple[float, float] | None = None,
    occluded: Occluded | None = None,
) -> tuple[NDArray[np.float32], bool]:
    """Return the table of pixels without a header, and whether the window (centre, width) shaped it.

    8-bit pixels without a window are shown unchanged; all others like those of a file.
    """
    bits_stored, stored_min = declared.bits_stored, declared.stored_min
    inverted = declared.photometric == "MONOCHROME1"
    if window is not None or pixels.dtype.itemsize > 1:
        display = Display(None, None if window is None else Window(*window, "LINEAR"), None, inverted)
        return displayed_table(display, pixels, bits_stored, stored_min, None, occluded)
    stored = stored_values(bits_stored, stored_min)
    ramp = _ramp(stored, float(stored[0]), float(stored[-1]))
    return _finished(1.0 - ramp if inverted else ramp, stored_min, None, occluded), False


def header_table(
    ds: Dataset, bits_stored: int, stored_min: int, padding: Range | None = None, occluded: Occluded | None = None
) -> tuple[Display, NDArray[np.float32] | None]:
    """Return the header's display with its first VOI transformation, and the table of that, or None without one."""
    stored = stored_values(bits_stored, stored_min)
    display = display_of(ds, stored, [])
    if display.voi is None:
        return display, None
    grey = display.shown(display.voi.greys(display.values(stored)))
    return display, _finished(grey, stored_min, padding, occluded)


def contrast_table(
    radiograph: Radiograph,
    mode: Literal["dicom", "percentile"] = "dicom",
    low: float = DEFAULT_PERCENTILES[0],
    high: float = DEFAULT_PERCENTILES[1],
    levels: int | None = None,
    over: Literal["exposed", "picture"] = "exposed",
) -> NDArray[np.float32]:
    """Return the table through which a network sees `radiograph`.

    Mode `dicom` is the radiograph's own table. Mode `percentile` is linear in the stored value between the percentiles
    `low` and `high`, and keeps the polarity, so that bone stays bright. The percentiles are those of samples of the
    exposed field; with `over="picture"` they are those of all pixels (with padding, but without pixels that a shutter
    hides), exactly as `numpy.percentile` computes them. `levels` rounds the greys to that many steps (256 for a network
    that was trained on 8-bit pictures). Raises ValueError for an unknown mode or fewer than 2 levels.
    """
    if mode == "dicom":
        grey = radiograph.table
    elif mode == "percentile":
        grey = _percentile_table(radiograph, low, high, over)
    else:
        raise ValueError(f"unknown contrast mode {mode!r}; use 'dicom' or 'percentile'")
    if levels is None:
        return grey
    if levels < 2:
        raise ValueError(f"levels is {levels}; a picture needs at least 2")
    return (np.round(grey * np.float32(levels - 1)) / np.float32(levels - 1)).astype(np.float32)


def _percentile_table(
    radiograph: Radiograph, low: float, high: float, over: Literal["exposed", "picture"]
) -> NDArray[np.float32]:
    stored = radiograph.stored_min + np.arange(radiograph.table.size, dtype=np.float64)
    rising, padding, occluded = _is_rising(radiograph), radiograph.padding, radiograph.occluded
    ends = (low, high) if rising else (100.0 - high, 100.0 - low)  # these two count from dark to bright
    if over == "picture":
        hidden = _hidden(None, occluded)
        span = picture_percentiles(radiograph.pixels, *ends, radiograph.stored_min, radiograph.table.size, hidden)
    else:
        span = displayed_percentiles(radiograph.pixels, *ends, _hidden(padding, occluded))
    ramp = _ramp(stored, *span)
    return _finished(ramp if rising else 1.0 - ramp, radiograph.stored_min, padding, occluded)


def _hidden(padding: Range | None, occluded: Occluded | None) -> list[Range]:
    """Return the ranges of stored values that show no exposure."""
    ranges = [] if padding is None else [padding]
    return ranges if occluded is None else [*ranges, (occluded[0], occluded[0])]


def _shows_dark_and_bright(grey: Values, exposed: NDArray[np.integer], stored_min: int) -> bool:
    """Return whether the greys at the percentiles 1 and 99 surely differ, without computing these percentiles.

    They differ if the table crosses the middle grey once, with more than 5 % of the values on each side.
    """
    turns = np.flatnonzero(np.diff(grey < 0.5))
    if turns.size != 1:
        return False
    below, least = int(np.count_nonzero(exposed <= stored_min + int(turns[0]))), exposed.size // 20 + 1
    return least < below < exposed.size - least


def _is_rising(radiograph: Radiograph) -> bool:
    """Return whether larger stored values are brighter. Halves are compared: a window may be flat at either end."""
    half = radiograph.table.size // 2
    return bool(radiograph.table[half:].mean() >= radiograph.table[:half].mean())


def _finished(
    grey: Values, stored_min: int, padding: Range | None, occluded: Occluded | None = None
) -> NDArray[np.float32]:
    """Return the greys in [0, 1] as float32, read-only, with 0 for padding and the shutter's own grey."""
    finished = np.clip(grey, 0.0, 1.0).astype(np.float32)
    if padding is not None:
        finished[max(padding[0] - stored_min, 0) : max(padding[1] - stored_min + 1, 0)] = 0.0
    if occluded is not None and occluded[1] is not None:
        finished[occluded[0] - stored_min] = occluded[1]
    finished.flags.writeable = False
    return finished


def _ramp(values: Values, low: float, high: float) -> Values:
    """Return a ramp from 0 at the smaller end to 1 at the larger; a step if the two are equal."""
    low, high = min(low, high), max(low, high)
    if low == high:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0.0, 1.0)
