"""The verbs of the command line: functions of the parsed arguments that return the exit status."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "FAULT",
    "NOTHING_SCORED",
    "OK",
    "OVER_BUDGET",
    "REFUSED",
    "USAGE",
    "UsageError",
    "check_paths",
    "nobody_reads",
    "say",
    "write_utf8",
]

OK, FAULT, USAGE, NOTHING_SCORED, REFUSED, OVER_BUDGET = range(6)


class UsageError(Exception):
    """An argument that names something which is not there, or does not say what it should."""


def check_paths(paths: Iterable[Path]) -> None:
    """Refuse, before any work, a file or folder that is not there."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")


def say(message: str) -> None:
    """A line for the person who waits, on standard error."""
    print(message, file=sys.stderr, flush=True)


def write_utf8() -> None:
    """Make standard output UTF-8 where it is no terminal, as JSON must be: Windows would take its code page there."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def nobody_reads() -> bool:
    """Whether who read standard output is gone, as `head` and `more` go; Windows calls that an invalid argument."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False
