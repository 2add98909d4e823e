"""Warnings of one thread, collected while other threads do the same."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["caught_warnings"]

_MAX_WARNINGS = 10_000  # in one block

_warnings_lock = threading.Lock()
_warnings_local = threading.local()
_warnings_users = 0
_warnings_saved: Any = None


@contextmanager
def caught_warnings() -> Iterator[list[str]]:
    """Collect the warnings of this thread; those of other threads go where they went before.

    `warnings.catch_warnings` alone changes the state of the whole process and is not safe between threads, so the first
    reader in sets it up and the last one out restores it.
    """
    global _warnings_users, _warnings_saved
    caught: list[str] = []
    with _warnings_lock:
        if _warnings_users == 0:
            _warnings_saved = warnings.catch_warnings()
            _warnings_saved.__enter__()
            _collect_by_thread()
        _warnings_users += 1
    _warnings_local.caught = caught
    try:
        yield caught
    finally:
        _warnings_local.caught = None
        with _warnings_lock:
            _warnings_users -= 1
            if _warnings_users == 0:
                _warnings_saved.__exit__(None, None, None)
                _warnings_saved = None


def _collect_by_thread() -> None:
    show = warnings.showwarning
    warnings.simplefilter("always")

    def collect(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        caught = getattr(_warnings_local, "caught", None)
        if caught is None:
            show(message, category, *where, **more)
        else:
            caught.append(" ".join(str(message).split()))
            if len(caught) > _MAX_WARNINGS:
                raise ValueError(f"more than {_MAX_WARNINGS} warnings, the last one {caught[-1][:80]}")

    warnings.showwarning = collect
