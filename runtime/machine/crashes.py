"""How a process of this package crashes on Windows. Decoders import this, so it imports nothing that is large."""

from __future__ import annotations

import sys

__all__ = ["crash_silently"]


def crash_silently() -> None:
    """Switch off the window in which Windows reports a crash, and which keeps the process until a user closes it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
