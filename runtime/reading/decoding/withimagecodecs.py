"""Codecs of imagecodecs, named as in `imagecodecs.jpeg8`."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["PREFIX", "decode", "is_available"]

PREFIX = "imagecodecs."
_JPEG_2000_THREADS = 4


def is_available(codec: str, syntax: str) -> bool:
    """Return whether the installed imagecodecs was built with this codec (older ones have no htj2k)."""
    if find_spec("imagecodecs") is None:
        return False
    import imagecodecs

    return bool(getattr(getattr(imagecodecs, codec.removeprefix(PREFIX).upper(), None), "available", False))


def decode(codec: str, codestream: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
    """Decode one codestream; raises any exception of the codec."""
    import imagecodecs

    name = codec.removeprefix(PREFIX)
    options = {"numthreads": min(_JPEG_2000_THREADS, os.cpu_count() or 1)} if name == "jpeg2k" else {}
    pixels: NDArray[np.integer] = getattr(imagecodecs, f"{name}_decode")(codestream, **options)
    return pixels
