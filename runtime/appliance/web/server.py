"""Runs the HTTP application on sockets that are open already."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.configuration.httpconfig import address_of
from spinescore.runtime.appliance.network import server_context
from spinescore.runtime.appliance.web.consolebody import PackedAnswers
from spinescore.runtime.appliance.web.limits import LimitedProtocol
from spinescore.runtime.appliance.web.sockets import BACKLOG, open_tcp_socket, open_unix_socket
from spinescore.runtime.errors import SpineScoreError

__all__ = ["Listener", "make_server", "open_sockets", "serve_http", "socket_path"]

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
    """Return the path of the unix socket: that of the configuration, or `http.sock` in the spool."""
    return Path(config.http.socket or Path(config.spool.path) / "http.sock")


def make_server(app: Starlette, listeners: list[Listener], alive: Callable[[], None]) -> uvicorn.Server:
    """Return a server; its `run` serves until this process ends. `alive` is called once a second."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)  # it shows tracebacks, and can be flooded
    settings = uvicorn.Config(PackedAnswers(app), http=LimitedProtocol, loop="asyncio", ws="none", lifespan="off",
                              log_config=None, access_log=False, server_header=False, proxy_headers=False)  # fmt: skip
    return _Server(settings, listeners, alive)


def serve_http(app: Starlette, listeners: list[Listener], alive: Callable[[], None]) -> None:
    """Serve until this process ends; `alive` is called once a second."""
    make_server(app, listeners, alive).run()
