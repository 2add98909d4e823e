"""The table `[http]` of the configuration: where the service answers HTTP, and who may ask over TCP."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

from spinescore.runtime.appliance.configuration.endpoints import Path_, Tls
from spinescore.runtime.fields import OPTIONAL, Length, Within

__all__ = ["LONGEST_SOCKET", "Http", "HttpToken", "Role", "address_of"]

Role = Literal["console", "reader", "admin"]

LONGEST_SOCKET = 107  # bytes of the path of a unix socket (`sun_path` of unix(7), without its last zero)


@dataclass(frozen=True)
class HttpToken:
    """A token that a client over TCP shows, and what it may do. The file holds the token and nothing else.

    `name` is that of the reader who has the token: corrections that come with it are this reader's.
    """

    role: Role
    file: Path_
    name: Annotated[str | None, OPTIONAL, Length(1, 64)] = None

    def _check_fields(self, path: str) -> None:
        if self.name is not None and (not self.name.isprintable() or self.name != self.name.strip()):
            raise ValueError(f"{path}.name: expected 1 to 64 printable characters, found {self.name!r}")


@dataclass(frozen=True)
class Http:
    """Where the service answers HTTP: a unix socket, by default `http.sock` in the spool, and TCP if `tcp` is given.

    Whoever may open the socket's file may ask for everything. Over TCP a client needs a token, or a certificate.
    """

    socket: Annotated[str | None, OPTIONAL, Length(1, 4096)] = None
    tcp: Annotated[str | None, OPTIONAL, Length(1, 64)] = None  # an address and a port
    tls: Annotated[Tls | None, OPTIONAL] = None  # of the TCP port; clients must show a certificate of `ca`
    token: Annotated[tuple[HttpToken, ...], OPTIONAL, Length(0, 64)] = ()
    max_body_mb: Annotated[int, OPTIONAL, Within(1, 4096)] = 256  # of a console's call

    def _check_fields(self, path: str) -> None:
        if self.tcp is None:
            if self.token or self.tls:
                raise ValueError(f'{path}.tcp: missing; tokens and tls are for TCP, as tcp = "127.0.0.1:8080"')
            return
        try:
            address_of(self.tcp)
        except ValueError:
            text = f"expected an address and a port, as 127.0.0.1:8080 or [::1]:8080, found {self.tcp!r}"
            raise ValueError(f"{path}.tcp: {text}") from None
        if not self.token and self.tls is None:
            raise ValueError(f"{path}.token: missing; over TCP clients need a [[http.token]], or certificates with tls")


def address_of(text: str) -> tuple[str, int]:
    """Return the address and the port of a text, as `127.0.0.1:8080` or `[::1]:8080`. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = int(port) if port.isascii() and port.isdecimal() else 0
    if not 1 <= number <= 65535:
        raise ValueError(f"{port!r} is no port")
    return str(ipaddress.ip_address(host)), number
