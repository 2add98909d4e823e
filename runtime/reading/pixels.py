"""Pixel data of one grey-scale frame: limits, decoders, stored values (PS3.5 section 8 and annex A, PS3.3 C.7.6.3).

What is declared is checked against limits and against the bytes that are there before memory is taken for it.
Uncompressed pixels are read once, straight into their array; compressed ones go through `decoders`. Mapping the file
instead would save that copy: 0.7 ms of 14 MB in the page cache (`spinescore.benchmarks.decode`, on a loaded machine).
It is not done: a file that is cut short under a mapping, as one on a network share can be, ends the whole process
(SIGBUS), Windows keeps mapped files locked, and pixels with unused bits, odd offsets or big-endian words are copied
all the same.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.memory import pixel_array
from spinescore.runtime.reading.tags import number, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "UNCOMPRESSED",
    "PixelFormat",
    "bytes_left",
    "check_size",
    "corrupt",
    "pixel_format",
    "read_pixels",
    "without_unused_bits",
]

_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = (_IMPLICIT_LITTLE_ENDIAN, _EXPLICIT_LITTLE_ENDIAN, _EXPLICIT_BIG_ENDIAN, None)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class PixelFormat:
    """How the header declares the pixels; checked, so that it can be trusted."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    lossy: bool | None = None  # whether a compression lost something, where the header says it

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
    """Read and check what the header declares. Raises InputRejected: not-radiograph, too-large or corrupt-pixels."""
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
        raise InputRejected(
            "not-radiograph",
            f"{source} has {allocated} bits per pixel; a radiograph has 8 or 16: give the original image",
        )
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


def read_pixels(
    file: BinaryIO, ds: Dataset, declared: PixelFormat, syntax: str | None, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    """The stored values (rows x columns), within the declared range, and the decoder's name (`none`: uncompressed).

    `file` stands at the Pixel Data element. Raises InputRejected: no-pixels, corrupt-pixels or unsupported-syntax.
    """
    from spinescore.runtime.reading import decoders  # it builds on this module

    implicit, little_endian = (flag is not False for flag in ds.original_encoding)
    big_endian = syntax == _EXPLICIT_BIG_ENDIAN or (syntax is None and not little_endian)
    length, vr = _pixel_element(file, implicit, big_endian, source)
    if _is_encapsulated(file, length, declared, syntax):
        left = min(bytes_left(file), length)
        if left > 2 * declared.byte_count + _SLACK_BYTES:
            raise corrupt(source, f"has {left} bytes of compressed pixels for {declared.byte_count} uncompressed ones")
        return decoders.decoded(file.read(left), declared, syntax, source, notes)
    if decoders.is_compressed(syntax):
        if not _fits(length, declared):
            raise corrupt(
                source, f"has {length} bytes of pixels that are not compressed, but needs {declared.byte_count}"
            )
        text = "the file names a compressed transfer syntax, but its pixels are not compressed; they were read so"
        notes.append(notice("syntax-contradicts", text, pixels=None))
    elif syntax not in UNCOMPRESSED:
        raise decoders.unsupported(source, syntax)
    raw = _native(file, length, declared, big_endian, vr, source)
    if length > declared.byte_count + 1:
        count = length - declared.byte_count
        notes.append(
            notice("pixels-too-long", f"{count} bytes follow the declared pixels and were ignored", bytes=count)
        )
    READING.debug("%d x %d pixels without compression", declared.rows, declared.columns)
    return without_unused_bits(raw, declared), "none"


def _is_encapsulated(file: BinaryIO, length: int, declared: PixelFormat, syntax: str | None) -> bool:
    """Whether compressed pixels follow, which have no length as a rule, and no other syntax than a compressed one.

    With a length they are told by their beginning, where uncompressed pixels would not fit the length.
    """
    from spinescore.runtime.reading import decoders

    if length == _UNDEFINED_LENGTH:
        return True
    if (syntax in UNCOMPRESSED and length >= declared.byte_count) or _fits(length, declared):
        return False
    beginning = file.read(8)
    file.seek(-len(beginning), 1)
    return decoders.holds_codestream(beginning)


def _fits(length: int, declared: PixelFormat) -> bool:
    """Whether pixels that are not compressed have this length, with or without a byte that makes it even."""
    return declared.byte_count <= length <= declared.byte_count + 1


def _integer(ds: Dataset, keyword: str, source: str, default: int | None = None) -> int:
    found = number(ds, keyword)
    if found is None and default is not None and text(ds, keyword) is None:
        return default
    if found is None or found != int(found):
        raise corrupt(source, f"does not state {keyword} as a whole number")
    return int(found)


def corrupt(source: str, what: str) -> InputRejected:
    return InputRejected("corrupt-pixels", f"{source} {what}; send the image again from the modality or the archive")


def _pixel_element(file: BinaryIO, implicit: bool, big_endian: bool, source: str) -> tuple[int, bytes]:
    """Length and VR of the Pixel Data element at which `file` stands; the file is left at its value."""
    order = ">" if big_endian else "<"
    head = file.read(8)
    if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        if len(head) == 8 and struct.unpack(f"{order}HH", head[:4]) in ((0x7FE0, 0x0008), (0x7FE0, 0x0009)):
            raise InputRejected("not-radiograph", f"{source} holds floating-point pixels; give the original radiograph")
        raise InputRejected("no-pixels", f"{source} holds no pixel data; give the image itself")
    if head[4:6] in (b"US", b"SS") and not implicit:  # not allowed, and their length has two bytes (PS3.5 7.1.2)
        return int(struct.unpack(f"{order}H", head[6:8])[0]), b"OW"
    # Pixel Data has an even length, and both VRs begin with an odd letter: an implicit length is never mistaken for one
    if head[4:6] in (b"OW", b"OB", b"UN") or not implicit:
        tail = file.read(4)
        if len(tail) < 4:
            raise corrupt(source, "ends at its pixel data")
        return int(struct.unpack(f"{order}I", tail)[0]), head[4:6]
    return int(struct.unpack(f"{order}I", head[4:8])[0]), b"OW"


def bytes_left(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here


def _native(
    file: BinaryIO, length: int, declared: PixelFormat, big_endian: bool, vr: bytes, source: str
) -> NDArray[np.unsignedinteger]:
    """Uncompressed pixels, read once into their array, in the machine's byte order."""
    there = min(length, bytes_left(file))
    if there < declared.byte_count:
        raise corrupt(source, f"holds {there} of the {declared.byte_count} bytes that its pixels need")
    count = declared.rows * declared.columns
    in_words = declared.bits_allocated == 16 or (big_endian and vr == b"OW")  # PS3.5 8.1.1 and annex D
    raw = pixel_array(((count + 1) // 2 if declared.bits_allocated == 8 else count,), np.uint16)
    raw[-1] = 0  # of an odd number of bytes the file may leave out the padding
    memory = raw.view(np.uint8).data
    wanted = min(raw.nbytes, there)
    if file.readinto(memory[:wanted]) != wanted:  # type: ignore[attr-defined]
        raise corrupt(source, "could not be read to its end")
    if in_words and (big_endian if declared.bits_allocated == 8 else big_endian == (sys.byteorder == "little")):
        raw.byteswap(inplace=True)
    flat = raw.view(np.uint8)[:count] if declared.bits_allocated == 8 else raw
    return flat.reshape(declared.rows, declared.columns)


def without_unused_bits(raw: NDArray[np.unsignedinteger], declared: PixelFormat) -> NDArray[np.integer]:
    """In place: drop the bits outside the stored ones (they may hold overlays) and extend the sign."""
    below = declared.high_bit + 1 - declared.bits_stored
    above = raw.dtype.itemsize * 8 - declared.high_bit - 1
    if declared.signed:
        signed: NDArray[np.signedinteger] = raw.view(f"i{raw.dtype.itemsize}")
        if above:
            np.left_shift(signed, above, out=signed)
        if above + below:
            np.right_shift(signed, above + below, out=signed)
        return signed
    if below:
        np.right_shift(raw, below, out=raw)
    if (above or below) and int(raw.max()) > declared.stored_max:
        np.bitwise_and(raw, raw.dtype.type(declared.stored_max), out=raw)
    return raw
