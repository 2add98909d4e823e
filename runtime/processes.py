"""Processes of this package's own: which Python runs them, the command that starts one, and how one ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import spawn
from pathlib import Path

__all__ = ["can_start", "end_with_parent", "ending", "interpreter", "worker_command"]

_NT_ERROR = 0xC0000000  # Windows ended the process itself if its status is this or higher


def interpreter() -> str:
    """The path of the Python that runs worker processes; empty in an application that embeds Python and names none."""
    found = os.fsdecode(spawn.get_executable() or "")
    return found if Path(found).name.lower().startswith(("python", "pypy")) else ""


def can_start() -> bool:
    """Whether a process of this package can be started: a frozen application would start itself a second time."""
    return bool(interpreter()) and not getattr(sys, "frozen", False)


def worker_command(module: str, argument: str, function: str = "main") -> list[str]:
    """The command for a new process that calls `function(argument)` of `module`, with this process' import path."""
    start = f"import sys; sys.path[:] = sys.argv[2:]; from {module} import {function}; {function}(sys.argv[1])"
    return [interpreter(), "-c", start, argument, *sys.path]


def end_with_parent() -> None:
    """End this process as soon as its standard input ends: the parent holds the other end, and is gone or lets go."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1):  # and not `sys.stdin`, whose lock would be held when this process ends of itself
        pass
    os._exit(1)


def ending(status: int) -> str:
    """How a process ended, in words."""
    try:
        if status >= _NT_ERROR:
            return f"exit status 0x{status:X}"  # of Windows, as 0xC0000005 for an access violation
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
