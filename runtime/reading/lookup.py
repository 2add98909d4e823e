"""Lookup tables of a header, whatever VR and depth they are written with (PS3.3 C.11.1.1, C.11.2.1.1).

Entries are unsigned, even if a device writes them as SS. The third value of a descriptor should be the number of bits
of an entry, but is often the number of allocated bits. So the entries themselves decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.notices import notice
from spinescore.runtime.reading.tags import ignored, raw_element, value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["LUT_BYTES", "Lut", "Values", "lut_items", "read_lut"]

Values = NDArray[np.float64]

LUT_BYTES = 1 << 20  # a table has at most 128 kB, and a sequence may hold several
_WORDS = ("US", "SS", "OW", "OB", "UN", "US or SS", "US or OW", "US or SS or OW", "OB or OW", None)
_NAMES = {
    "ModalityLUTSequence": "the Modality LUT",
    "VOILUTSequence": "the VOI LUT",
    "PresentationLUTSequence": "the Presentation LUT",
}


class _UnusableError(ValueError):
    """The reason why a table cannot be used. The message quotes no text of the header."""


@dataclass(frozen=True)
class Lut:
    """A table from values to entries; `brightest` is the entry of full brightness."""

    entries: Values
    first: int  # the value of the first entry
    brightest: float

    def __call__(self, values: Values) -> Values:
        """Return the entries of values; values outside the table take its first or last entry."""
        positions = np.clip(np.floor(values - self.first), 0, self.entries.size - 1).astype(np.intp)
        entries: Values = self.entries[positions]
        return entries

    def greys(self, values: Values) -> Values:
        """Return entries as shares of the brightest one, in [0, 1]."""
        return self(values) / self.brightest


def lut_items(ds: Dataset, keyword: str) -> list[Any]:
    """Return the items of a LUT sequence; empty if it is absent or cannot be read."""
    sequence = value(ds, keyword, LUT_BYTES)
    if isinstance(sequence, bytes):  # of VR UN, which holds implicit VR little endian (PS3.5 6.2.2)
        from pydicom.values import convert_SQ

        try:
            sequence = convert_SQ(sequence, True, True)
        except Exception:  # pydicom can raise anything for hostile bytes
            return []
    return list(sequence) if isinstance(sequence, Sequence) and not isinstance(sequence, (str, bytes)) else []


def read_lut(ds: Dataset, keyword: str, values: Values, notes: list[str], index: int = 0) -> Lut | None:
    """Return one item of a LUT sequence as a table, or None.

    `values` are all values that can occur before the table. A LUT that cannot be used adds a warning to `notes`.
    """
    if not value(ds, keyword, LUT_BYTES):
        return None
    remarks: list[str] = []
    try:
        items = lut_items(ds, keyword)
        if not 0 <= index < len(items):
            raise _UnusableError("it has no item that can be read")
        little_endian = getattr(ds, "original_encoding", (None, True))[1] is not False
        lut = _of_item(items[index], values, little_endian, remarks)
    except _UnusableError as fault:
        ignored(notes, keyword, f"{keyword} cannot be used and was ignored: {fault}")
        return None
    except Exception as fault:  # pydicom can raise anything for a hostile item, and its text may quote the header
        ignored(notes, keyword, f"{keyword} cannot be used and was ignored ({type(fault).__name__})")
        return None
    if keyword == "ModalityLUTSequence":  # its entries are not scaled, so their range does not matter
        remarks = [remark for remark in remarks if remark != _SCALED]
    name = _NAMES.get(keyword, keyword)
    notes += [notice("greyscale-adjusted", f"{name} {remark}", tag=keyword) for remark in remarks]
    return lut


_SCALED = "does not use the bits that it declares; black to white was taken from the range of its entries"


def _of_item(item: Dataset, values: Values, little_endian: bool, remarks: list[str]) -> Lut:
    descriptor = _unsigned(item, "LUTDescriptor", little_endian)
    if isinstance(descriptor, bytes):
        descriptor = _words(descriptor).astype(np.float64)
    if descriptor.size < 3:
        raise _UnusableError(f"its descriptor has {descriptor.size} values of 3")
    declared, first, bits = (int(part) & 0xFFFF for part in descriptor[:3])
    count = declared or 65536  # 0 stands for 65536
    entries = _entries(_unsigned(item, "LUTData", little_endian), count, bits, remarks)
    used = int(entries.max()).bit_length()
    if used == 0:
        raise _UnusableError("all its entries are 0")
    if used != bits:
        remarks.append(_SCALED)
    return Lut(entries, _first_mapped(first, count, values), float((1 << used) - 1))


def _unsigned(item: Dataset, keyword: str, little_endian: bool) -> bytes | Values:
    """Return an element as little-endian 16-bit words, or as numbers that are made unsigned."""
    raw = raw_element(item, keyword)
    if raw is not None and isinstance(raw.value, (bytes, bytearray)) and raw.VR in _WORDS:
        if len(raw.value) > LUT_BYTES:
            raise _UnusableError(f"it has {len(raw.value)} bytes")
        swapped = raw.VR != "OB" and not getattr(raw, "is_little_endian", little_endian)
        return _words(bytes(raw.value)).byteswap().tobytes() if swapped else bytes(raw.value)
    stated = value(item, keyword, LUT_BYTES)
    if stated is None:
        raise _UnusableError(f"it has no {keyword}")
    try:
        numbers = np.atleast_1d(np.asarray(stated, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise _UnusableError("it has entries that are no numbers")
    return np.where(numbers < 0, numbers + 65536, np.floor(numbers))


def _words(data: bytes) -> NDArray[np.uint16]:
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2")


def _entries(data: bytes | Values, count: int, bits: int, remarks: list[str]) -> Values:
    """Return LUT Data as numbers: one entry in a word, or two 8-bit entries if the length shows that.

    The bytes are swapped if the entries rise or fall steadily only in that order.
    """
    if not isinstance(data, bytes):
        if data.size < count:
            raise _UnusableError(f"it has {data.size} entries, {count} declared")
        return data[:count]
    words = _words(data)
    packed = words.size < count <= len(data)
    if not packed and words.size < count:
        raise _UnusableError(f"it has {words.size} entries, {count} declared")
    # Of two packed entries the low byte comes first.
    entries, swapped = ((order.view(np.uint8) if packed else order)[:count] for order in (words, words.byteswap()))
    if packed and bits > 8 and not (_is_steady(entries) or _is_steady(swapped)):
        raise _UnusableError(f"it has {words.size} entries of {bits} bits, {count} declared")
    if not _is_steady(entries) and _is_steady(swapped):
        remarks.append("has its bytes in the wrong order; they were swapped")
        entries = swapped
    return entries.astype(np.float64)


def _is_steady(entries: NDArray[np.unsignedinteger]) -> bool:
    """Return whether the entries never fall, or never rise."""
    return bool((entries[1:] >= entries[:-1]).all() or (entries[1:] <= entries[:-1]).all())


def _first_mapped(first: int, count: int, values: Values) -> int:
    """Return the first mapped value, read as signed or unsigned: as the one for which more values are in the table."""
    low, high = float(values.min()), float(values.max())

    def shared(start: int) -> float:
        return min(high, start + count - 1) - max(low, start)

    as_signed = first - 65536 if first >= 32768 else first
    if shared(as_signed) == shared(first):
        return as_signed if low < 0 else first
    return max(first, as_signed, key=shared)
