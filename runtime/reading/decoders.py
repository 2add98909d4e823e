"""Decoders of compressed pixels: which one reads which transfer syntax, and the checks around them.

A decoder is a codec of imagecodecs (`imagecodecs.jpeg8`) or one of pydicom's plugins (`pylibjpeg`); reports name it.
A codestream's own size is compared with the header before any decoder sees it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.codestreams import (
    HTJ2K,
    JPEG,
    JPEG_2000,
    JPEG_LS,
    RLE,
    begins_codestream,
    check_codestream,
    coded_bits,
    family,
    is_lossless,
    syntax_of,
)
from spinescore.runtime.reading.decodeworker import DecoderFailed
from spinescore.runtime.reading.dicomfile import brief
from spinescore.runtime.reading.pixels import UNCOMPRESSED, PixelFormat, corrupt, without_unused_bits

__all__ = [
    "decoded",
    "holds_codestream",
    "installed",
    "is_compressed",
    "payload",
    "prepare",
    "run_decoder",
    "unsupported",
]

_JPEG_2000_THREADS = 4
_ITEM, _NO_MORE_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_MAX_FRAGMENTS, _MAX_OFFSETS_BYTES = 1 << 16, 1 << 12

# The fastest first (benchmarks/results/decode-epyc-*.json), of those that turn a corrupt codestream into an error.
# Left out, because a corrupt codestream ends their process: gdcm (python-gdcm 3.2.6, every syntax; its binding lets C++
# exceptions through), and dicomrle, ljpeg and jpegsof3 of imagecodecs 2026.3.6. jpeg8 is libjpeg-turbo, htj2k OpenJPH.
_PREFERENCE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(JPEG, ("imagecodecs.jpeg8",)),  # 8 and 12 bits, and lossless with all predictors
    **dict.fromkeys(JPEG_LS, ("imagecodecs.jpegls", "pyjpegls")),
    **dict.fromkeys(JPEG_2000, ("imagecodecs.jpeg2k", "pylibjpeg")),
    **dict.fromkeys(HTJ2K, ("imagecodecs.htj2k", "imagecodecs.jpeg2k", "pylibjpeg")),
    RLE: ("pylibjpeg", "pydicom"),
}
_CODECS = "imagecodecs."


def is_compressed(syntax: str | None) -> bool:
    """Whether the transfer syntax is one of those that the decoders here are for."""
    return syntax in _PREFERENCE


def unsupported(source: str, syntax: str | None) -> InputRejected:
    """The reject of a file whose transfer syntax cannot be read here, with what to do about it."""
    if syntax in _PREFERENCE:
        advice = 'install the decoders with `pip install "spinescore[dicom]"`'
    else:
        advice = "have the modality or the archive send it again as Explicit VR Little Endian"
    if syntax in UNCOMPRESSED:
        what = f"{source} holds compressed pixels of a kind that is not known here, and names {_named(syntax)}"
    else:
        what = f"no decoder here reads {source}, which names {_named(syntax)}"
    return InputRejected("unsupported-syntax", f"{what}; {advice}")


def _named(syntax: str | None) -> str:
    """A transfer syntax with its name; what a file has in place of one is not quoted."""
    from pydicom.uid import UID

    known = UID(syntax or "")
    if not known.is_valid or not known:
        return "no known transfer syntax"
    return f"the transfer syntax {known.name}" + (f" ({known})" if known.name != known else "")


def decoded(
    data: bytes, declared: PixelFormat, named: str | None, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    """Decode encapsulated pixels with the first decoder that can; the others are tried where it fails.

    `named` is the transfer syntax that the file names. A codestream of another family is read as what it is.
    """
    frame = _frame(data, source)
    syntax = _syntax(frame, named, source, notes)
    check_codestream(frame, declared, syntax, source)
    return _decoded(frame, declared, syntax, source, notes)


def holds_codestream(data: bytes) -> bool:
    """Whether pixel data begin with an item of compressed pixels, or with a codestream that is in no item."""
    return data[:4] == _ITEM or begins_codestream(data)


def _syntax(frame: bytes, named: str | None, source: str, notes: list[str]) -> str:
    """The transfer syntax to decode with: the file's, unless the codestream tells that it is of another family."""
    from pydicom.uid import UID

    told = syntax_of(frame)
    if named is not None and named in _PREFERENCE and (told is None or told in family(named)):
        return named
    if told is None:
        raise unsupported(source, named)
    text = f"the file names {_named(named)}, but its pixels are {UID(told).name}; they were read as that"
    notes.append(notice("syntax-contradicts", text, pixels=told))
    return told


def _decoded(
    frame: bytes, declared: PixelFormat, syntax: str, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    from spinescore.runtime.reading import decodepool  # the workers import this module

    faults: list[str] = []
    for name in installed(syntax):
        try:
            pixels = decodepool.decode(name, payload(name, frame), syntax, declared)
        except decodepool.DecoderLost as fault:
            raise corrupt(source, f"has compressed pixels that {fault}") from None
        except DecoderFailed as fault:
            faults.append(f"{name}: {fault}")
            READING.debug("decoder %s failed on an image of transfer syntax %s; the next one is tried", name, syntax)
            continue
        READING.debug("%d x %d pixels of %s decoded by %s", *pixels.shape[:2], syntax, name)
        return _within_range(pixels, declared, frame, syntax, notes), name
    if not faults:
        raise unsupported(source, syntax)
    raise corrupt(source, f"has pixels that no decoder could read ({'; '.join(faults)})")


def _frame(data: bytes, source: str) -> bytes:
    """The codestream of the one image: all fragments, whatever the offset table says (PS3.5 A.4).

    The table is the first item, but some devices leave it out. Pixels that are in no item are taken as they are.
    """
    if begins_codestream(data[:8]):
        return data
    at, parts = 0, []
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(slice(at + 8, at + 8 + length))
        at += 8 + length
        if len(parts) > _MAX_FRAGMENTS:
            raise corrupt(source, f"has its compressed image in more than {_MAX_FRAGMENTS} fragments")
    if not parts or at > len(data):
        raise corrupt(source, "has compressed pixels that cannot be taken apart")
    if len(parts) > 1 and not begins_codestream(data[parts[0].start : parts[0].start + 8]):
        offsets = parts.pop(0)
        if offsets.stop - offsets.start > _MAX_OFFSETS_BYTES:
            raise corrupt(
                source, f"has {offsets.stop - offsets.start} bytes of offsets for the one image that it holds"
            )
    return b"".join(data[part] for part in parts)


def installed(syntax: str) -> tuple[str, ...]:
    """The names of the decoders that are installed for a transfer syntax, best first."""
    from pydicom.pixels.decoders.base import get_decoder

    plugins = get_decoder(syntax).available_plugins
    return tuple(name for name in _PREFERENCE[syntax] if name in plugins or _has_codec(name))


def _has_codec(name: str) -> bool:
    """Whether `name` is a codec of imagecodecs that is in this build of it (older ones have no htj2k)."""
    if not name.startswith(_CODECS) or find_spec("imagecodecs") is None:
        return False
    import imagecodecs

    return bool(getattr(getattr(imagecodecs, name.removeprefix(_CODECS).upper(), None), "available", False))


def payload(name: str, frame: bytes) -> bytes:
    """What a decoder is given: the codestream, or, for pydicom's plugins, encapsulated pixel data."""
    if name.startswith(_CODECS):
        return frame
    even = frame + b"\0" * (len(frame) % 2)
    return b"".join((_ITEM, bytes(4), _ITEM, len(even).to_bytes(4, "little"), even, _NO_MORE_ITEMS))


def prepare(name: str, syntax: str) -> None:
    """Import what a decoder needs; on a busy machine that can take longer than decoding."""
    if name.startswith(_CODECS):
        import imagecodecs

        getattr(imagecodecs, f"{name.removeprefix(_CODECS)}_decode")
    else:
        from pydicom.pixels.decoders.base import get_decoder

        get_decoder(syntax)


def run_decoder(name: str, given: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
    """Decode here, in this process, what `payload` gives.

    Raises DecoderFailed for whatever a decoder raises, and for pixels that are not what was declared.
    """
    try:
        pixels = _pixels(name, given, syntax, declared)
        if pixels.shape != (declared.rows, declared.columns):
            raise ValueError(f"{pixels.shape} pixels instead of {(declared.rows, declared.columns)}")
        if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
            raise ValueError(f"{pixels.dtype} pixels")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:  # a panic of Rust is no Exception
        raise DecoderFailed(brief(fault)) from None
    return pixels


def _pixels(name: str, given: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
    return _imagecodecs(given, name) if name.startswith(_CODECS) else _plugin(given, name, syntax, declared)


def _imagecodecs(frame: bytes, name: str) -> NDArray[np.integer]:
    import imagecodecs

    codec = name.removeprefix(_CODECS)
    options = {"numthreads": min(_JPEG_2000_THREADS, os.cpu_count() or 1)} if codec == "jpeg2k" else {}
    pixels: NDArray[np.integer] = getattr(imagecodecs, f"{codec}_decode")(frame, **options)
    return pixels


def _plugin(data: bytes, plugin: str, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
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
        "correct_unused_bits": False,  # a lossy decoder's overshoot must be clamped, never masked
    }
    pixels, _ = get_decoder(syntax).as_array(data, index=0, raw=True, decoding_plugin=plugin, **options)
    return pixels


def _within_range(
    pixels: NDArray[np.integer], declared: PixelFormat, frame: bytes, syntax: str, notes: list[str]
) -> NDArray[np.integer]:
    """Decoded values as stored values: signs restored, unused bits dropped, what a lossy decoder overshoots clamped.

    A lossless codestream of more bits than are stored keeps the words as they were, with what the unused bits hold.
    JPEG and JPEG-LS code signed values as their bit patterns; JPEG 2000 says in the codestream which sign it has, and
    may contradict the header.
    """
    if pixels.dtype.itemsize * 8 < declared.bits_stored:
        pixels = pixels.astype(f"{pixels.dtype.kind}2")
    pixels = np.require(pixels, requirements=("C", "W"))
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    coded = None if syntax == RLE else coded_bits(frame, syntax)
    lossless = is_lossless(frame, syntax, stated=declared.lossy is False)
    if declared.lossy and declared.high_bit == declared.bits_stored - 1:
        lossless = False  # coded anew without loss, with what an earlier decoder overshot
    if syntax == RLE or (lossless and coded is not None and coded > declared.high_bit):
        return without_unused_bits(unsigned, declared)
    by_pattern = declared.signed != (pixels.dtype.kind == "i") or (declared.signed and syntax in JPEG + JPEG_LS)
    if lossless or by_pattern:
        return without_unused_bits(unsigned, replace(declared, high_bit=declared.bits_stored - 1))
    if declared.bits_stored < pixels.dtype.itemsize * 8:
        low, high = declared.stored_min, declared.stored_max
        if int(pixels.max()) > high or int(pixels.min()) < low:
            text = f"decoded values beyond the declared range {low} to {high} were clamped to it"
            notes.append(notice("values-clamped", text, low=low, high=high))
            np.clip(pixels, low, high, out=pixels)
    return pixels
