"""A radiograph from stored values and the header that describes them; used for files, datasets and arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.notices import as_notice, notice
from spinescore.runtime.reading import greyscale, shutter
from spinescore.runtime.reading.facts import Facts
from spinescore.runtime.reading.quality import header_findings
from spinescore.runtime.reading.tags import number
from spinescore.runtime.study import FROM_LIBRARY, Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["radiograph_from_header"]

_MAX_NOTES, _NOTE_LENGTH = 20, 300


def radiograph_from_header(
    stored: NDArray[np.integer],
    ds: Dataset,
    declared: PixelFormat,
    facts: Facts,
    source: str,
    *,
    decoder: str = "none",
    window: str | None = None,
    notes: Iterable[str] = (),
    warned: Iterable[str] = (),
    masked: NDArray[np.bool_] | None = None,
) -> Radiograph:
    """Return the radiograph of stored values (H x W, within the declared range) with the header `ds`.

    Pixels that a Display Shutter hides are overwritten in `stored`. So are `masked` pixels (H x W), which become black.
    `window` names a window by its explanation. `notes` are warnings of ours, `warned` are those of pydicom.
    """
    warnings = [*facts.notes, *notes]
    padding, lowest = _padding(ds, declared), declared.stored_min
    occluded = shutter.close_shutter(stored, ds, declared, padding, warnings, masked)
    table, has_window, remarks = greyscale.table(
        ds, stored, declared.bits_stored, lowest, padding, window, occluded=occluded
    )
    of_library = (notice("library-warning", f"{FROM_LIBRARY}{warning}") for warning in warned)
    unique = dict.fromkeys(
        as_notice(note).saying(note[:_NOTE_LENGTH]).at(facts.region, source)
        for note in (*warnings, *remarks, *of_library)
    )
    return Radiograph(
        pixels=stored,
        table=table,
        stored_min=lowest,
        has_window=has_window,
        padding=padding,
        occluded=occluded,
        decoder=decoder,
        source=source,
        header=ds,
        warnings=tuple(unique)[:_MAX_NOTES],
        findings=header_findings(ds, source, facts.spacing_mm is not None),
        **{name: fact for name, fact in vars(facts).items() if name != "notes"},
    )


def _padding(ds: Dataset, declared: PixelFormat) -> tuple[int, int] | None:
    """Return the stored values from Pixel Padding Value to its Range Limit, both inclusive (C.7.5.1.1.2), or None."""
    value, limit = number(ds, "PixelPaddingValue"), number(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    first = _as_stored(int(value), declared)
    last = first if limit is None else _as_stored(int(limit), declared)
    low, high = max(min(first, last), declared.stored_min), min(max(first, last), declared.stored_max)
    return (low, high) if low <= high else None


def _as_stored(value: int, declared: PixelFormat) -> int:
    """Return the value as it can be stored: devices write signed values as unsigned ones, and vice versa."""
    span = 1 << declared.bits_allocated
    return next(
        (same for same in (value, value - span, value + span) if declared.stored_min <= same <= declared.stored_max),
        value,
    )
