"""Self-tests that are repeated while a scorer lives: after so many studies or minutes, when nothing is being scored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Repeats"]

_RETRY_S = 0.05  # between two looks at a scorer that is busy


class Repeats:
    """A thread that calls `test` when that is due. Close it, and it ends.

    `test` returns whether it could run: false if the scorer was busy, and it is then asked again soon.
    """

    def __init__(self, test: Callable[[], bool], studies: int | None, minutes: float | None) -> None:
        """Raises `ValueError` for a number that is not above 0."""
        for name, value in (("self_test_studies", studies), ("self_test_minutes", minutes)):
            if value is not None and not 0 < value < threading.TIMEOUT_MAX / 60:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        self._test, self._most, self._period_s = test, studies, None if minutes is None else 60 * minutes
        self._changed = threading.Condition()
        self._studies, self._since, self._closed = 0, time.monotonic(), False
        self._thread = threading.Thread(target=self._run, name="spinescore-self-test", daemon=True)
        self._thread.start()

    def count_study(self) -> None:
        """One more study was scored."""
        with self._changed:
            self._studies += 1
            self._changed.notify()

    def close(self) -> None:
        """End the thread, after the test that is going on. Twice is no error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (wait_s := self._due_in_s()) != 0:
                    self._changed.wait(wait_s)
                if self._closed:
                    return
            ran = self._test()
            with self._changed:
                if ran:
                    self._studies, self._since = 0, time.monotonic()
                else:
                    self._changed.wait(_RETRY_S)

    def _due_in_s(self) -> float | None:
        """Seconds until the next test; 0 if it is due, None if only studies can make it due."""
        if self._most is not None and self._studies >= self._most:
            return 0
        return None if self._period_s is None else max(self._since + self._period_s - time.monotonic(), 0)
