"""Codecs by name: which of them are installed, and how one is run in this process.

Each library has a module with the same two names, `is_available` and `decode`.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.decoding import withimagecodecs, withpydicom
from spinescore.runtime.reading.decoding.syntaxes import codecs_of
from spinescore.runtime.reading.pixelformat import PixelFormat
from spinescore.runtime.text import brief

__all__ = ["DecoderFailed", "installed", "is_available", "run_codec"]


class DecoderFailed(Exception):
    """The codec reports that it cannot decode. The message is its own error in one line."""


def installed(syntax: str) -> tuple[str, ...]:
    """Return the names of the codecs that are installed for a compressed transfer syntax, the preferred one first."""
    return tuple(codec for codec in codecs_of(syntax) if is_available(codec, syntax))


def is_available(codec: str, syntax: str) -> bool:
    """Return whether a codec is installed. This imports it, which on a busy machine can take longer than decoding."""
    return bool(_module(codec).is_available(codec, syntax))


def run_codec(codec: str, codestream: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
    """Decode a codestream in this process; returns rows x columns of at most 16 bits.

    Raises DecoderFailed for any error of the codec, and for pixels of another size or type than declared.
    """
    try:
        pixels: NDArray[np.integer] = _module(codec).decode(codec, codestream, syntax, declared)
        if pixels.shape != (declared.rows, declared.columns):
            raise ValueError(f"{pixels.shape} pixels instead of {(declared.rows, declared.columns)}")
        if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
            raise ValueError(f"{pixels.dtype} pixels")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:  # a panic in Rust is not an Exception
        raise DecoderFailed(brief(fault)) from None
    return pixels


def _module(codec: str) -> ModuleType:
    return withimagecodecs if codec.startswith(withimagecodecs.PREFIX) else withpydicom
