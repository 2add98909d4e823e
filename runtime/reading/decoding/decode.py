"""Compressed pixels to stored values: which codec decodes them, in which process, and the checks before and after.

The size that a codestream states is compared with the header before any codec sees it. Then the installed codecs are
tried in the order of the table (`syntaxes`). They run in worker processes (`pool`), so that a codec that crashes, hangs
or eats memory ends its worker only.

Images are decoded in this process instead, without a time limit,
- if the environment variable SPINESCORE_DECODE_IN_PROCESS is set (to anything but 0), for applications that have their
  own sandbox;
- in a frozen application that did not call `spinescore.runtime.freeze_support`, and in one that embeds Python and
  names no Python interpreter (`sys.executable`, or the one that `multiprocessing.set_executable` set): to start either
  would run the application a second time;
- if no worker can be started.
A codec that crashes then ends the process.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.machine.processes import can_start
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.decoding.codecs import DecoderFailed, installed, run_codec
from spinescore.runtime.reading.decoding.codestreams import (
    END_OF_IMAGE,
    check_codestream,
    coded_bits,
    is_lossless,
    syntax_of,
)
from spinescore.runtime.reading.decoding.encapsulation import codestream_in
from spinescore.runtime.reading.decoding.pool import DecoderLost, Pool
from spinescore.runtime.reading.decoding.syntaxes import JPEG, JPEG_LS, RLE, SYNTAXES, UNCOMPRESSED, family_of
from spinescore.runtime.reading.pixelformat import PixelFormat, corrupt
from spinescore.runtime.reading.storedvalues import stored_values

__all__ = [
    "IN_PROCESS_VARIABLE",
    "TIMEOUT_VARIABLE",
    "decode_pixels",
    "in_process",
    "run_apart",
    "time_limit_s",
    "unsupported",
]

IN_PROCESS_VARIABLE = "SPINESCORE_DECODE_IN_PROCESS"
TIMEOUT_VARIABLE = "SPINESCORE_DECODE_TIMEOUT_S"
DEFAULT_TIMEOUT_S = 5.0
_MISSING_ROWS = 32  # a missing part of less than one in so many rows is not looked for
_FILLING = bytes(range(1, 255)) * 4  # no 0xFF, which would begin a marker


def decode_pixels(
    data: bytes, declared: PixelFormat, stated_syntax: str | None, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    """Return the stored values (rows x columns) of encapsulated pixels, and the codec's name.

    If a codec fails, the next one is tried. `stated_syntax` is the transfer syntax that the file names; a codestream of
    another family is read by its own. Raises InputRejected: corrupt-pixels or unsupported-syntax.
    """
    codestream = codestream_in(data, source)
    syntax = _syntax(codestream, stated_syntax, source, notes)
    check_codestream(codestream, declared, syntax, source)
    faults: list[str] = []
    for codec in installed(syntax):
        try:
            pixels = run_apart(codec, codestream, syntax, declared)
        except DecoderLost as fault:
            raise corrupt(source, f"has compressed pixels that {fault}") from None
        except DecoderFailed as fault:
            faults.append(f"{codec}: {fault}")
            READING.debug("decoder %s failed on an image of transfer syntax %s; the next one is tried", codec, syntax)
            continue
        READING.debug("%d x %d pixels of %s decoded by %s", *pixels.shape[:2], syntax, codec)
        if syntax in JPEG and _ran_out(codec, codestream, syntax, declared, pixels):
            raise corrupt(source, "has a compressed image of which a part is missing")
        return _within_range(pixels, declared, codestream, syntax, source, notes), codec
    if not faults:
        raise unsupported(source, syntax)
    raise corrupt(source, f"has pixels that no decoder could read ({'; '.join(faults)})")


def run_apart(
    codec: str, codestream: bytes, syntax: str, declared: PixelFormat, timeout_s: float | None = None
) -> NDArray[np.integer]:
    """Run a codec in a worker process, or in this process if there is no worker; returns its pixels.

    A worker has `timeout_s` seconds, by default `time_limit_s()`. Raises DecoderLost if the codec crashes or takes too
    long, DecoderFailed if it reports an error.
    """
    if not in_process():
        try:
            return Pool.of_this_process().decode(codec, codestream, syntax, declared, timeout_s or time_limit_s())
        except OSError:  # the system starts no process
            Pool.of_this_process().broken = True
            READING.debug("no worker process can be started: images are decoded in this process from now on")
    return run_codec(codec, codestream, syntax, declared)


def _ran_out(codec: str, codestream: bytes, syntax: str, declared: PixelFormat, pixels: NDArray[np.integer]) -> bool:
    """Return whether a JPEG codestream ended before its last rows.

    The codec says nothing then, and repeats the last grey up to the last pixel, as in the black frame of many
    radiographs. With more bytes before the end of the image it fills in other greys; of a codestream that is whole
    it never reads them.
    """
    if np.ptp(pixels[-max(1, len(pixels) // _MISSING_ROWS) :]):
        return False
    end = codestream.rindex(END_OF_IMAGE)
    try:
        filled = run_apart(codec, codestream[:end] + _FILLING + codestream[end:], syntax, declared)
    except (DecoderFailed, DecoderLost):
        return True
    return not np.array_equal(filled, pixels)


def in_process() -> bool:
    """Return whether images are decoded in this process; the module's docstring lists the reasons."""
    requested = os.environ.get(IN_PROCESS_VARIABLE, "") not in ("", "0")
    return requested or not can_start() or Pool.of_this_process().broken


def time_limit_s() -> float:
    """Return the seconds that an image may take: SPINESCORE_DECODE_TIMEOUT_S if it is a positive number, else 5."""
    try:
        stated_s = float(os.environ.get(TIMEOUT_VARIABLE, ""))
    except ValueError:
        return DEFAULT_TIMEOUT_S
    return stated_s if 0 < stated_s < float("inf") else DEFAULT_TIMEOUT_S


def unsupported(source: str, syntax: str | None) -> InputRejected:
    """Return the reject of a file whose transfer syntax cannot be read on this machine."""
    if syntax in SYNTAXES:
        advice = 'install the decoders with `pip install "spinescore[dicom]"`'
    else:
        advice = "have the modality or the archive send it again as Explicit VR Little Endian"
    if syntax in UNCOMPRESSED:
        fault = f"{source} holds compressed pixels of an unknown kind, and its header names {_in_words(syntax)}"
    else:
        fault = f"no decoder here reads {source}, which names {_in_words(syntax)}"
    return InputRejected("unsupported-syntax", f"{fault}; {advice}")


def _in_words(syntax: str | None) -> str:
    """Return a transfer syntax with its name. Any other text is not quoted, because it comes from the file."""
    from pydicom.uid import UID

    uid = UID(syntax or "")
    if not uid.is_valid or not uid:
        return "no known transfer syntax"
    return f"the transfer syntax {uid.name}" + (f" ({uid})" if uid.name != uid else "")


def _syntax(codestream: bytes, stated: str | None, source: str, notes: list[str]) -> str:
    """Return the transfer syntax to decode with: the stated one, unless the codestream is of another family."""
    from pydicom.uid import UID

    actual = syntax_of(codestream)
    if stated in SYNTAXES and (actual is None or actual in family_of(stated)):
        return stated
    if actual is None:
        raise unsupported(source, stated)
    text = f"the file names {_in_words(stated)}, but its pixels are {UID(actual).name}; they were read as that"
    notes.append(notice("syntax-contradicts", text, pixels=actual))
    return actual


def _within_range(
    pixels: NDArray[np.integer], declared: PixelFormat, codestream: bytes, syntax: str, source: str, notes: list[str]
) -> NDArray[np.integer]:
    """Return decoded values as stored values: signs restored, unused bits dropped, overshoot of lossy codecs clamped.

    A lossless codestream with more bits than are stored keeps whole words, and thus the content of the unused bits.
    JPEG and JPEG-LS code signed values as their bit patterns. JPEG 2000 states the sign in the codestream, and may
    contradict the header.
    """
    if pixels.dtype.itemsize * 8 < declared.bits_stored:
        pixels = pixels.astype(f"{pixels.dtype.kind}2")
    pixels = np.require(pixels, requirements=("C", "W"))
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    coded = None if syntax == RLE else coded_bits(codestream, syntax)
    lossless = is_lossless(codestream, syntax, stated=declared.lossy is False)
    if declared.lossy and declared.high_bit == declared.bits_stored - 1:
        lossless = False  # coded anew without loss, together with the overshoot of an earlier codec
    if syntax == RLE or (lossless and coded is not None and coded > declared.high_bit):
        return stored_values(unsigned, declared, source, notes)
    by_pattern = declared.signed != (pixels.dtype.kind == "i") or (declared.signed and syntax in JPEG + JPEG_LS)
    if lossless or by_pattern:
        return stored_values(unsigned, replace(declared, high_bit=declared.bits_stored - 1), source, notes)
    if declared.bits_stored < pixels.dtype.itemsize * 8:
        low, high = declared.stored_min, declared.stored_max
        if int(pixels.max()) > high or int(pixels.min()) < low:
            text = f"decoded values beyond the declared range {low} to {high} were clamped to it"
            notes.append(notice("values-clamped", text, low=low, high=high))
            np.clip(pixels, low, high, out=pixels)
    return pixels
