"""Repeat the self-test of a scorer after a number of studies or minutes, when no study is being scored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from spinescore.runtime.arguments import check_number, check_whole

__all__ = ["Repeats", "check_repeats"]

_RETRY_S = 0.05  # between two looks at a scorer that is busy


def check_repeats(studies: int | None, minutes: float | None) -> None:
    """Raise `TypeError` for no number and `ValueError` for a number that is not above 0."""
    if studies is not None:
        check_whole("self_test_studies", studies, 1)
    if minutes is not None:
        description = "a number of minutes above 0, at most some centuries"
        check_number("self_test_minutes", minutes, description, most=threading.TIMEOUT_MAX / 60)


class Repeats:
    """A thread that calls `test` when it is due. Close it to end the thread.

    `test` returns whether it could run. If the scorer was busy, it is called again soon.
    """

    def __init__(self, test: Callable[[], bool], studies: int | None, minutes: float | None) -> None:
        """Start the thread. The arguments are checked before (`check_repeats`)."""
        self._test, self._every, self._period_s = test, studies, None if minutes is None else 60 * minutes
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
        """End the thread after the current test. Closing twice is no error."""
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
        """Return the seconds until the next test: 0 if it is due, None if only studies can make it due."""
        if self._every is not None and self._studies >= self._every:
            return 0
        return None if self._period_s is None else max(self._since + self._period_s - time.monotonic(), 0)
