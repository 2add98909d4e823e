"""Measures decoders of compressed pixels: the time of each per transfer syntax, and whether its pixels are right.

`python -m spinescore.benchmarks.decode [--out F]`. The order in
`spinescore.runtime.reading.decoding.syntaxes` follows these figures.

One drawn cervical radiograph, 12 bits, brought to 3000 x 2400 pixels, with quantum noise of 3 steps. A codestream in
memory is decoded to an array of stored values; once for warm-up, then in rounds in which every decoder of a transfer
syntax has one turn. `median_ms` and `best_ms` are of the rounds; `processor_ms` is the least that all threads of the
process took together, which other processes hardly change. `two_at_once_ms`: two pictures in two threads; twice one
picture's time if the decoder keeps the interpreter's lock or no core is free. `worker_ms`: one picture through the
process that the runtime decodes in. A lossless result is correct if every value is the same, a lossy one if no value is
further from the original than the bound. Under a load of more than one, times are longer than on a quiet machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms
from spinescore.runtime.reading.decoding.codecs import installed, run_codec
from spinescore.runtime.reading.decoding.decode import run_apart
from spinescore.runtime.reading.pixelformat import PixelFormat
from spinescore.runtime.text import table

__all__ = ["SCHEMA", "Compressed", "compressed", "draw_picture", "main", "measure"]

SCHEMA = "spinescore.decode/3"
ROWS, COLUMNS, BITS = 3000, 2400, 12
_SEED = 2_000_003
_ROUNDS = 7
_TIMES = {  # -> the heading of their column
    "median_ms": "ms",
    "best_ms": "best",
    "processor_ms": "processor",
    "two_at_once_ms": "two at once",
    "worker_ms": "worker",
}

Picture = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Compressed:
    """One picture in one transfer syntax. A decoded value may differ from the original by at most `bound`."""

    syntax: str
    name: str
    original: Picture
    frame: bytes
    bound: int


def draw_picture(rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint16]:
    """Draw the phantom's cervical radiograph at the given size, 12 bits in 16. Deterministic."""
    import cv2

    from spinescore.runtime.phantom import draw_view

    drawn = draw_view(_SEED, "cervical").image.pixels.astype(np.float32)
    grey = cv2.resize((drawn - drawn.min()) / np.ptp(drawn), (columns, rows), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(_SEED).normal(0, 3, grey.shape)
    largest = (1 << BITS) - 1
    picture: NDArray[np.uint16] = np.clip(np.round(grey * largest + noise), 0, largest).astype(np.uint16)
    return picture


def compressed(picture: NDArray[np.uint16]) -> list[Compressed]:
    """Compress the picture for every transfer syntax that can be written here; baseline JPEG gets its upper 8 bits."""
    import imagecodecs
    from pydicom import uid

    codecs: Any = imagecodecs
    jpeg, jpeg_ls, jpeg_2000 = codecs.jpeg8_encode, codecs.jpegls_encode, codecs.jpeg2k_encode
    eight, bits = (picture >> (BITS - 8)).astype(np.uint8), {"bitspersample": BITS}
    plain, lossless = {"codecformat": "j2k", **bits}, {"lossless": True, **bits}
    lossy = 2 << (BITS - 8)  # two steps of 8 bits
    written: list[tuple[str, str, Picture, Any, int]] = [
        (uid.RLELossless, "RLE", picture, _rle(picture), 0),
        (uid.JPEGBaseline8Bit, "JPEG baseline, quality 90", eight, jpeg(eight, level=90), lossy),
        (uid.JPEGExtended12Bit, "JPEG extended, quality 90", picture, jpeg(picture, level=90, **bits), lossy),
        (uid.JPEGLossless, "JPEG lossless, predictor 4", picture, jpeg(picture, predictor=4, **lossless), 0),
        (uid.JPEGLosslessSV1, "JPEG lossless, predictor 1", picture, jpeg(picture, predictor=1, **lossless), 0),
        (uid.JPEGLSLossless, "JPEG-LS lossless", picture, jpeg_ls(picture), 0),
        (uid.JPEGLSNearLossless, "JPEG-LS, near 2", picture, jpeg_ls(picture, level=2), 2),
        (uid.JPEG2000Lossless, "JPEG 2000 lossless", picture, jpeg_2000(picture, level=0, reversible=True, **plain), 0),
        (uid.JPEG2000, "JPEG 2000, 60 dB", picture, jpeg_2000(picture, level=60, **plain), lossy),
    ]
    if getattr(getattr(codecs, "HTJ2K", None), "available", False):
        frame = codecs.htj2k_encode(picture, reversible=True, tlm=True)
        coarse = codecs.htj2k_encode(picture, level=2e-4, reversible=False)
        written += [
            (uid.HTJ2KLossless, "HTJ2K lossless", picture, frame, 0),
            (uid.HTJ2KLosslessRPCL, "HTJ2K lossless, RPCL", picture, frame, 0),
            (uid.HTJ2K, "HTJ2K, step 0.0002", picture, coarse, lossy),
        ]
    return [Compressed(syntax, name, stored, bytes(frame), off) for syntax, name, stored, frame, off in written]


def _rle(picture: Picture) -> bytes:
    from pydicom.pixels.encoders.base import RLELosslessEncoder

    rows, columns = picture.shape
    return RLELosslessEncoder.encode(
        picture, encoding_plugin="pydicom", rows=rows, columns=columns, samples_per_pixel=1, bits_allocated=16,
        bits_stored=BITS, pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
    )  # fmt: skip


def _declared(picture: Picture) -> PixelFormat:
    bits = 8 if picture.dtype.itemsize == 1 else BITS
    rows, columns = picture.shape
    return PixelFormat(rows, columns, 8 * picture.dtype.itemsize, bits, bits - 1, False, "MONOCHROME2")


def measure(coded: Compressed, rounds: int) -> dict[str, Any]:
    """Return the figures of all decoders that are installed for one transfer syntax."""
    declared = _declared(coded.original)
    names = installed(coded.syntax)
    arguments = {name: (name, coded.frame, coded.syntax, declared) for name in names}
    off = {name: _off_by(run_codec(*arguments[name]), coded.original) for name in names}
    with ThreadPoolExecutor(2) as pool:
        calls = {(name, figure): call for name in names for figure, call in _calls(arguments[name], pool).items()}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        processor_ms: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds + 1):
            for key, call in calls.items():
                before = time.process_time()
                times[key].append(elapsed_ms(call))
                if key[1] == "median_ms":
                    processor_ms[key[0]].append((time.process_time() - before) * 1e3)
    results = [
        {
            "decoder": name,
            "max_difference": off[name],
            "correct": off[name] <= coded.bound,
            "processor_ms": round(min(processor_ms[name][1:]), 2),
            "best_ms": round(min(times[name, "median_ms"][1:]), 2),  # the first is for warm-up
            **{figure: round(float(np.median(ms[1:])), 2) for (one, figure), ms in times.items() if one == name},
        }
        for name in names
    ]
    return {
        "transfer_syntax": coded.syntax,
        "name": coded.name,
        "bytes": len(coded.frame),
        "bound": coded.bound,
        "decoders": results,
    }


def _off_by(pixels: NDArray[np.integer[Any]], original: Picture) -> int:
    return int(np.abs(pixels.astype(np.int32) - original).max())


def _calls(arguments: tuple[str, bytes, str, PixelFormat], pool: ThreadPoolExecutor) -> dict[str, Callable[[], Any]]:
    def once(_: int = 0) -> Any:
        return run_codec(*arguments)

    return {
        "median_ms": once,
        "two_at_once_ms": lambda: list(pool.map(once, range(2))),
        "worker_ms": lambda: run_apart(*arguments),
    }


def _table(figures: Mapping[str, Any]) -> str:
    rows = [
        [
            result["name"],
            f"{result['bytes'] / 1e6:.1f}",
            entry["decoder"],
            *(f"{entry[figure]:.1f}" for figure in _TIMES),
            entry["max_difference"],
            "yes" if entry["correct"] else "NO",
        ]
        for result in figures["results"]
        for entry in result["decoders"]
    ]
    header = ["transfer syntax", "MB", "decoder", *_TIMES.values(), "off by", "correct"]
    picture = figures["picture"]
    title = f"{picture['rows']} x {picture['columns']} pixels, {picture['bits']} bits, {figures['rounds']} rounds"
    return f"{title}\n\n{table(rows, header)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns the exit status."""
    command = Command("decode", SCHEMA, __doc__)
    text = f"rounds that count ({_ROUNDS})"
    command.options.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help=text)
    rounds = command.start(argv).rounds
    if rounds < 1:
        command.options.error("--rounds must be at least 1")
    picture = draw_picture()
    figures: dict[str, Any] = {
        "picture": {"rows": picture.shape[0], "columns": picture.shape[1], "bits": BITS, "phantom_seed": _SEED},
        "rounds": rounds,
        "results": [],
    }
    for coded in compressed(picture):
        print(coded.name, file=sys.stderr, flush=True)
        figures["results"].append(measure(coded, rounds))
    command.publish(figures, _table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
