"""Measures the cost of a worker process for one image: `python -m spinescore.benchmarks.decodecost [--out F]`.

A decoder that does nothing returns the same pixels (3000 x 2400, 16 bits) for a codestream of 6.5 MB, the size of a
lossless one, so that only the transfer of both is left: `worker_ms`. Beside it is the time of a copy of the pixels in
this process. The first image, which starts the worker, is apart. Wall time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms, percentiles
from spinescore.runtime.reading.decoding import codecs, pool, withimagecodecs
from spinescore.runtime.reading.decoding.decode import run_apart
from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.decodecost/2"
_DECLARED = PixelFormat(3000, 2400, 16, 12, 11, False, "MONOCHROME2")
_CODESTREAM_BYTES = 6_500_000
_SYNTAX = "1.2.840.10008.1.2.4.80"
_PERCENTILES = (10, 50, 90, 99)
_START = """
import sys; sys.path[:] = sys.argv[2:]
import numpy as np
from spinescore.runtime.reading.decoding import withimagecodecs
from spinescore.runtime.reading.decoding.worker import main
pixels = np.full((3000, 2400), 7, np.uint16)
withimagecodecs.decode = lambda codec, codestream, syntax, declared: pixels
main(sys.argv[1])
"""


def _command(file: str) -> list[str]:
    """Return the command of a worker whose decoder does nothing."""
    return [sys.executable, "-c", _START, file, *sys.path]


def measure(images: int) -> dict[str, Any]:
    """Return the milliseconds of `images` images each way, and of the first one, which starts the worker."""
    codestream = bytes(_CODESTREAM_BYTES)
    pixels: NDArray[np.integer] = np.full((3000, 2400), 7, np.uint16)
    name = codecs.installed(_SYNTAX)[0]

    def in_worker() -> object:
        return run_apart(name, codestream, _SYNTAX, _DECLARED)

    def here() -> object:
        return codecs.run_codec(name, codestream, _SYNTAX, _DECLARED).copy()

    pool.stop()
    try:
        with (
            mock.patch.object(pool, "_command", _command),
            mock.patch.object(withimagecodecs, "decode", return_value=pixels),
        ):
            first_ms = elapsed_ms(in_worker)
            worker_ms, copy_ms = ([elapsed_ms(way) for _ in range(images)] for way in (in_worker, here))
    finally:
        pool.stop()
    return {
        "images": images,
        "first_ms": round(first_ms, 1),
        "worker_ms": percentiles(worker_ms, 2, _PERCENTILES),
        "copy_in_process_ms": percentiles(copy_ms, 2, _PERCENTILES),
    }


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("decodecost", SCHEMA, __doc__)
    command.options.add_argument("--images", type=int, default=300, metavar="N", help="images each way (300)")
    command.publish(measure(command.start(argv).images))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
