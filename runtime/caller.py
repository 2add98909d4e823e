"""The caller's `progress` and `cancel` while a scorer is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable

from spinescore.runtime.errors import Cancelled

__all__ = ["PREFIX", "Caller"]

PREFIX = "opening: "  # begins the lines on the opening itself; lines of a build or a check begin otherwise


class Caller:
    """The caller's `progress` and `cancel`. Its methods may be called from several threads.

    `cancel` can be exchanged: a study that has to open another engine is cancelled by its own caller.
    """

    def __init__(self, progress: Callable[[str], None] | None = None, cancel: threading.Event | None = None) -> None:
        self._progress, self.cancel = progress, cancel

    def begin(self, step: str) -> None:
        """Tell the caller that a step begins. Raises as `go_on`, and what `progress` raises."""
        self.go_on(step)
        if self._progress is not None:
            self._progress(f"{PREFIX}{step}")

    def go_on(self, step: str) -> bool:
        """Return True, at a boundary between steps. Raises `Cancelled` if the caller gave up."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"Given up, because the caller asked for that, before this step: {step}.")
        return True

    def leave(self) -> None:
        """Drop both, once the scorer is open."""
        self._progress = self.cancel = None
