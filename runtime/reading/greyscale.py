"""Stored values to grey in [0, 1], as one table.

DICOM's chain is modality LUT, VOI LUT, presentation LUT (PS3.4 N.2; PS3.3 C.11.1, C.11.2, C.11.6, C.7.6.3.1.2).
Each step maps a value to a value, so all of them fold into one float32 table with an entry for every stored value:
`grey = table[stored - stored_min]`, 1 brightest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.geometry import median
from spinescore.runtime.reading.tags import number, text, value
from spinescore.runtime.study import Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["contrast_table", "displayed_percentiles", "exposed_field", "table"]

Values = NDArray[np.float64]

DEFAULT_PERCENTILES = (1.0, 99.0)
_SAMPLES_PER_SIDE = 512  # percentiles are taken from at most this many rows and columns, evenly spaced
_GLANCE_PER_SIDE = 128  # are enough where dark and bright are not rare
_PIXELS_AT_ONCE = 1 << 20  # are counted, so that the numbers of their places in the table take little memory
_LUT_BYTES = 1 << 20  # a table has 128 kB at most, and a sequence may hold several
_HUGE = 1e100  # beyond it, differences and products of values are no numbers any more
_FLAT = 0.1  # a border line whose spread is below this share of the picture's is outside the collimation


def table(
    ds: Dataset,
    pixels: NDArray[np.integer],
    bits_stored: int,
    stored_min: int,
    padding: tuple[int, int] | None = None,
    window: str | None = None,
) -> tuple[NDArray[np.float32], bool, list[str]]:
    """The table of one image, whether the header's window shaped it, and warnings.

    `padding` is the inclusive range of stored values that are no exposure (C.7.5.1.1.2): they become 0. Without a VOI
    transformation, or with one that shows all of the image in one grey, the contrast runs between the 1st and 99th
    percentiles of the exposed field. Of several transformations the first counts, or the one that `window` explains.
    """
    notes: list[str] = []
    values = _modality(ds, stored_min + np.arange(1 << bits_stored, dtype=np.float64), notes)
    grey = _voi(ds, values, window, notes)
    if grey is None or not _shows_dark_and_bright(grey, _exposed(pixels, padding, _GLANCE_PER_SIDE), stored_min):
        span = np.percentile(_exposed(pixels, padding), DEFAULT_PERCENTILES)
        low, high = (int(np.clip(round(edge) - stored_min, 0, values.size - 1)) for edge in span)
        if grey is not None and low != high and grey[low] == grey[high]:
            notes.append(
                "the header's window shows nearly all of the image in one grey; contrast was taken from the pixels"
            )
            grey = None
    has_window = grey is not None
    if grey is None:
        grey = _ramp(values, values[low], values[high])
    if _inverted(ds, notes):
        grey = 1.0 - grey
    return _finished(grey, stored_min, padding), has_window, notes


def contrast_table(
    radiograph: Radiograph,
    mode: Literal["dicom", "percentile"] = "dicom",
    low: float = DEFAULT_PERCENTILES[0],
    high: float = DEFAULT_PERCENTILES[1],
    levels: int | None = None,
    over: Literal["exposed", "picture"] = "exposed",
) -> NDArray[np.float32]:
    """The table through which a network sees `radiograph`.

    `dicom` is the radiograph's own table. `percentile` is linear in the stored value between two percentiles and keeps
    the polarity, so that bone stays bright. They are of samples of the exposed field or, with `over="picture"`, of all
    pixels (padding too), exactly as `numpy.percentile` has them. `levels` (256 for a network trained on 8-bit
    pictures) rounds the greys to that many steps.
    """
    if mode == "dicom":
        grey = radiograph.table
    elif mode == "percentile":
        stored = radiograph.stored_min + np.arange(radiograph.table.size, dtype=np.float64)
        ends = _rising(radiograph, low, high)
        if over == "picture":
            span = _picture_percentiles(radiograph, *ends)
        else:
            span = displayed_percentiles(radiograph.pixels, *ends, radiograph.padding)
        ramp = _ramp(stored, *span)
        grey = _finished(ramp if _is_rising(radiograph) else 1.0 - ramp, radiograph.stored_min, radiograph.padding)
    else:
        raise ValueError(f"unknown contrast mode {mode!r}; use 'dicom' or 'percentile'")
    if levels is None:
        return grey
    if levels < 2:
        raise ValueError(f"levels is {levels}; a picture needs at least 2")
    return (np.round(grey * np.float32(levels - 1)) / np.float32(levels - 1)).astype(np.float32)


def displayed_percentiles(
    pixels: NDArray[np.integer], low: float, high: float, padding: tuple[int, int] | None = None
) -> tuple[float, float]:
    """Two percentiles of the stored values inside the exposed field, from evenly spaced rows and columns."""
    found = np.percentile(_exposed(pixels, padding), (low, high))
    return float(found[0]), float(found[1])


def _picture_percentiles(radiograph: Radiograph, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of all stored values, from a histogram, which takes less than to sort them.

    Between two neighbouring values of the sorted picture it interpolates, as `numpy.percentile` does by default.
    """
    counts = np.zeros(radiograph.table.size, np.int64)
    pixels = np.ascontiguousarray(radiograph.pixels).reshape(-1)
    for start in range(0, pixels.size, _PIXELS_AT_ONCE):
        positions = pixels[start : start + _PIXELS_AT_ONCE].astype(np.intp) - radiograph.stored_min
        counts += np.bincount(positions, minlength=counts.size)
    up_to = np.cumsum(counts)  # the number of pixels with this value or a lower one
    rank = np.array([low, high]) / 100.0 * (pixels.size - 1)
    before = np.floor(rank)
    first, second = (np.searchsorted(up_to, before + step, side="right") for step in (0, 1))
    second = np.minimum(second, np.flatnonzero(counts)[-1])
    found = radiograph.stored_min + first + (rank - before) * (second - first)
    return float(found[0]), float(found[1])


def _exposed(
    pixels: NDArray[np.integer], padding: tuple[int, int] | None, per_side: int = _SAMPLES_PER_SIDE
) -> NDArray[np.integer]:
    """Stored values inside the exposed field, without padding, from evenly spaced rows and columns; never empty."""
    rows, columns = (max(1, -(-side // per_side)) for side in pixels.shape)
    sample = np.ascontiguousarray(pixels[rows // 2 :: rows, columns // 2 :: columns])
    inside: NDArray[np.integer] = sample[exposed_field(sample)].ravel()
    if padding is not None:
        exposed = inside[(inside < padding[0]) | (inside > padding[1])]
        inside = exposed if exposed.size else inside
    return inside


def _shows_dark_and_bright(grey: Values, exposed: NDArray[np.integer], stored_min: int) -> bool:
    """Whether greys differ at the percentiles 1 and 99 with room to spare, which takes less than to find these.

    They do where the table passes the middle grey once, and more than 5 % of the values lie on either side of that.
    """
    turns = np.flatnonzero(np.diff(grey < 0.5))
    if turns.size != 1:
        return False
    below, least = int(np.count_nonzero(exposed <= stored_min + int(turns[0]))), exposed.size // 20 + 1
    return least < below < exposed.size - least


def _is_rising(radiograph: Radiograph) -> bool:
    """Whether a larger stored value is brighter; halves are compared because a window may be flat at either end."""
    half = radiograph.table.size // 2
    return bool(radiograph.table[half:].mean() >= radiograph.table[:half].mean())


def _rising(radiograph: Radiograph, low: float, high: float) -> tuple[float, float]:
    """The percentiles count from dark to bright; where large values are dark they count from the other end."""
    return (low, high) if _is_rising(radiograph) else (100.0 - high, 100.0 - low)


def exposed_field(sample: NDArray[np.integer]) -> tuple[slice, slice]:
    """The part of the picture inside a rectangular collimation: its edge lines that hardly vary are left out."""
    spread = sample.astype(np.float32)
    bounds = []
    for axis in (1, 0):
        lines = spread.std(axis=axis)
        usual = np.float32(median(lines[lines.size // 4 : lines.size - lines.size // 4]))
        alive = np.flatnonzero(lines > _FLAT * usual)
        bounds.append(slice(int(alive[0]), int(alive[-1]) + 1) if alive.size else slice(None))
    return bounds[0], bounds[1]


def _finished(grey: Values, stored_min: int, padding: tuple[int, int] | None) -> NDArray[np.float32]:
    """Padding to 0, everything into [0, 1], single precision, read-only."""
    finished = np.clip(grey, 0.0, 1.0).astype(np.float32)
    if padding is not None:
        finished[max(padding[0] - stored_min, 0) : max(padding[1] - stored_min + 1, 0)] = 0.0
    finished.flags.writeable = False
    return finished


def _ramp(values: Values, low: float, high: float) -> Values:
    """Linear from 0 at the smaller of the two ends to 1 at the larger; a step where they coincide."""
    low, high = min(low, high), max(low, high)
    if low == high:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _modality(ds: Dataset, stored: Values, notes: list[str]) -> Values:
    """Modality LUT sequence, else rescale slope and intercept, else the stored values (PS3.3 C.11.1)."""
    lut = _lookup(ds, "ModalityLUTSequence", notes)
    if lut is not None:
        return lut[0][_positions(stored, lut)]
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    if slope in (None, 1) and not intercept:
        return stored
    if slope == 0:
        notes.append("Rescale Slope is 0 and was ignored")
        return stored
    if max(abs(slope or 0.0), abs(intercept or 0.0)) > _HUGE:
        notes.append("Rescale Slope and Intercept are beyond any use and were ignored")
        return stored
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _voi(ds: Dataset, values: Values, explained: str | None, notes: list[str]) -> Values | None:
    """VOI LUT sequence, else a window, in [0, 1] (PS3.3 C.11.2.1); None where the header states neither.

    Of several the first is taken, or the LUT or window whose explanation is `explained`, without regard to case.
    """
    luts, windows = _explanations(ds)
    kind, index = ("lut" if luts else "window"), 0
    if explained is not None:
        named = {name.casefold(): place for place, name in reversed([*windows, *luts]) if name}
        if explained.strip().casefold() in named:
            kind, index = named[explained.strip().casefold()]
        else:
            stated = ", ".join(repr(name[:32]) for _, name in [*luts, *windows][:8] if name) or "none"
            notes.append(f"no window is explained as {explained!r} (there are: {stated}); the first was used")
    if kind == "lut":
        lut = _lookup(ds, "VOILUTSequence", notes, index)
        if lut is not None:
            entries, _, bits = lut
            return np.clip(entries[_positions(values, lut)] / float((1 << bits) - 1), 0.0, 1.0)
        index = 0
    return _windowed(ds, values, index, notes)


Explanations = list[tuple[tuple[str, int], str]]  # (lut or window, index), explanation


def _explanations(ds: Dataset) -> tuple[Explanations, Explanations]:
    """What the header calls its VOI LUTs and windows; empty where it does not call them anything."""
    luts, names = value(ds, "VOILUTSequence", _LUT_BYTES), value(ds, "WindowCenterWidthExplanation")
    items = list(luts) if isinstance(luts, Sequence) and not isinstance(luts, (str, bytes)) else []
    names = [names] if isinstance(names, str) else names or []
    return (
        [(("lut", index), text(item, "LUTExplanation") or "") for index, item in enumerate(items)],
        [(("window", index), str(name).strip()) for index, name in enumerate(names)],
    )


def _windowed(ds: Dataset, values: Values, index: int, notes: list[str]) -> Values | None:
    center, width = number(ds, "WindowCenter", index), number(ds, "WindowWidth", index)
    if center is None or width is None:
        return None
    function = (text(ds, "VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append(f"VOI LUT Function {function[:32]!r} is unknown; the window was taken as LINEAR")
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        notes.append(f"Window Width {width:g} is not allowed for {function}; the window was ignored")
        return None
    if function == "SIGMOID":  # C.11.2.1.3.1; the exponent is limited where exp would overflow
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    if function == "LINEAR":  # C.11.2.1.2.1: the window's ends are the centres of the first and last grey
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _inverted(ds: Dataset, notes: list[str]) -> bool:
    """MONOCHROME1 and the shape INVERSE both ask for one and the same inversion (PS3.3 C.8.11.3.1.2)."""
    monochrome1 = text(ds, "PhotometricInterpretation") == "MONOCHROME1"
    shape = (text(ds, "PresentationLUTShape") or "").upper()
    if (shape == "IDENTITY" and monochrome1) or (shape == "INVERSE" and not monochrome1):
        notes.append(f"Presentation LUT Shape {shape} contradicts the Photometric Interpretation; shown inverted")
    return monochrome1 or shape == "INVERSE"


Lookup = tuple[Values, float, int]  # entries, first value mapped, bits per entry


def _positions(values: Values, lut: Lookup) -> NDArray[np.intp]:
    """Values below the first one mapped take the first entry, those beyond the last take the last (C.11.1.1)."""
    entries, first, _ = lut
    return np.clip(np.floor(values - first), 0, entries.size - 1).astype(np.intp)


def _lookup(ds: Dataset, keyword: str, notes: list[str], index: int = 0) -> Lookup | None:
    """One item of a LUT sequence; None where there is none, or with a note where it cannot be used."""
    sequence = value(ds, keyword, _LUT_BYTES)
    if not sequence:
        return None
    try:
        item = sequence[index]
        count, first, bits = (int(part) for part in value(item, "LUTDescriptor"))
        count = count % 65536 or 65536  # 0 stands for 65536; a signed reading of the count is undone
        entries = _entries(value(item, "LUTData", _LUT_BYTES), count, bits, _is_little_endian(ds))
        return entries, float(first), bits
    except Exception as fault:
        notes.append(f"{keyword} cannot be used and was ignored ({type(fault).__name__}: {str(fault)[:120]})")
        return None


def _entries(data: Any, count: int, bits: int, little_endian: bool) -> Values:
    """LUT Data as numbers: words, or two 8-bit entries in a word where the length says so (PS3.3 C.11.1.1)."""
    if not 8 <= bits <= 16:
        raise ValueError(f"{bits} bits per entry, between 8 and 16 are allowed")
    if isinstance(data, (bytes, bytearray)):
        words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if little_endian else ">u2")
        if words.size < count <= len(data):
            found = words.astype("<u2").view(np.uint8).astype(np.float64)  # the low byte comes first
        else:
            found = words.astype(np.float64)
    else:
        found = np.atleast_1d(np.asarray(data, dtype=np.float64))
    if found.size < count:
        raise ValueError(f"{found.size} entries, {count} declared")
    if not np.isfinite(found[:count]).all():
        raise ValueError("entries that are no numbers")
    return found[:count]


def _is_little_endian(ds: Dataset) -> bool:
    return getattr(ds, "original_encoding", (None, True))[1] is not False
