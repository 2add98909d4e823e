"""The format in which a header declares its pixels, checked before memory is taken for them (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.tags import number, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["PixelFormat", "check_size", "corrupt", "pixel_format"]


@dataclass(frozen=True)
class PixelFormat:
    """The pixel format of one image. `pixel_format` has checked it, so other code can trust it."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    lossy: bool | None = None  # whether a compression lost something, if the header says so

    @property
    def stored_min(self) -> int:
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def stored_max(self) -> int:
        return self.stored_min + (1 << self.bits_stored) - 1

    @property
    def byte_count(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


def pixel_format(ds: Dataset, source: str, max_pixels: int) -> PixelFormat:
    """Return the checked pixel format of a header.

    Raises InputRejected: not-radiograph, too-large (more than `max_pixels` pixels) or corrupt-pixels.
    """
    photometric = text(ds, "PhotometricInterpretation") or "no"
    samples, frames = _integer(ds, "SamplesPerPixel", source, 1), _integer(ds, "NumberOfFrames", source, 1)
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputRejected(
            "not-radiograph",
            f"{source} has {samples} samples per pixel and {photometric[:32]} photometric interpretation; "
            "a radiograph has one sample, MONOCHROME1 or MONOCHROME2: give the original image",
        )
    if frames != 1:
        raise InputRejected("not-radiograph", f"{source} has {frames} frames; give a radiograph, which has one")
    rows, columns = _integer(ds, "Rows", source), _integer(ds, "Columns", source)
    allocated, stored = _integer(ds, "BitsAllocated", source), _integer(ds, "BitsStored", source)
    if allocated not in (8, 16):
        message = f"{source} has {allocated} bits per pixel; a radiograph has 8 or 16: give the original image"
        raise InputRejected("not-radiograph", message)
    if rows < 1 or columns < 1 or not 1 <= stored <= allocated:
        raise corrupt(source, f"declares {rows} x {columns} pixels with {stored} of {allocated} bits")
    check_size(rows, columns, source, max_pixels)
    high_bit = _integer(ds, "HighBit", source, stored - 1)
    if not stored - 1 <= high_bit < allocated:
        raise corrupt(source, f"declares high bit {high_bit} with {stored} of {allocated} bits")
    signed = _integer(ds, "PixelRepresentation", source)
    if signed not in (0, 1):
        raise corrupt(source, f"declares pixel representation {signed}")
    lossy = {"00": False, "01": True}.get(text(ds, "LossyImageCompression") or "")
    return PixelFormat(rows, columns, allocated, stored, high_bit, bool(signed), photometric, lossy)


def check_size(rows: int, columns: int, source: str, max_pixels: int) -> None:
    """Raise InputRejected (too-large) for more than `max_pixels` pixels."""
    if rows * columns > max_pixels:
        raise InputRejected(
            "too-large",
            f"{source} declares {rows} x {columns} pixels, the limit is {max_pixels}; "
            "raise max_pixels if the image is really that large",
        )


def corrupt(source: str, fault: str) -> InputRejected:
    """Return the reject (corrupt-pixels) of a file; `fault` is the predicate of a sentence about it."""
    return InputRejected("corrupt-pixels", f"{source} {fault}; send the image again from the modality or the archive")


def _integer(ds: Dataset, keyword: str, source: str, default: int | None = None) -> int:
    stated = number(ds, keyword)
    if stated is None and default is not None and text(ds, keyword) is None:
        return default
    if stated is None or stated != int(stated):
        raise corrupt(source, f"does not state {keyword} as a whole number")
    return int(stated)
