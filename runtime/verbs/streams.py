"""Standard output for results, and standard error for messages.

Both may be closed, full, or a pipe that nobody reads any more. A message is then dropped, so that it never costs a
result. Text for standard output is a result: `show` raises, and its caller decides how to go on.
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

_LONGEST = 8000  # characters of a message, since text of others in it may have any length


class ReaderGone(Exception):
    """The reader of standard output went away, as `head` and `more` do."""


def say(message: object) -> None:
    """Print a message on standard error, on one line. Never raises for the state of that stream."""
    if sys.stderr is None:  # closed before the program began
        return
    try:
        print(one_line(str(message)[:_LONGEST]), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _silence(sys.stderr)


def show(text: str) -> None:
    """Print text of several lines on standard output, unless that was closed before the program began.

    Raises `ReaderGone` if nobody reads it, and `OutputError` with the system's reason if it cannot be written.
    """
    _write(f"{several_lines(text)}\n")


def show_json(text: str) -> None:
    """Print JSON; characters that control a terminal are written as escapes of JSON. Raises as `show`."""
    _write(f"{as_json(text)}\n")


def flush() -> None:
    """Write out all that was printed so far. Raises as `show`."""
    _write("")


def _write(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        print(text, end="", flush=True)
    except (OSError, ValueError) as error:
        gone = isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EINVAL)  # EINVAL on Windows
        _silence(sys.stdout)
        if gone:
            raise ReaderGone from error
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"standard output cannot be written ({reason}); free space there, or let it go elsewhere"
        ) from error


def _silence(stream: TextIO) -> None:
    """Discard the stream from now on: text that it still holds would make Python end with another exit status."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # the program has put a stream of its own there
        pass


def keep_descriptors() -> None:
    """Open the standard streams that are closed.

    Otherwise the next file would get their numbers, and with them the messages of libraries.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)


def set_encoding() -> None:
    """Make standard output UTF-8 unless it is a terminal, as JSON requires; Windows would use its code page."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
