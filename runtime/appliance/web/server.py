"""Runs the HTTP application on sockets that are open already."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from spinescore.runtime.appliance.config import Config
from spinescore.runtime.appliance.httpconfig import address_of
from spinescore.runtime.appliance.web.sockets import open_tcp_socket, open_unix_socket

__all__ = ["open_sockets", "serve_http"]

_TICK_S = 1.0


class _Server(uvicorn.Server):
    """A server that tells once a second, from the loop that serves, that it is alive."""

    def __init__(self, config: uvicorn.Config, alive: Callable[[], None]) -> None:
        super().__init__(config)
        self._alive = alive

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            self._alive()
            await asyncio.sleep(_TICK_S)


def open_sockets(config: Config) -> list[socket.socket]:
    """Return the sockets of the configuration, which listen. Raises SpineScoreError if one cannot."""
    opened = [] if sys.platform == "win32" else [open_unix_socket(socket_path(config))]
    if config.http.tcp is not None:
        opened.append(open_tcp_socket(*address_of(config.http.tcp)))
    return opened


def socket_path(config: Config) -> Path:
    """Return the path of the unix socket: that of the configuration, or `http.sock` in the spool."""
    return Path(config.http.socket or Path(config.spool.path) / "http.sock")


def serve_http(app: Starlette, sockets: list[socket.socket], alive: Callable[[], None]) -> None:
    """Serve until this process ends; `alive` is called once a second."""
    settings = uvicorn.Config(app, http="httptools", loop="asyncio", ws="none", lifespan="off", log_config=None,
                              access_log=False, server_header=False, proxy_headers=False)  # fmt: skip
    _Server(settings, alive).run(sockets)
