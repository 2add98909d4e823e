"""Decoding plugins of pydicom, named as pydicom names them: `pylibjpeg`, `pyjpegls`, `pydicom`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["decode", "is_available"]


def is_available(codec: str, syntax: str) -> bool:
    """Return whether the plugin is installed and reads this transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder

    return codec in get_decoder(syntax).available_plugins


def decode(codec: str, codestream: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
    """Decode one codestream; raises any exception of the plugin."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {
        "rows": declared.rows,
        "columns": declared.columns,
        "samples_per_pixel": 1,
        "bits_allocated": declared.bits_allocated,
        "bits_stored": declared.bits_stored,
        "pixel_representation": int(declared.signed),
        "photometric_interpretation": declared.photometric,
        "number_of_frames": 1,
        "correct_unused_bits": False,  # values that a lossy codec overshoots must be clamped, never masked
    }
    data = encapsulate([codestream], has_bot=False)
    pixels, _ = get_decoder(syntax).as_array(data, index=0, raw=True, decoding_plugin=codec, **options)
    return pixels
