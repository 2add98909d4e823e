"""Tells whether a radiograph has the pixels that a report was made from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.scoring.report import RadiographInfo
from spinescore.runtime.study import Radiograph

__all__ = ["has_scored_pixels", "pixels_digest"]

_ROW_STEP = 32


def pixels_digest(pixels: NDArray[Any]) -> str:
    """Return 32 hexadecimal digits for stored pixels (H x W integers).

    It is BLAKE2b of the size, of every 32nd row and of the sum of all 8-byte words. A digest of all rows would take 16
    ms for 3000 x 2500 pixels; this takes about 1 ms. It tells pictures apart, but does not protect from forgery.
    """
    plain = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    flat = plain.reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    words = int(flat[:whole].view("<u8").sum(dtype=np.uint64)) + int(flat[whole:].sum(dtype=np.uint64))
    digest = hashlib.blake2b(f"{pixels.shape} {words % 2**64}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(plain[::_ROW_STEP]).data)
    return digest.hexdigest()


def has_scored_pixels(radiograph: Radiograph, info: RadiographInfo) -> bool:
    """Return False if the radiograph's pixels are not those of the report.

    True if that cannot be told: older reports have no digest, and another decoder may round lossy pixels otherwise.
    """
    if info.pixels_digest is None or info.decoder != radiograph.decoder:
        return True
    return pixels_digest(radiograph.pixels) == info.pixels_digest
