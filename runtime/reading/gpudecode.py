"""Which compressed radiographs nvImageCodec decodes on a GPU: those whose like it was seen to decode, and sooner.

nvImageCodec has given wrong pixels for right ones without a word (12-bit lossless JPEG came out as zeros before nvJPEG
13.0.2, NVIDIA/nvImageCodec issue 50; HTJ2K with refinement passes as grey, NVIDIA/CUDALibrarySamples issue 128), and
has hung. So:

- It runs in a worker process of its own, never in this one. What it does not decode, the others do.
- It is offered lossless JPEG and JPEG 2000 of unsigned pixels alone: of these can be said whether they are right. Not
  HTJ2K, whose headers do not tell of refinement passes, and which takes the CPU a tenth of the time of JPEG 2000.
- Nothing that it decodes is used before it has decoded samples of its family here, and then the like of an image
  (`codestreams.lossless_coding`) `_SAME` times, with every pixel as the decoder for the CPU has it, and sooner than
  that one. All this is done beside the reading, which goes on without it. Of what is decoded so, one in
  `_COMPARED_AGAIN` is compared again.
- One pixel that differs ends it for that coding, a crash or an image that takes too long for all, until the process
  ends. The next radiograph's warnings say so.

What it decodes is copied to the host (quality checks, percentiles and the grey-scale table look at it there), and goes
from there to the pipeline's device as every radiograph does. Its worker has a context of its own on the first GPU, with
memory of its own; the worker is ended where nothing is left that it may decode.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading import decodepool, nvimagecodec
from spinescore.runtime.reading.codestreams import JPEG, JPEG_2000, Coding, lossless_coding
from spinescore.runtime.reading.decodeworker import DecoderFailed
from spinescore.runtime.reading.pixels import PixelFormat

__all__ = ["FAMILIES", "Offer", "news", "offer", "refusals", "unfit", "wait"]

FAMILIES = {"JPEG lossless": JPEG, "JPEG 2000 lossless": JPEG_2000}  # the last syntax of each is the samples'

_SAME = 3
_COMPARED_AGAIN = 64
_COMPARED_S = 5.0  # that an image which is compared may take
_PATIENCE_S = 1.0  # one that takes longer gains nothing
_TURN_S = 0.1  # an image that would wait longer for the GPU's one decoder goes to the CPU's
_MAX_CODINGS = 64
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 203, 301  # several code-blocks, not all of them whole


@dataclass
class _Standing:
    """What is known of one coding."""

    same: int = 0  # images in a row whose pixels were the same
    decoded: int = 0  # images since then
    gpu_ms: float = float("inf")  # the shortest
    cpu_ms: float = float("inf")
    refused: str = ""  # why it is not decoded on the GPU

    @property
    def trusted(self) -> bool:
        return not self.refused and self.same >= _SAME


@dataclass(frozen=True)
class Offer:
    """One image that nvImageCodec may decode."""

    frame: bytes
    declared: PixelFormat
    syntax: str
    coding: Coding

    def decoded(self) -> NDArray[np.integer] | None:
        """The pixels, where its like is trusted and nothing is amiss."""
        return _Referee.of_this_process().decoded(self)

    def compare(self, pixels: NDArray[np.integer], took_ms: float) -> None:
        """Learn from an image that another decoder has read; returns at once."""
        _Referee.of_this_process().compare(self, pixels, took_ms)


def offer(frame: bytes, declared: PixelFormat, syntax: str) -> Offer | None:
    """The offer, or None where nvImageCodec is not here, or the image is none for it."""
    if not nvimagecodec.is_installed() or declared.signed or decodepool.in_process():
        return None
    coding = lossless_coding(frame, syntax)
    return Offer(frame, declared, syntax, coding) if coding and nvimagecodec.driver_is_here() else None


def news() -> list[str]:
    """What went wrong since the last call, a sentence each; for the warnings."""
    referee = _Referee.of_this_process()
    with referee.lock:
        told, referee.news = referee.news, []
    return told


def refusals() -> list[str]:
    """Why codings that came up in this process are not decoded on the GPU."""
    referee = _Referee.of_this_process()
    with referee.lock:
        return [standing.refused for standing in referee.standings.values() if standing.refused]


def wait() -> None:
    """Until what is being compared is compared."""
    thread = _Referee.of_this_process().thread
    if thread is not None:
        thread.join()


def unfit(family: str) -> str:
    """Decode samples of a family here and now: why nvImageCodec may not decode it; empty where it may.

    A sample that it does not decode is no fault while it decodes another: codings are judged one by one.
    """
    try:
        return _unfit(family)
    except decodepool.DecoderLost as fault:
        return f"samples {fault}"


def _unfit(family: str) -> str:
    exact, failed = 0, ""
    try:
        for declared, pixels, frame in _samples(family):
            try:
                found = decodepool.decode(nvimagecodec.NAME, frame, FAMILIES[family][-1], declared, _COMPARED_S)
            except DecoderFailed as fault:
                failed = failed or f"{declared.bits_stored} bits: {fault}"
                continue
            if not _same(found, pixels):
                wrong = np.count_nonzero(found != pixels)
                return f"{declared.bits_stored} bits: {wrong} of {pixels.size} pixels of a sample are wrong"
            exact += 1
    except ImportError:
        return 'samples are written with imagecodecs, which is not installed; pip install "spinescore[dicom]"'
    return "" if exact else failed


def _samples(family: str) -> Iterator[tuple[PixelFormat, NDArray[np.unsignedinteger], bytes]]:
    """Noise and a ramp over the whole range of 8, 12 and 16 bits, and the codestreams."""
    import imagecodecs

    codecs: Any = imagecodecs
    rng = np.random.default_rng(20)
    for bits in (8, 12, 16):
        largest = (1 << bits) - 1
        ramp = np.linspace(0, largest, _SAMPLE_ROWS * _SAMPLE_COLUMNS).reshape(_SAMPLE_ROWS, _SAMPLE_COLUMNS)
        drawn = np.clip(ramp + rng.normal(0, largest / 64, ramp.shape), 0, largest)
        pixels: NDArray[np.unsignedinteger] = drawn.astype(np.uint8 if bits == 8 else np.uint16)
        if family == "JPEG lossless":
            frame = codecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits)
        else:
            frame = codecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits)
        allocated = 8 * pixels.dtype.itemsize
        declared = PixelFormat(_SAMPLE_ROWS, _SAMPLE_COLUMNS, allocated, bits, bits - 1, False, "MONOCHROME2")
        yield declared, pixels, bytes(frame)


def _on_gpu(image: Offer, limit_s: float) -> NDArray[np.integer]:
    return decodepool.decode(nvimagecodec.NAME, image.frame, image.syntax, image.declared, limit_s)


def _same(found: NDArray[np.integer], expected: NDArray[np.integer]) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


class _Referee:
    """What nvImageCodec was seen to do in this process. After a fork the child begins anew."""

    _referees: ClassVar[dict[int, _Referee]] = {}  # by process

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None  # of the image that is being compared, or was last
        self.news: list[str] = []
        self._turn = threading.Lock()
        self._closed = False
        self._families: dict[str, str] = {}  # those whose samples were decoded, and what was wrong
        self.standings: dict[Coding, _Standing] = {}

    @classmethod
    def of_this_process(cls) -> _Referee:
        return cls._referees.get(os.getpid()) or cls._referees.setdefault(os.getpid(), cls())

    def decoded(self, image: Offer) -> NDArray[np.integer] | None:
        with self.lock:
            standing = self.standings.get(image.coding)
            if self._closed or standing is None or not standing.trusted:
                return None
            standing.decoded += 1
            if standing.decoded % _COMPARED_AGAIN == 0:
                return None
        if not self._turn.acquire(timeout=_TURN_S):
            return None
        try:
            return _on_gpu(image, _PATIENCE_S)
        except DecoderFailed:  # a broken image, perhaps; the others will say
            with self.lock:
                standing.same = 0
        except decodepool.DecoderLost as fault:
            self._close(str(fault))
        finally:
            self._turn.release()
        return None

    def compare(self, image: Offer, pixels: NDArray[np.integer], took_ms: float) -> None:
        with self.lock:
            if self._closed or (self.thread is not None and self.thread.is_alive()):
                return
            if image.coding not in self.standings and len(self.standings) >= _MAX_CODINGS:
                return
            standing = self.standings.setdefault(image.coding, _Standing())
            if standing.refused:
                return
            standing.cpu_ms = min(standing.cpu_ms, took_ms)
            arguments = (image, pixels.copy(), standing)
            self.thread = threading.Thread(target=self._judge, args=arguments, name="spinescore-compare", daemon=True)
            self.thread.start()

    def _judge(self, image: Offer, expected: NDArray[np.integer], standing: _Standing) -> None:
        found: NDArray[np.integer] | None
        try:
            with self._turn:
                refused = self._unfit(image.syntax)
                started = time.perf_counter()
                found = expected if refused else _on_gpu(image, _COMPARED_S)
                took_ms = (time.perf_counter() - started) * 1e3
        except DecoderFailed as fault:
            found, refused = None, str(fault)
        except decodepool.DecoderLost as fault:
            return self._close(str(fault))
        except Exception as fault:  # no thread may end with a traceback on the application's terminal
            return self._close(f"could not be compared ({type(fault).__name__})")
        with self.lock:
            if found is None:
                standing.same, refused = 0, "" if standing.decoded else refused  # others of this coding it did decode
            elif not _same(found, expected):
                refused = "it gave other pixels than the decoder for the CPU"
                self.news.append(
                    f"nvImageCodec is not used any more for images of one coding ({image.syntax}): {refused}"
                )
            elif not refused:
                standing.same += 1
                standing.gpu_ms = min(standing.gpu_ms, took_ms)
                if standing.same >= _SAME and standing.gpu_ms >= standing.cpu_ms:
                    refused = f"it takes {standing.gpu_ms:.0f} ms, the decoder for the CPU {standing.cpu_ms:.0f}"
            standing.refused = refused
            needed = not all(known.refused for known in self.standings.values())
        if not needed:
            decodepool.stop(nvimagecodec.NAME)
        return None

    def _unfit(self, syntax: str) -> str:
        family = next(name for name, syntaxes in FAMILIES.items() if syntax in syntaxes)
        if family not in self._families:
            self._families[family] = _unfit(family)
        return self._families[family]

    def _close(self, why: str) -> None:
        with self.lock:
            self._closed = True
            self.news.append(f"nvImageCodec is not used any more in this process: the pixels of an image {why}")
