"""Standard output and standard error: what is said there is one line of printable text, and never costs a result.

Both may be closed, full, or a pipe that nobody reads any more. What goes to standard error is then dropped. What goes
to standard output is a result: `show` raises, and its caller decides what is still to be done.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from spinescore.runtime.errors import OutputError
from spinescore.runtime.text import as_json, one_line, several_lines

__all__ = ["ReaderGone", "flush", "keep_descriptors", "say", "set_encoding", "show", "show_json"]


_LONGEST = 8000  # characters of a message: what others wrote into it may be of any length


class ReaderGone(Exception):
    """The reader of standard output went away, as `head` and `more` do."""


def say(message: object) -> None:
    """A line for the person who waits, on standard error. Never raises for the state of that stream."""
    if sys.stderr is None:  # closed before the program began
        return
    try:
        print(one_line(str(message)[:_LONGEST]), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _silence(sys.stderr)


def show(text: str) -> None:
    """Print text of several lines on standard output; nothing if that was closed before the program began.

    Raises `ReaderGone`, and `OutputError` with the system's reason if the text cannot be written.
    """
    _write(f"{several_lines(text)}\n")


def show_json(text: str) -> None:
    """The same for JSON, in which letters that a terminal would obey are written as JSON's own escapes."""
    _write(f"{as_json(text)}\n")


def flush() -> None:
    """Write out what others printed. Raises as `show`."""
    _write("")


def _write(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        print(text, end="", flush=True)
    except (OSError, ValueError) as error:
        gone = isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EINVAL)  # Windows has the other one
        _silence(sys.stdout)
        if gone:
            raise ReaderGone from error
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"standard output cannot be written ({reason}); free space there, or let it go elsewhere"
        ) from error


def _silence(stream: TextIO) -> None:
    """From now on the stream goes nowhere: what it still holds would make Python end with a status of its own."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no stream of the system, as in a program that has put its own there
        pass


def keep_descriptors() -> None:
    """Open the standard streams that are closed: else the next file would take their numbers, and a library's words."""
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)


def set_encoding() -> None:
    """Make standard output UTF-8 where it is no terminal, as JSON must be: Windows would take its code page there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
