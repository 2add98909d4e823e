"""Keep the process's locale as it is while an engine loads networks."""

from __future__ import annotations

import locale
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["kept_locale"]

_lock = threading.Lock()
_inside = 0
_before = _during = ""


@contextmanager
def kept_locale() -> Iterator[None]:
    """Restore the locale when the last thread leaves, and keep the decimal point a point until then.

    OpenVINO sets the locale to C while it reads or writes its cache, and then back to the one it read before. A locale
    is one for all threads. Two threads that load together can therefore leave C behind, so that Python then opens text
    files in ASCII. One of them can also set a decimal comma back while the other still reads numbers. Other threads of
    the process see the decimal point for the time of the loading.
    """
    global _inside, _before, _during
    with _lock:
        if not _inside:
            _before = locale.setlocale(locale.LC_ALL)
            if locale.setlocale(locale.LC_NUMERIC) != "C":
                locale.setlocale(locale.LC_NUMERIC, "C")
            _during = locale.setlocale(locale.LC_ALL)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and locale.setlocale(locale.LC_ALL) in ("C", _during):  # else the program has chosen another
                with suppress(locale.Error):  # the locale's files were removed meanwhile
                    locale.setlocale(locale.LC_ALL, _before)
