"""Decoders of compressed pixels: which one reads which transfer syntax, and the checks around them.

A decoder is a codec of imagecodecs (`imagecodecs.jpeg8`) or one of pydicom's plugins (`pylibjpeg`); reports name it.
Before them comes nvImageCodec, on a GPU, for what `gpudecode` gives to it.
A codestream's own size is compared with the header before any decoder sees it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading import nvimagecodec
from spinescore.runtime.reading.codestreams import HTJ2K, JPEG, JPEG_2000, JPEG_LS, RLE, check_codestream
from spinescore.runtime.reading.decodeworker import DecoderFailed
from spinescore.runtime.reading.dicomfile import brief
from spinescore.runtime.reading.pixels import PixelFormat, corrupt, without_unused_bits

__all__ = ["decoded", "installed", "is_compressed", "payload", "prepare", "run_decoder", "unsupported"]

_JPEG_2000_THREADS = 4
_ITEM = b"\xfe\xff\x00\xe0"
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
    if syntax is None:
        return InputRejected(
            "unsupported-syntax",
            f"{source} holds compressed pixels and does not name their transfer syntax; "
            "convert it to Explicit VR Little Endian",
        )
    from pydicom.uid import UID

    advice = (
        'install the decoders with `pip install "spinescore[dicom]"`'
        if syntax in _PREFERENCE
        else "convert it to Explicit VR Little Endian"
    )
    return InputRejected(
        "unsupported-syntax", f"no decoder here reads {UID(syntax).name} ({syntax}) of {source}; {advice}"
    )


def decoded(
    data: bytes, declared: PixelFormat, syntax: str, source: str, notes: list[str]
) -> tuple[NDArray[np.integer], str]:
    """Decode with the first decoder that can; the others are tried where it fails."""
    from pydicom.encaps import get_frame

    from spinescore.runtime.reading import decodepool, gpudecode  # the workers import this module

    _check_fragments(data, source)
    try:
        frame = get_frame(data, 0, number_of_frames=1)
    except Exception as fault:
        raise corrupt(source, f"has compressed pixels that cannot be taken apart ({brief(fault)})") from None
    check_codestream(frame, declared, syntax, source)
    offer = gpudecode.offer(frame, declared, syntax)
    if offer is not None:
        on_gpu = offer.decoded()
        notes += gpudecode.news()
        if on_gpu is not None:
            return _within_range(on_gpu, declared, syntax, notes), nvimagecodec.NAME
    faults: list[str] = []
    for name in installed(syntax):
        started = time.perf_counter()
        try:
            pixels = decodepool.decode(name, payload(name, frame, data), syntax, declared)
        except decodepool.DecoderLost as fault:
            raise corrupt(source, f"has compressed pixels that {fault}") from None
        except DecoderFailed as fault:
            faults.append(f"{name}: {fault}")
            continue
        if offer is not None:
            offer.compare(pixels, (time.perf_counter() - started) * 1e3)
        return _within_range(pixels, declared, syntax, notes), name
    if not faults:
        raise unsupported(source, syntax)
    raise corrupt(source, f"has pixels that no decoder could read ({'; '.join(faults)})")


def _check_fragments(data: bytes, source: str) -> None:
    """Refuse what would take long to put together, or much memory: pydicom keeps a number for each fragment and offset.

    The first item is the offset table, which has one offset of 4 bytes or none (PS3.5 A.4).
    """
    at, count = 0, 0
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at == 0 and length > _MAX_OFFSETS_BYTES:
            raise corrupt(source, f"has {length} bytes of offsets for the one image that it holds")
        at += 8 + length
        count += 1
        if count > _MAX_FRAGMENTS:
            raise corrupt(source, f"has its compressed image in more than {_MAX_FRAGMENTS} fragments")


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


def payload(name: str, frame: bytes, data: bytes) -> bytes:
    """What a decoder is given: the codestream, or, for pydicom's plugins, encapsulated pixel data."""
    return frame if name.startswith(_CODECS) or name == nvimagecodec.NAME else data


def prepare(name: str, syntax: str) -> None:
    """Import what a decoder needs; on a busy machine that can take longer than decoding."""
    if name == nvimagecodec.NAME:
        nvimagecodec.prepare()
    elif name.startswith(_CODECS):
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
    if name == nvimagecodec.NAME:
        return nvimagecodec.decode(given, nvimagecodec.prepare())
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
    pixels: NDArray[np.integer], declared: PixelFormat, syntax: str, notes: list[str]
) -> NDArray[np.integer]:
    """Decoded values as stored values: signs restored, and what a lossy decoder overshoots clamped.

    RLE keeps the words as they were. JPEG and JPEG-LS code signed values as their bit patterns; JPEG 2000 says in the
    codestream which sign it has, and may contradict the header.
    """
    if pixels.dtype.itemsize * 8 < declared.bits_stored:
        pixels = pixels.astype(f"{pixels.dtype.kind}2")
    pixels = np.require(pixels, requirements=("C", "W"))
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    if syntax == RLE:
        return without_unused_bits(unsigned, declared)
    if declared.signed != (pixels.dtype.kind == "i") or (declared.signed and syntax in JPEG + JPEG_LS):
        return without_unused_bits(unsigned, replace(declared, high_bit=declared.bits_stored - 1))
    if declared.bits_stored < pixels.dtype.itemsize * 8:
        low, high = declared.stored_min, declared.stored_max
        if int(pixels.max()) > high or int(pixels.min()) < low:
            notes.append(f"decoded values beyond the declared range {low} to {high} were clamped to it")
            np.clip(pixels, low, high, out=pixels)
    return pixels
