"""Compressed transfer syntaxes, and what a codestream says of itself, read before any decoder sees it."""

from __future__ import annotations

import struct

from spinescore.runtime.reading.pixels import PixelFormat, corrupt

__all__ = [
    "HTJ2K",
    "JPEG",
    "JPEG_2000",
    "JPEG_LS",
    "RLE",
    "Coding",
    "begins_codestream",
    "check_codestream",
    "coded_bits",
    "family",
    "is_lossless",
    "jpeg_size",
    "lossless_coding",
    "syntax_of",
]

# Marker segments in their order: the marker, and what the segment says of the way in which the image is coded.
Coding = tuple[tuple[int, bytes], ...]

RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{process}" for process in (50, 51, 57, 70))  # baseline, extended, lossless
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")

_FAMILIES = (JPEG, JPEG_LS, JPEG_2000, HTJ2K, (RLE,))

_JPEG_BEGINNING, _JPEG_2000_BEGINNING = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_BOXES = b"jP  "  # of a JP2 file, after four bytes
_RLE_HEADER_BYTES, _MAX_RLE_SEGMENTS = 64, 2  # a byte of each pixel makes a segment, and pixels have 8 or 16 bits
_RLE_BEGINNINGS = tuple(struct.pack("<2I", count + 1, _RLE_HEADER_BYTES) for count in range(_MAX_RLE_SEGMENTS))
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike; only padding may follow
_SLACK_BYTES = 1 << 20
_MAX_SEGMENTS = 64  # that a codestream may begin with, for its coding to be told


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
    start = frame.find(_JPEG_2000_BEGINNING)
    if frame.count(_JPEG_2000_BEGINNING) != 1 or len(frame) < start + 42:
        return None
    right, bottom, left, top, width, height, tile_left, tile_top = struct.unpack_from(">8I", frame, start + 8)
    if not (tile_left <= left < tile_left + width and tile_top <= top < tile_top + height):
        return None
    return bottom - top, right - left, struct.unpack_from(">H", frame, start + 40)[0]


def jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components from the start-of-frame segment of JPEG or JPEG-LS."""
    at = _start_of_frame(frame)
    if at is None:
        return None
    rows, columns, components = struct.unpack_from(">HHB", frame, at + 5)
    return rows, columns, components


def _start_of_frame(frame: bytes) -> int | None:
    """Where the start-of-frame segment of JPEG or JPEG-LS begins (ISO 10918-1 B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return at
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def family(syntax: str) -> tuple[str, ...]:
    """The transfer syntaxes whose codestreams the same decoders read; empty for one that is not known here."""
    return next((syntaxes for syntaxes in _FAMILIES if syntax in syntaxes), ())


def begins_codestream(data: bytes) -> bool:
    """Whether data, at least 8 bytes of them, begin as a codestream does, and not as a table of offsets."""
    return data.startswith((_JPEG_BEGINNING, _JPEG_2000_BEGINNING, *_RLE_BEGINNINGS)) or data[4:8] == _BOXES


def syntax_of(frame: bytes) -> str | None:
    """The transfer syntax that a codestream itself tells, or None."""
    start = frame.find(_JPEG_2000_BEGINNING, 0, 1 << 10)  # boxes of a JP2 file may come before it
    if start == 0 or (start > 0 and frame[4:8] == _BOXES):
        capabilities = int.from_bytes(frame[start + 6 : start + 8], "big")
        if capabilities & 0x4000:  # part 15, high throughput (ISO 15444-15 A.2)
            return HTJ2K[0] if _is_reversible(frame[start:]) else HTJ2K[2]
        return JPEG_2000[0] if _is_reversible(frame[start:]) else JPEG_2000[1]
    if frame[:3] == _JPEG_BEGINNING:
        at = _start_of_frame(frame)
        processes = {0xC0: JPEG[0], 0xC1: JPEG[1], 0xC3: JPEG[2], 0xF7: JPEG_LS[0 if is_near_zero(frame) else 1]}
        return None if at is None else processes.get(frame[at + 1])
    if len(frame) >= _RLE_HEADER_BYTES:
        count, *offsets = struct.unpack_from("<16I", frame)
        used = offsets[:count] if 1 <= count <= _MAX_RLE_SEGMENTS else []
        if used and used[0] == _RLE_HEADER_BYTES and used == sorted(used) and used[-1] < len(frame):
            return None if any(offsets[count:]) else RLE
    return None


def coded_bits(frame: bytes, syntax: str) -> int | None:
    """Bits of a pixel in a codestream of JPEG, JPEG-LS or JPEG 2000, which may be more than are stored."""
    if syntax in JPEG + JPEG_LS:
        at = _start_of_frame(frame)
        return None if at is None else frame[at + 4]
    start = frame.find(_JPEG_2000_BEGINNING)
    return None if start < 0 or len(frame) < start + 43 else (frame[start + 42] & 0x7F) + 1


def is_lossless(frame: bytes, syntax: str, stated: bool = False) -> bool:
    """Whether the pixels come out of a codestream as they went into it.

    JPEG and JPEG-LS say so themselves. A reversible JPEG 2000 codestream may have been cut to a size: the syntax says,
    or the header (`stated`).
    """
    if syntax in JPEG:
        at = _start_of_frame(frame)
        return at is not None and frame[at + 1] == 0xC3
    if syntax in JPEG_LS:
        return is_near_zero(frame)
    return syntax in (RLE, JPEG_2000[0], *HTJ2K[:2]) or (
        stated and _is_reversible(frame[max(frame.find(_JPEG_2000_BEGINNING), 0) :])
    )


def is_near_zero(frame: bytes) -> bool:
    """Whether a JPEG-LS codestream allows no difference (NEAR of its first scan, ISO 14495-1 C.2.3)."""
    try:
        scan = next((body for marker, body in _segments(frame, end=0xFFDA) if marker == 0xFFDA), b"")
        return len(scan) >= 3 and scan[1 + 2 * scan[0]] == 0
    except (struct.error, IndexError):
        return False


def _is_reversible(frame: bytes) -> bool:
    """Whether a JPEG 2000 codestream has the reversible wavelet (ISO 15444-1 A.6.1)."""
    try:
        return dict(_segments(frame, end=0xFF52))[0xFF52][9] == 1
    except (struct.error, IndexError):
        return False


def lossless_coding(frame: bytes, syntax: str) -> Coding | None:
    """How a lossless codestream of JPEG or JPEG 2000 is coded, the same for images that one encoder wrote alike.

    Left out is what differs among these: their size, Huffman tables, lengths and comments. None for what is lossy, for
    other families (HTJ2K among them), signed pixels of JPEG 2000, a codestream in boxes, and headers without sense.
    """
    try:
        return _jpeg_coding(frame) if syntax in JPEG else _jpeg_2000_coding(frame) if syntax in JPEG_2000 else None
    except (struct.error, IndexError):
        return None


def _segments(frame: bytes, end: int) -> list[tuple[int, bytes]]:
    """The marker segments after the first marker, up to and with the marker `end`."""
    at = 2
    found: list[tuple[int, bytes]] = []
    while len(found) < _MAX_SEGMENTS:
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker < 0xFF01 or marker == 0xFFFF:  # fill bytes are for other decoders
            break
        found.append((marker, frame[at + 4 : at + 2 + length]))
        if marker == end:
            return found
        at += 2 + length
    raise IndexError("no such marker")


def _jpeg_coding(frame: bytes) -> Coding | None:
    """Of ISO 10918-1 process 14 (SOF3): precision, sampling, predictor, point transform, and the order of segments."""
    found: list[tuple[int, bytes]] = []
    for marker, body in _segments(frame, end=0xFFDA):
        if 0xFFE0 <= marker <= 0xFFEF or marker == 0xFFFE:  # application data, comments
            continue
        if marker == 0xFFC3:
            body = body[:1] + body[5:]  # without the size
        elif marker == 0xFFC4:
            body = b""
        elif marker == 0xFFDD:  # a restart interval may follow from the size
            body = bytes([any(body)])
        found.append((marker, body))
    return tuple(found) if 0xFFC3 in dict(found) else None


def _jpeg_2000_coding(frame: bytes) -> Coding | None:
    """Of ISO 15444-1 with the reversible wavelet: the main header and that of the first tile-part."""
    siz, cod, cap = 0xFF51, 0xFF52, 0xFF50
    found: list[tuple[int, bytes]] = []
    for marker, body in _segments(frame, end=0xFF93):
        if marker == 0xFF64:  # a comment
            continue
        if marker == siz:
            places = struct.unpack_from(">8I", body, 2)
            tiled = places[4] < places[0] - places[6] or places[5] < places[1] - places[7]
            body = body[:2] + bytes([tiled, any(places[2:4] + places[6:])]) + body[34:]
        elif marker in (0xFF55, 0xFF57, 0xFF58, 0xFF60, 0xFF61, 0xFF90, 0xFF93):  # lengths, packet headers, data
            body = b""
        found.append((marker, body))
    said = dict(found)
    if cap in said or siz not in said or cod not in said or said[cod][9] != 1 or said[siz][6] & 0x80:
        return None
    return tuple(found)
