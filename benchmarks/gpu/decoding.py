"""nvImageCodec against the decoders for the CPU: every value of what the runtime would give it, and how long both take.

What the runtime does not give it (lossy codestreams, HTJ2K) is decoded too, and how far off it is stands in the
figures; nothing fails by that.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from spinescore.benchmarks.gpu.record import Failed, Figures, Record, Skipped, percentiles
from spinescore.runtime.reading import codestreams, decodepool, decoders, gpudecode, nvimagecodec
from spinescore.runtime.reading.decodeworker import DecoderFailed
from spinescore.runtime.reading.pixels import PixelFormat

__all__ = ["run"]

_FULL = 3000, 2400
_QUICK = 300, 240
_SMALL = 203, 301
_LIMIT_S = 10.0
_KNOWN = (*codestreams.JPEG, *codestreams.JPEG_2000, *codestreams.HTJ2K)  # by nvImageCodec


def run(record: Record, options: Any) -> None:
    """The part `decoding`."""
    if record.check("gpu-decode: here", _here) is None:
        return
    from spinescore.benchmarks.decode import compressed, draw_picture

    for family in gpudecode.FAMILIES:
        record.check(f"gpu-decode: samples of {family}", partial(_samples, family))
        for bits in (8, 10, 12, 14, 16):
            record.check(f"gpu-decode: {family}, {bits} bits", partial(_depth, family, bits))
    runs = 3 if options.quick else 9
    for coded in compressed(draw_picture(*(_QUICK if options.quick else _FULL))):
        if coded.syntax in _KNOWN:
            of = coded.syntax, coded.original, coded.frame
            record.check(f"gpu-decode: {coded.name}, timed", partial(_compare, *of, runs))
            if codestreams.lossless_coding(coded.frame, coded.syntax):
                record.check(f"gpu-decode: {coded.name}, read", partial(_read, *of))
    decodepool.stop()


def _here() -> Figures:
    if not nvimagecodec.is_installed():
        raise Skipped('nvImageCodec is not installed: pip install "spinescore[gpu-decode]"')
    if not nvimagecodec.driver_is_here():
        raise Skipped("no NVIDIA driver is installed")
    started = time.perf_counter()
    picture = np.zeros((64, 64), np.uint16)
    frame = _lossless_jpeg_2000(picture, 16)
    try:
        decodepool.decode(nvimagecodec.NAME, frame, codestreams.JPEG_2000[0], _declared(picture, 16), _LIMIT_S)
    except DecoderFailed as fault:
        raise Skipped(f"nvImageCodec cannot be used here: {fault}") from None
    return {"first_image_s": round(time.perf_counter() - started, 3)}


def _samples(family: str) -> Figures:
    why = gpudecode.unfit(family)
    if why:
        raise Failed(f"the runtime would not use it: {why}")
    return {"exact": "yes"}


def _depth(family: str, bits: int) -> Figures:
    """Small pictures of noise, for lossless JPEG with every predictor."""
    import imagecodecs

    codecs: Any = imagecodecs
    noise = np.random.default_rng(7).integers(0, 1 << bits, _SMALL).astype(np.uint8 if bits == 8 else np.uint16)
    frames = {"": _lossless_jpeg_2000(noise, bits)}
    if family == "JPEG lossless":
        options = {"lossless": True, "bitspersample": bits}
        frames = {
            f"predictor {number}": codecs.jpeg8_encode(noise, predictor=number, **options) for number in range(1, 8)
        }
    said = {name: _skipped(gpudecode.FAMILIES[family][-1], noise, bytes(frame)) for name, frame in frames.items()}
    if all(said.values()):
        raise Skipped("; ".join(dict.fromkeys(said.values())))
    return {
        "exact": [name for name, reason in said.items() if not reason],
        "not_decoded": {name: reason for name, reason in said.items() if reason},
    }


def _skipped(syntax: str, picture: Any, frame: bytes) -> str:
    """Why a picture is not decoded; empty where it is, and every value right."""
    try:
        _compare(syntax, picture, frame, 0)
    except Skipped as reason:
        return str(reason)
    return ""


def _lossless_jpeg_2000(picture: Any, bits: int) -> bytes:
    import imagecodecs

    codecs: Any = imagecodecs
    return bytes(codecs.jpeg2k_encode(picture, level=0, codecformat="j2k", reversible=True, bitspersample=bits))


def _declared(picture: Any, bits: int) -> PixelFormat:
    rows, columns = picture.shape
    return PixelFormat(rows, columns, 8 * picture.dtype.itemsize, bits, bits - 1, False, "MONOCHROME2")


def _compare(syntax: str, original: Any, frame: bytes, runs: int) -> Figures:
    """Both decoders in their worker processes, in turn. Fails where the runtime would use pixels that are wrong."""
    declared, given = _declared(original, 8 * original.dtype.itemsize), bool(codestreams.lossless_coding(frame, syntax))
    name = decoders.installed(syntax)[0]
    times: dict[str, list[float]] = {nvimagecodec.NAME: [], name: []}
    found = {}
    for _ in range(runs + 1):
        for decoder, taken in times.items():
            started = time.perf_counter()
            try:
                found[decoder] = decodepool.decode(decoder, frame, syntax, declared, _LIMIT_S)
            except DecoderFailed as fault:
                raise Skipped(f"{decoder} does not decode it: {fault}") from None
            except decodepool.DecoderLost as fault:
                raise (Failed if given else Skipped)(f"{decoder}: pixels {fault}") from None
            taken.append((time.perf_counter() - started) * 1e3)
    gpu, cpu = found[nvimagecodec.NAME].astype(np.int64), found[name].astype(np.int64)
    figures: Figures = {
        "largest_difference": int(np.abs(gpu - cpu).max()),
        "values_that_differ": int(np.count_nonzero(gpu != cpu)),
        "given_to_the_gpu": "yes" if given else "no",
    }
    if runs:
        figures |= {decoder: percentiles(taken[1:]) for decoder, taken in times.items()}
    if given and figures["values_that_differ"]:
        raise Failed(f"{figures['values_that_differ']} of {gpu.size} values differ from those of {name}", figures)
    return figures


def _read(syntax: str, original: Any, frame: bytes) -> Figures:
    """As the runtime reads radiographs: by which decoder the last of several is read, and why not on the GPU."""
    from pydicom.encaps import encapsulate

    data, declared = encapsulate([frame]), _declared(original, 8 * original.dtype.itemsize)
    notes: list[str] = []
    used: list[str] = []
    for _ in range(6):
        pixels, name = decoders.decoded(data, declared, syntax, "the picture", notes)
        gpudecode.wait()
        used.append(name)
        if not np.array_equal(pixels, original):
            raise Failed(f"{name} gave wrong values", {"decoders": used})
    figures: Figures = {"decoder": used[-1], "decoders": used, "refusals": gpudecode.refusals(), "notes": notes}
    if notes:
        raise Failed(notes[0], figures)
    return figures
