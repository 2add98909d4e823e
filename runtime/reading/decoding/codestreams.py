"""The statements of a codestream about itself: size, depth and losses, read before any codec sees it."""

from __future__ import annotations

import struct
from collections.abc import Collection

from spinescore.runtime.reading.decoding.syntaxes import HTJ2K, JPEG, JPEG_2000, JPEG_LS, RLE
from spinescore.runtime.reading.pixelformat import PixelFormat, corrupt

__all__ = [
    "END_OF_IMAGE",
    "begins_codestream",
    "check_codestream",
    "coded_bits",
    "is_lossless",
    "jpeg_size",
    "syntax_of",
]

_JPEG_BEGINNING, _JPEG_2000_BEGINNING = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_BOXES = b"jP  "  # of a JP2 file, after four bytes
_RLE_HEADER_BYTES, _MAX_RLE_SEGMENTS = 64, 2  # one segment for each byte of a pixel, and pixels have 8 or 16 bits
_RLE_BEGINNINGS = tuple(struct.pack("<2I", count + 1, _RLE_HEADER_BYTES) for count in range(_MAX_RLE_SEGMENTS))
END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike; only padding may follow
_SCAN, _CODING_STYLE, _TILE_PART = 0xDA, 0x52, 0x90  # the second bytes of markers, which all begin with 0xFF
_FRAMES = (0xF7, *(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)))
_SLACK_BYTES = 1 << 20
_MAX_SEGMENTS = 1024  # the most marker segments that are read


def check_codestream(codestream: bytes, declared: PixelFormat, syntax: str, source: str) -> None:
    """Refuse a codestream that is cut short, or whose size is not the declared one.

    Some codecs fill the missing part with grey, and CharLS searches for seconds. Raises InputRejected: corrupt-pixels.
    """
    if syntax == RLE:
        if len(codestream) > declared.byte_count + declared.byte_count // 64 + _SLACK_BYTES:
            raise corrupt(source, f"has {len(codestream)} bytes of RLE for {declared.byte_count} uncompressed ones")
        return
    size = _jpeg_2000_size(codestream) if syntax in JPEG_2000 + HTJ2K else jpeg_size(codestream)
    if size != (declared.rows, declared.columns, 1):
        actual = "no readable size" if size is None else f"{size[0]} x {size[1]} pixels of {size[2]} samples"
        raise corrupt(source, f"declares {declared.rows} x {declared.columns} pixels, its compressed image {actual}")
    whole = _tiles_are_whole(codestream) if syntax in JPEG_2000 + HTJ2K else True
    if not whole or not codestream.rstrip(b"\0\xff").endswith(END_OF_IMAGE):  # devices pad with either
        raise corrupt(source, "has a compressed image that is cut short")


def _jpeg_2000_size(codestream: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and components from the SIZ segment (ISO 15444-1 A.5.1), or None.

    A JP2 box may come before it. If a second codestream begins in the data, the result is None, because the codec could
    take either. The first tile must hold the image's first pixel (B.3, equations B-3 and B-4): otherwise OpenJPH never
    ends.
    """
    start = codestream.find(_JPEG_2000_BEGINNING)
    if codestream.count(_JPEG_2000_BEGINNING) != 1 or len(codestream) < start + 42:
        return None
    right, bottom, left, top, width, height, tile_left, tile_top = struct.unpack_from(">8I", codestream, start + 8)
    if not (tile_left <= left < tile_left + width and tile_top <= top < tile_top + height):
        return None
    return bottom - top, right - left, struct.unpack_from(">H", codestream, start + 40)[0]


def _tiles_are_whole(codestream: bytes) -> bool:
    """Return whether there are tile-parts, and all end within the codestream by their lengths (ISO 15444-1 A.4.2).

    OpenJPH fills missing ones with grey.
    """
    at = _segment(codestream, (_TILE_PART,))
    while at is not None and at + 12 <= len(codestream) and codestream[at : at + 2] == bytes((0xFF, _TILE_PART)):
        length = struct.unpack_from(">I", codestream, at + 6)[0]
        if length < 12:  # 0 means up to the end
            return True
        at += length
    return at is not None and at <= len(codestream)


def jpeg_size(codestream: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and components from the start-of-frame segment of JPEG or JPEG-LS, or None."""
    at = _start_of_frame(codestream)
    if at is None:
        return None
    rows, columns, components = struct.unpack_from(">HHB", codestream, at + 5)
    return rows, columns, components


def _start_of_frame(codestream: bytes) -> int | None:
    """Return the position of the start-of-frame segment of JPEG or JPEG-LS (ISO 10918-1 B.2.2), or None."""
    at = _segment(codestream, _FRAMES)
    return at if at is not None and at + 10 <= len(codestream) else None


def _segment(codestream: bytes, markers: Collection[int]) -> int | None:
    """Return the position of the first segment with one of the `markers` (second bytes); None if there is none.

    JPEG, JPEG-LS and JPEG 2000 begin alike: a marker alone, then marker segments with their lengths.
    """
    at = 2 if codestream.startswith(_JPEG_BEGINNING) else max(codestream.find(_JPEG_2000_BEGINNING), 0) + 2
    for _ in range(_MAX_SEGMENTS):
        while codestream[at : at + 2] == b"\xff\xff":  # fill bytes may precede a marker
            at += 1
        if at + 4 > len(codestream) or codestream[at] != 0xFF:
            break
        if codestream[at + 1] in markers:
            return at
        at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    return None


def begins_codestream(data: bytes) -> bool:
    """Return whether data (at least 8 bytes) begin as a codestream and not as a table of offsets."""
    return data.startswith((_JPEG_BEGINNING, _JPEG_2000_BEGINNING, *_RLE_BEGINNINGS)) or data[4:8] == _BOXES


def syntax_of(codestream: bytes) -> str | None:
    """Return the transfer syntax that the codestream itself shows, or None."""
    start = codestream.find(_JPEG_2000_BEGINNING, 0, 1 << 10)  # boxes of a JP2 file may come before it
    if start == 0 or (start > 0 and codestream[4:8] == _BOXES):
        capabilities = int.from_bytes(codestream[start + 6 : start + 8], "big")
        if capabilities & 0x4000:  # part 15, high throughput (ISO 15444-15 A.2)
            return HTJ2K[0] if _is_reversible(codestream) else HTJ2K[2]
        return JPEG_2000[0] if _is_reversible(codestream) else JPEG_2000[1]
    if codestream[:3] == _JPEG_BEGINNING:
        at = _start_of_frame(codestream)
        processes = {0xC0: JPEG[0], 0xC1: JPEG[1], 0xC3: JPEG[2], 0xF7: JPEG_LS[0 if _is_near_zero(codestream) else 1]}
        return None if at is None else processes.get(codestream[at + 1])
    if len(codestream) >= _RLE_HEADER_BYTES:
        count, *offsets = struct.unpack_from("<16I", codestream)
        used = offsets[:count] if 1 <= count <= _MAX_RLE_SEGMENTS else []
        if used and used[0] == _RLE_HEADER_BYTES and used == sorted(used) and used[-1] < len(codestream):
            return None if any(offsets[count:]) else RLE
    return None


def coded_bits(codestream: bytes, syntax: str) -> int | None:
    """Return the bits of a pixel in a codestream of JPEG, JPEG-LS or JPEG 2000; more than the stored bits may be."""
    if syntax in JPEG + JPEG_LS:
        at = _start_of_frame(codestream)
        return None if at is None else codestream[at + 4]
    start = codestream.find(_JPEG_2000_BEGINNING)
    return None if start < 0 or len(codestream) < start + 43 else (codestream[start + 42] & 0x7F) + 1


def is_lossless(codestream: bytes, syntax: str, stated: bool = False) -> bool:
    """Return whether decoding gives exactly the pixels that were encoded.

    JPEG and JPEG-LS state this themselves. A reversible JPEG 2000 codestream may have been cut to a size; there the
    transfer syntax or the header (`stated`) decides.
    """
    if syntax in JPEG:
        at = _start_of_frame(codestream)
        return at is not None and codestream[at + 1] == 0xC3
    if syntax in JPEG_LS:
        return _is_near_zero(codestream)
    return syntax in (RLE, JPEG_2000[0], *HTJ2K[:2]) or (stated and _is_reversible(codestream))


def _is_near_zero(codestream: bytes) -> bool:
    """Return whether a JPEG-LS codestream is lossless (NEAR of its first scan is 0, ISO 14495-1 C.2.3)."""
    at = _segment(codestream, (_SCAN,))
    near = None if at is None else at + 5 + 2 * int.from_bytes(codestream[at + 4 : at + 5], "big")
    return near is not None and codestream[near : near + 1] == b"\0"


def _is_reversible(codestream: bytes) -> bool:
    """Return whether a JPEG 2000 codestream uses the reversible wavelet (ISO 15444-1 A.6.1)."""
    at = _segment(codestream, (_CODING_STYLE,))
    return at is not None and codestream[at + 13 : at + 14] == b"\1"
