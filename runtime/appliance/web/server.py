"""The HTTP server: the sockets that it listens on, and the application that it runs on them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.configuration.endpoints import address_of
from spinescore.runtime.appliance.network import server_context
from spinescore.runtime.appliance.web.consolebody import PackedAnswers
from spinescore.runtime.appliance.web.limits import LimitedProtocol
from spinescore.runtime.errors import SpineScoreError

__all__ = ["Listener", "make_server", "open_sockets", "open_tcp_socket", "open_unix_socket", "socket_path"]  # fmt: skip

BACKLOG = 1024  # connections that the system keeps while a crowd is let in
_MODE = 0o660  # the owner and the group; uvicorn's own sockets are open to all users
_ANSWER_S = 1.0


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


_TICK_S = 1.0
_HANDSHAKE_S = 10.0

Listener = tuple[socket.socket, "ssl.SSLContext | None"]  # it listens already


class _Server(uvicorn.Server):
    """A server that tells once a second, from the loop that serves, that it is alive."""

    def __init__(self, config: uvicorn.Config, listeners: list[Listener], alive: Callable[[], None]) -> None:
        super().__init__(config)
        self._listeners, self._alive = listeners, alive

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. uvicorn itself has one TLS setting for all sockets."""
        await super().startup(sockets=[])
        for listener, tls in self._listeners:
            handshake_s = None if tls is None else _HANDSHAKE_S
            self.servers.append(await asyncio.get_running_loop().create_server(
                self._connection, sock=listener, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=handshake_s
            ))  # fmt: skip

    def _connection(self) -> LimitedProtocol:
        return LimitedProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            self._alive()
            await asyncio.sleep(_TICK_S)


def open_sockets(config: Config) -> list[Listener]:
    """Return the sockets of the configuration, which listen. Raises SpineScoreError if one cannot."""
    opened: list[Listener] = []
    if sys.platform != "win32":
        opened.append((open_unix_socket(socket_path(config)), None))
    http = config.http
    if http.tcp is not None:
        try:
            tls = None if http.tls is None else server_context(http.tls)
        except OSError as error:
            text = f"its certificate, key and authority cannot be used ({error})"
            raise SpineScoreError(f"http.tls: {text}; correct its paths") from None
        opened.append((open_tcp_socket(*address_of(http.tcp)), tls))
    return opened


def socket_path(config: Config) -> Path:
    return Path(config.http.socket or Path(config.spool.path) / "http.sock")


def make_server(app: Starlette, listeners: list[Listener], alive: Callable[[], None]) -> uvicorn.Server:
    """Return a server; its `run` serves until this process ends. `alive` is called once a second."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)  # it shows tracebacks, and can be flooded
    settings = uvicorn.Config(PackedAnswers(app), http=LimitedProtocol, loop="asyncio", ws="none", lifespan="off",
                              log_config=None, access_log=False, server_header=False, proxy_headers=False)  # fmt: skip
    return _Server(settings, listeners, alive)
