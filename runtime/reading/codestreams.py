"""Compressed transfer syntaxes, and what a codestream says of itself, read before any decoder sees it."""

from __future__ import annotations

import struct

from spinescore.runtime.reading.pixels import PixelFormat, corrupt

__all__ = ["HTJ2K", "JPEG", "JPEG_2000", "JPEG_LS", "RLE", "check_codestream", "jpeg_size"]

RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{process}" for process in (50, 51, 57, 70))  # baseline, extended, lossless
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")

_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike; only padding may follow
_SLACK_BYTES = 1 << 20


def check_codestream(frame: bytes, declared: PixelFormat, syntax: str, source: str) -> None:
    """Refuse a codestream that is cut short, or of another size than the header's, before a decoder sees it.

    Some decoders fill up what is missing with grey, and CharLS searches for seconds.
    """
    if syntax == RLE:
        if len(frame) > declared.byte_count + declared.byte_count // 64 + _SLACK_BYTES:
            raise corrupt(source, f"has {len(frame)} bytes of RLE for {declared.byte_count} uncompressed ones")
        return
    size = _jpeg_2000_size(frame) if syntax in JPEG_2000 + HTJ2K else jpeg_size(frame)
    if size != (declared.rows, declared.columns, 1):
        found = "no readable size" if size is None else f"{size[0]} x {size[1]} pixels of {size[2]} samples"
        raise corrupt(source, f"declares {declared.rows} x {declared.columns} pixels, its compressed image {found}")
    if not frame.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):  # devices pad with either
        raise corrupt(source, "has a compressed image that is cut short")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components from the SIZ segment (ISO 15444-1 A.5.1); a JP2 box may come before it.

    With a second beginning of a codestream it would be unknown which of them the decoder takes. The first tile must
    hold the image's first pixel (B.3, equations B-3 and B-4): OpenJPH does not come to an end where it does not.
    """
    beginning = b"\xff\x4f\xff\x51"
    start = frame.find(beginning)
    if frame.count(beginning) != 1 or len(frame) < start + 42:
        return None
    right, bottom, left, top, width, height, tile_left, tile_top = struct.unpack_from(">8I", frame, start + 8)
    if not (tile_left <= left < tile_left + width and tile_top <= top < tile_top + height):
        return None
    return bottom - top, right - left, struct.unpack_from(">H", frame, start + 40)[0]


def jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components from the start-of-frame segment of JPEG or JPEG-LS (ISO 10918-1 B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, components = struct.unpack_from(">HHB", frame, at + 5)
            return rows, columns, components
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None
