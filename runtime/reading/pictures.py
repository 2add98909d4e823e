"""PNG and JPEG files as radiographs, for research. No header describes them, so each one gets a warning.

The size in the file's header is checked before OpenCV decodes it. EXIF orientation is ignored.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.arrays import radiograph_from_array
from spinescore.runtime.reading.decoding.codestreams import jpeg_size
from spinescore.runtime.reading.dicomfile import bytes_left
from spinescore.runtime.reading.pixelformat import corrupt
from spinescore.runtime.study import Radiograph

__all__ = ["picture_kind", "read_picture"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MAX_BYTES = 256 << 20


def picture_kind(head: bytes) -> str | None:
    """Return `PNG` or `JPEG`, by the file's first bytes, or None."""
    return "PNG" if head.startswith(_PNG) else "JPEG" if head.startswith(_JPEG) else None


def read_picture(
    file: BinaryIO, kind: str, source: str, max_pixels: int, header_only: bool = False
) -> Radiograph | int:
    """Read one grey picture of 8 or 16 bits; larger values are brighter, region and facing are unknown.

    8-bit pixels are shown unchanged; the contrast of 16-bit pixels is taken from the pixels. With `header_only`
    the picture is not decoded, and the bytes are returned that it would take. Raises InputRejected: too-large,
    corrupt-pixels, not-radiograph (colour, unless all channels are equal).
    """
    size = bytes_left(file)
    if size > _MAX_BYTES:
        text = f"{source} has {size} bytes, the limit for a {kind} picture is {_MAX_BYTES}; give a smaller one"
        raise InputRejected("too-large", text)
    data = file.read(size)
    declared = _png_size(data) if kind == "PNG" else jpeg_size(data)
    if declared is None or min(declared[:2]) < 1:
        raise corrupt(source, f"is a {kind} picture without a readable size")
    rows, columns, pixel_bytes = declared
    if rows * columns * max(1, pixel_bytes / 2) > max_pixels:  # colour and alpha take memory as well
        declared_size = f"{rows} x {columns} pixels of {pixel_bytes} bytes"
        text = f"{source} declares {declared_size}, the limit is {max_pixels} of 2 bytes; give a smaller picture"
        raise InputRejected("too-large", text)
    if header_only:
        return rows * columns * pixel_bytes
    pixels = _decoded(data, source, kind)
    if pixels.shape != (rows, columns):
        raise corrupt(source, f"declares {rows} x {columns} pixels and holds {pixels.shape}")
    text = (
        f"{source} is a {kind} picture, not DICOM, and was read for research: nothing states its patient, region, "
        "spacing or grey scale"
    )
    warning = notice("research-picture", text, source=source, format=kind)
    return replace(radiograph_from_array(pixels), decoder="opencv", source=source, warnings=(warning,))


def _png_size(data: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and bytes of a decoded pixel, from the IHDR chunk (ISO 15948, 11.2.2), or None."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    columns, rows, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return rows, columns, max(1, bits // 8) * {0: 1, 2: 3}.get(colour, 4)


def _decoded(data: bytes, source: str, kind: str) -> NDArray[np.unsignedinteger]:
    import cv2

    complete = b"IEND" in data[-64:] if kind == "PNG" else data.rstrip(b"\0\xff").endswith(b"\xff\xd9")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if complete else None
    except cv2.error:
        picture = None
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise corrupt(source, f"is a {kind} picture that cannot be decoded, or is cut short")
    return _grey(cast("NDArray[np.unsignedinteger]", picture), source)


def _grey(picture: NDArray[np.unsignedinteger], source: str) -> NDArray[np.unsignedinteger]:
    """Return the one channel of a grey picture, even if it was saved as colour or with an opaque alpha channel."""
    if picture.ndim == 2:
        return picture
    colours, alpha = picture[..., :3], picture[..., 3:]
    if (colours != colours[..., :1]).any() or (alpha != np.iinfo(picture.dtype).max).any():
        raise InputRejected("not-radiograph", f"{source} is a colour picture; give the grey one, or the DICOM file")
    return np.ascontiguousarray(colours[..., 0])
