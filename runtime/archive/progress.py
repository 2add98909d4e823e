"""Progress in lines: how much is done, the rate, and the time that is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Progress", "duration"]

_EVERY_S = 10.0
_WINDOW_S = 120.0  # the rate is that of the last minutes


class Progress:
    """Counts what is done of `total` (None if that is not known), and says so every ten seconds."""

    def __init__(self, total: int | None, words: str, say: Callable[[str], None], done: int = 0) -> None:
        self.done, self._total, self._words, self._say = done, total, words, say
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)])

    def add(self, count: int = 1) -> None:
        """Count, and print a line if it is time."""
        self.done += count
        now = time.monotonic()
        if now - self._marks[-1][0] >= _EVERY_S:
            self._marks.append((now, self.done))
            while now - self._marks[0][0] > _WINDOW_S and len(self._marks) > 2:
                self._marks.popleft()
            self._say(self.line())

    def line(self) -> str:
        (begun, before), now = self._marks[0], time.monotonic()
        rate = (self.done - before) / max(now - begun, 1e-9)
        if self._total is None:
            return f"{self.done} {self._words}, {rate:.0f} a second"
        left = f", about {duration((self._total - self.done) / rate)} left" if rate > 0 else ""
        return f"{self.done} of {self._total} {self._words}, {rate:.2f} a second{left}"


def duration(seconds: float) -> str:
    """Return a time in words, in the unit that suits it."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"
