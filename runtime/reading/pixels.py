"""The pixel data of one grey-scale frame as stored values (PS3.5 section 8 and annex A).

The declared format is checked against limits and against the length of the data before memory is taken. Uncompressed
pixels are read once, straight into their array; compressed ones are decoded (`decoding.decode`).

The file is not mapped into memory. A mapping would save one copy: 0.7 ms for 14 MB in the page cache
(`spinescore.benchmarks.decode`, on a loaded machine). But if a mapped file is cut short, as can happen on a network
share, the whole process ends (SIGBUS). Windows locks mapped files, and pixels with unused bits, odd offsets or
big-endian words are copied in any case.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.decoding.decode import decode_pixels, unsupported
from spinescore.runtime.reading.decoding.encapsulation import holds_codestream
from spinescore.runtime.reading.decoding.syntaxes import EXPLICIT_BIG_ENDIAN, SYNTAXES, UNCOMPRESSED
from spinescore.runtime.reading.dicomfile import bytes_left
from spinescore.runtime.reading.memory import pixel_array
from spinescore.runtime.reading.pixelformat import PixelFormat, corrupt
from spinescore.runtime.reading.storedvalues import stored_values

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["read_pixels"]

_UNDEFINED_LENGTH = 0xFFFFFFFF
_SLACK_BYTES = 1 << 20


def read_pixels(
    file: BinaryIO, ds: Dataset, declared: PixelFormat, syntax: str | None, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    """Return the stored values (rows x columns) and the codec's name (`none` if uncompressed).

    `file` stands at the Pixel Data element; `syntax` is the transfer syntax that the file names. The values are within
    the declared range. Raises InputRejected: no-pixels, corrupt-pixels or unsupported-syntax.
    """
    implicit, little_endian = (flag is not False for flag in ds.original_encoding)
    big_endian = syntax == EXPLICIT_BIG_ENDIAN or (syntax is None and not little_endian)
    length, vr = _pixel_element(file, implicit, big_endian, declared, source)
    if _is_encapsulated(file, length, declared, syntax):
        available = min(bytes_left(file), length)
        if available > 2 * declared.byte_count + _SLACK_BYTES:
            fault = f"has {available} bytes of compressed pixels for {declared.byte_count} uncompressed ones"
            raise corrupt(source, fault)
        return decode_pixels(file.read(available), declared, syntax, source, notes)
    if syntax in SYNTAXES:
        if not _fits(length, declared):
            fault = f"has {length} bytes of pixels that are not compressed, but needs {declared.byte_count}"
            raise corrupt(source, fault)
        text = (
            "the file names a compressed transfer syntax, but its pixels are not compressed; they were read unchanged"
        )
        notes.append(notice("syntax-contradicts", text, pixels=None))
    elif syntax not in UNCOMPRESSED:
        raise unsupported(source, syntax)
    raw = _read_uncompressed(file, length, declared, big_endian, vr, source)
    if (count := length - declared.byte_count) > 1:
        text = f"{count} bytes follow the declared pixels and were ignored"
        notes.append(notice("pixels-too-long", text, bytes=count))
    READING.debug("%d x %d pixels without compression", declared.rows, declared.columns)
    return stored_values(raw, declared, source, notes), "none"


def _is_encapsulated(file: BinaryIO, length: int, declared: PixelFormat, syntax: str | None) -> bool:
    """Return whether compressed pixels follow.

    They usually have an undefined length, which uncompressed pixels never have. If there is a length that uncompressed
    pixels would not have, the first bytes decide.
    """
    if length == _UNDEFINED_LENGTH:
        return True
    if (syntax in UNCOMPRESSED and length >= declared.byte_count) or _fits(length, declared):
        return False
    beginning = file.read(8)
    file.seek(-len(beginning), 1)
    return holds_codestream(beginning)


def _fits(length: int, declared: PixelFormat) -> bool:
    """Return whether uncompressed pixels have this length, with or without a byte that makes it even."""
    return declared.byte_count <= length <= declared.byte_count + 1


def _pixel_element(
    file: BinaryIO, implicit: bool, big_endian: bool, declared: PixelFormat, source: str
) -> tuple[int, bytes]:
    """Return length and VR of the Pixel Data element at which `file` stands; leave the file at the element's value.

    Some devices write other VRs than the transfer syntax says: the element itself counts more than `implicit`.
    """
    order = ">" if big_endian else "<"
    head = file.read(8)
    if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        if len(head) == 8 and struct.unpack(f"{order}HH", head[:4]) in ((0x7FE0, 0x0008), (0x7FE0, 0x0009)):
            raise InputRejected("not-radiograph", f"{source} holds floating-point pixels; give the original radiograph")
        raise InputRejected("no-pixels", f"{source} holds no pixel data; give the image itself")
    if head[4:6] in (b"US", b"SS") and not implicit:  # not allowed, and their length has two bytes (PS3.5 7.1.2)
        return int(struct.unpack(f"{order}H", head[6:8])[0]), b"OW"
    # The length of Pixel Data is even, but both VRs begin with an odd letter: no implicit length looks like a VR.
    length = int(struct.unpack(f"{order}I", head[4:8])[0])
    if head[4:6] in (b"OW", b"OB", b"UN") or not (implicit or length == _UNDEFINED_LENGTH or _fits(length, declared)):
        tail = file.read(4)
        if len(tail) < 4:
            raise corrupt(source, "ends at its pixel data")
        return int(struct.unpack(f"{order}I", tail)[0]), head[4:6]
    return length, b"OW"


def _read_uncompressed(
    file: BinaryIO, length: int, declared: PixelFormat, big_endian: bool, vr: bytes, source: str
) -> NDArray[np.unsignedinteger]:
    """Return uncompressed pixels in the machine's byte order, read once into their array."""
    available = min(length, bytes_left(file))
    if available < declared.byte_count:
        raise corrupt(source, f"holds {available} of the {declared.byte_count} bytes that its pixels need")
    count = declared.rows * declared.columns
    in_words = declared.bits_allocated == 16 or (big_endian and vr == b"OW")  # PS3.5 8.1.1 and annex D
    raw = pixel_array(((count + 1) // 2 if declared.bits_allocated == 8 else count,), np.uint16)
    raw[-1] = 0  # the file may leave out the padding after an odd number of bytes
    memory = raw.view(np.uint8).data
    byte_count = min(raw.nbytes, available)
    if file.readinto(memory[:byte_count]) != byte_count:  # type: ignore[attr-defined]
        raise corrupt(source, "could not be read to its end")
    if in_words and (big_endian if declared.bits_allocated == 8 else big_endian == (sys.byteorder == "little")):
        raw.byteswap(inplace=True)
    flat = raw.view(np.uint8)[:count] if declared.bits_allocated == 8 else raw
    return flat.reshape(declared.rows, declared.columns)
