"""Let one thread at a time use something, until it is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spinescore.runtime.errors import DeviceError

__all__ = ["Turns"]


class Turns:
    """Give out turns to threads, one at a time, none to a forked child, and free what they share after the last."""

    def __init__(self, free: Callable[[], None]) -> None:
        """Call `free` once at the end, in a turn of its own."""
        self._lock, self._free = threading.Lock(), free
        self._process, self._thread = os.getpid(), 0  # the thread that has the turn, or 0
        self._closed = False

    @contextmanager
    def turn(self, acquire: Callable[[threading.Lock], object] | None = None) -> Iterator[None]:
        """Wait for a turn, with `acquire` if it is given, and take it.

        Raises what `acquire` raises, `DeviceError` after `close` and after a fork, and `RuntimeError` if this thread
        already has the turn: it would wait for itself.
        """
        self._check_open()
        self._check_other()
        self._lock.acquire() if acquire is None else acquire(self._lock)
        with self._held():
            yield

    @contextmanager
    def turn_if_free(self) -> Iterator[bool]:
        """Take a turn if no thread has one; yield whether it was taken. Raises `DeviceError` as `turn`."""
        self._check_open()
        if self._lock.acquire(blocking=False):
            with self._held():
                yield True
        else:
            yield False

    def close(self, wait: bool = True) -> None:
        """Give out no more turns, and call `free` after the current turn. Closing twice is no error.

        Without `wait` another thread does that. Raises `RuntimeError` as `turn`, and what `free` raises.
        """
        if os.getpid() != self._process:  # the parent process has to free it
            return
        if wait:
            self._check_other()
        self._closed = True
        if wait:
            self._end()
        elif self._free is not _freed:
            threading.Thread(target=self._end, name="spinescore-close").start()

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._thread = threading.get_ident()
        try:
            self._check_open()
            yield
        finally:
            self._thread = 0
            self._lock.release()

    def _end(self) -> None:
        with self._lock:
            free, self._free = self._free, _freed
            free()

    def _check_other(self) -> None:
        if self._thread == threading.get_ident():
            raise RuntimeError(
                "This scorer was called from a callback of its own study, and would wait for itself; call it when the "
                "study is done (try_score and close(wait=False) may be called)."
            )

    def check_may_wait(self) -> None:
        """Raise as `turn` does after a fork, and if this thread has the turn."""
        self._check_process()
        self._check_other()

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise DeviceError("This scorer is closed; open another one with Scorer.open.")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise DeviceError(
                "This scorer was opened before this process was forked from another one, and its threads are not here; "
                "open one in each process with Scorer.open."
            )


def _freed() -> None:
    """Do nothing: everything is freed."""
