"""What a worker process costs an image: `python -m spinescore.benchmarks.decodecost [--out F]`.

A decoder that does nothing hands out the same pixels (3000 x 2400, 16 bits) for a codestream of 6.5 MB, the size of a
lossless one, so that what remains is handing both over: `worker_ms`. Beside it what a copy of the pixels takes in this
process. The first image, which starts the worker, is apart. Wall time; `load` is the machine's when it began.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.records import publish
from spinescore.runtime.reading.decoding import codecs, pool, withimagecodecs
from spinescore.runtime.reading.decoding.decode import run_apart
from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.decodecost/1"
_DECLARED = PixelFormat(3000, 2400, 16, 12, 11, False, "MONOCHROME2")
_CODESTREAM_BYTES = 6_500_000
_SYNTAX = "1.2.840.10008.1.2.4.80"
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
    """The command of a worker whose decoder does nothing."""
    return [sys.executable, "-c", _START, file, *sys.path]


def measure(images: int) -> dict[str, Any]:
    """Milliseconds of `images` images each way, and of the first one, which starts the worker."""
    codestream = bytes(_CODESTREAM_BYTES)
    pixels: NDArray[np.integer] = np.full((3000, 2400), 7, np.uint16)
    name = codecs.installed(_SYNTAX)[0]
    real_command, real_decoder = pool._command, withimagecodecs.decode

    def nothing(codec: str, codestream: bytes, syntax: str, declared: PixelFormat) -> NDArray[np.integer]:
        return pixels

    pool._command, withimagecodecs.decode = _command, nothing
    pool.stop()
    try:
        in_worker = _timed(lambda: run_apart(name, codestream, _SYNTAX, _DECLARED), 1 + images)
        here = _timed(lambda: codecs.run_codec(name, codestream, _SYNTAX, _DECLARED).copy(), images)
    finally:
        pool.stop()
        pool._command, withimagecodecs.decode = real_command, real_decoder
    return {
        "images": images,
        "first_ms": round(in_worker[0], 1),
        "worker_ms": _percentiles(in_worker[1:]),
        "copy_in_process_ms": _percentiles(here),
    }


def _timed(act: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(count):
        started = time.perf_counter()
        act()
        found.append((time.perf_counter() - started) * 1e3)
    return found


def _percentiles(ms: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(ms, q)), 2) for q in (10, 50, 90, 99)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.decodecost", description=__doc__)
    parser.add_argument("--images", type=int, default=300, metavar="N", help="images each way (300)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    record = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": load},
        "protocol": " ".join(str(__doc__).split()),
        **measure(arguments.images),
    }
    publish(record, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
