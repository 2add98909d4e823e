"""The sockets that the HTTP server listens on: a unix socket for the users of this machine, and TCP if it is wanted."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spinescore.runtime.appliance.configuration.httpconfig import LONGEST_SOCKET
from spinescore.runtime.errors import SpineScoreError

__all__ = ["BACKLOG", "open_tcp_socket", "open_unix_socket", "socket_fault"]

BACKLOG = 1024  # connections that the system keeps while a crowd is let in
_MODE = 0o660  # the owner and the group; uvicorn's own sockets are open to all users
_ANSWER_S = 1.0


def socket_fault(path: Path) -> str | None:
    """Return a sentence if a path is too long for a unix socket; None if it is not."""
    length = len(os.fsencode(path))
    if length <= LONGEST_SOCKET:
        return None
    return (
        f"http.socket: the path {path} has {length} bytes, and a unix socket's has at most {LONGEST_SOCKET}; name a "
        "shorter one, such as /run/spinescore/http.sock"
    )


def open_unix_socket(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, which its owner and group may open.

    A socket that a killed process left there is replaced. The path may be too long for clients; those that are in its
    folder can name the file alone. Raises SpineScoreError if the path is another file or the socket of a process that
    listens, or cannot be made.
    """
    if sys.platform == "win32":
        raise SpineScoreError("the appliance runs on Linux only")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as short:
            _remove_stale(path, short)
            before = os.umask(0o777 & ~_MODE)
            try:
                listener.bind(short)
            finally:
                os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        text = f"the socket {path} cannot be made ({error.strerror or error}); make its folder, or let it be written"
        raise SpineScoreError(f"http.socket: {text}") from None
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a path that is short enough for a unix socket and leads to the same file, while the block runs."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_stale(path: Path, short: str) -> None:
    """Remove a socket that nothing listens on any more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SpineScoreError(f"http.socket: {path} is no socket; remove it, or name another path")
    if sys.platform != "win32":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_ANSWER_S)
            try:
                client.connect(short)
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                return
            except TimeoutError:  # it listens, and is busy
                pass
    raise SpineScoreError(f"http.socket: another process listens on {path}; end it, or name another path")


def open_tcp_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address and port. Raises SpineScoreError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only with this protocol; without it an answer in two pieces takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":  # there, reuse would let another process listen on the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        text = f"nothing can listen on {host}, port {port} ({error.strerror}); name another address or port"
        raise SpineScoreError(f"http.tcp: {text}") from None
    return listener
