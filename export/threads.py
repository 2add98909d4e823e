"""Threads for work beside the caller's. NumPy, OpenCV, hashing, files and networks run without Python's lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from spinescore.runtime.machine.processor import core_count

__all__ = ["thread_count", "workers"]


def thread_count() -> int:
    """Return the number of threads for networks: OMP_NUM_THREADS, or else one for each core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or core_count()


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield `count` threads. At the end, also after an error, work that has not begun is dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
