"""Words of a file to stored values: unused bits are dropped, and the bits that the header states are checked.

A header that states too few bits, the wrong sign or the wrong high bit makes another picture of sound pixels: dark, or
torn at every place where the values pass an end of the stated range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["stored_values", "without_unused_bits"]

Words = NDArray[np.unsignedinteger]

_ROWS = 256  # of a picture that are looked at
_JUMP, _STEP = 0.75, 0.25  # of the stated range: a torn pair of neighbours, and the same pair in the right reading
_LEAST_PAIRS, _LEAST_SHARE = 16, 1e-4  # of torn pairs
_TEXT_GREYS = 2  # of text that is burned in, whose edges are no tears
_LEAST_TORN = 0.2  # of the pairs, without those that may be text
_CONTINUED = 0.9  # of the torn pairs must be steps in the other reading


def stored_values(words: Words, declared: PixelFormat, source: str, notes: list[str]) -> NDArray[np.integer]:
    """Return words (rows x columns) as stored values; works in place.

    If the stated high bit would leave out bits that vary while nothing is stored in the bits above, the values are
    read from the lowest bit, with a note. Raises InputRejected (corrupt-pixels) if the stated bits tear the picture.
    """
    below = declared.high_bit + 1 - declared.bits_stored
    if below and int(words.max()) >> declared.bits_stored == 0 and np.ptp(words & words.dtype.type((1 << below) - 1)):
        declared = replace(declared, high_bit=declared.bits_stored - 1)
        text = f"the header's High Bit is {declared.high_bit + below}, but the pixels lie in the lowest "
        text += f"{declared.bits_stored} bits; they were read from there"
        notes.append(notice("header-contradicts", text, about="high bit"))
    if _is_torn(words, declared):
        raise InputRejected(
            "corrupt-pixels",
            f"{source} has pixels that do not fit its header: as {'signed' if declared.signed else 'unsigned'} values "
            f"of {declared.bits_stored} bits, neighbours jump from one end of the range to the other; have Bits Stored "
            "and Pixel Representation corrected at the modality, and send the image again",
        )
    return without_unused_bits(words, declared)


def _is_torn(words: Words, declared: PixelFormat) -> bool:
    """Return whether neighbours jump from end to end of the stated range, and are near in more bits or another sign."""
    sample = np.ascontiguousarray(words[:: max(1, len(words) // _ROWS)])
    if not declared.signed and int(sample.max()) >> (declared.high_bit + 1) == 0:
        return False
    stated = without_unused_bits(sample.copy(), declared).astype(np.int32)
    jumps = np.abs(np.diff(stated)) > _JUMP * (1 << declared.bits_stored)
    if np.count_nonzero(jumps) < max(_LEAST_PAIRS, _LEAST_SHARE * jumps.size):
        return False
    pairs = np.sort([stated[:, :-1][jumps], stated[:, 1:][jumps]], axis=0)
    drawn = np.zeros(pairs.shape[1], bool)
    for side in pairs:
        values, counts = np.unique(side, return_counts=True)
        drawn |= np.isin(side, values[np.argsort(counts)[-_TEXT_GREYS:]])
    if np.count_nonzero(~drawn) < max(_LEAST_PAIRS, _LEAST_TORN * drawn.size):
        return False
    whole = sample >> (declared.high_bit + 1 - declared.bits_stored)
    readings = (whole & ((1 << declared.bits_stored) - 1), whole, whole.view(f"i{whole.dtype.itemsize}"))
    steps = (np.abs(np.diff(reading.astype(np.int32))[jumps]) for reading in readings)
    return any(float(np.mean(step < _STEP * (1 << declared.bits_stored))) >= _CONTINUED for step in steps)


def without_unused_bits(raw: NDArray[np.unsignedinteger], declared: PixelFormat) -> NDArray[np.integer]:
    """Return stored values: the bits outside the stored ones are dropped, the sign is extended. Works in place.

    The unused bits may hold overlays.
    """
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
