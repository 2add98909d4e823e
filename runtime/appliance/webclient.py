"""HTTP to archives, with limits: the time and the size of an answer, no redirects, no proxies, no cookies.

Each request has a connection of its own, so that a request never goes out on a connection that the server is closing.
A credential is read from its file for each request: a new one is used without a restart. Messages name the server and
never the path of a request, which holds UIDs.
"""

from __future__ import annotations

import json
import socket
import ssl
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.deadline import Deadline
from spinescore.runtime.appliance.fault import Denied, Unsent
from spinescore.runtime.appliance.network import read_secret, web_context

__all__ = ["Answer", "WebClient"]

_CONNECT_S, _SILENT_S = 10.0, 45.0
_ANSWER_S, _FILE_S = 60.0, 200.0  # from the request to the answer's last byte, without and with a file
_LARGEST_ANSWER = 4 << 20
_PIECE = 1 << 16
_GZIP = zlib.MAX_WBITS | 16  # some servers compress unasked


@dataclass(frozen=True)
class Answer:
    """A server's whole answer."""

    status: int
    content: bytes

    def document(self) -> Any:
        """Return the content as JSON; None if it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


class WebClient:
    """Asks one server. `ask` and `file` raise `ConnectionError` with a sentence, and `Denied` for its credential."""

    def __init__(self, web: Web) -> None:
        self._web, self._url = web, urlsplit(str(web.url).rstrip("/"))
        self._host = self._url.netloc

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the answer to a request."""
        limit_s = _FILE_S if body and len(body) > _PIECE else _ANSWER_S
        content = bytearray()
        with self._exchange(method, path, body, headers or {}, limit_s) as (response, pieces):
            for piece in pieces:
                content += piece
                if len(content) > _LARGEST_ANSWER:
                    raise ConnectionError(f"{self._host} answered with more than {_LARGEST_ANSWER >> 20} MiB")
        return Answer(response.status, bytes(content))

    @contextmanager
    def file(self, path: str) -> Iterator[Iterator[bytes] | None]:
        """Yield the pieces of a file; None if the server has no such file."""
        with self._exchange("GET", path, None, {}, _FILE_S) as (response, pieces):
            if response.status not in (200, 404):
                raise ConnectionError(f"{self._host} answered with the HTTP status {response.status}")
            if response.status == 200 and response.length is None and not response.chunked:
                raise ConnectionError(f"{self._host} does not tell where its files end")
            yield pieces if response.status == 200 else None

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], limit_s: float
    ) -> Iterator[tuple[HTTPResponse, Iterator[bytes]]]:
        """Yield an answer, and the pieces of its content as they arrive."""
        headers = {"User-Agent": "spinescore", "Connection": "close", **headers, **self._authorization()}
        with Deadline(limit_s) as deadline:
            with self._failures(deadline, limit_s):
                connection = self._connect(deadline)
            with closing(connection):
                with self._failures(deadline, limit_s):
                    if body is not None:  # sent in pieces, each with a time-out of its own
                        headers["Content-Length"] = str(len(body))
                    with suppress(ConnectionError):  # a server may refuse a body before it has read it
                        connection.request(method, self._url.path + path, body and BytesIO(body), headers)
                    response = connection.getresponse()
                with response:  # it keeps the connection's file open, also if it is not read to its end
                    self._check(response.status)
                    yield response, self._pieces(response, deadline, limit_s)

    def _connect(self, deadline: Deadline) -> HTTPConnection:
        """Return a connection that the deadline ends, in its TLS handshake too. Raises `Unsent` if there is none."""
        try:
            tls = web_context(self._web) if self._url.scheme == "https" else None
        except OSError as error:
            text = f"{self._host} cannot be asked: ca, cert or key cannot be used ({error.strerror or error})"
            raise Unsent(text) from None
        kind = HTTPConnection if tls is None else HTTPSConnection
        connection = kind(str(self._url.hostname), self._url.port or kind.default_port, blocksize=_PIECE)
        try:
            line = socket.create_connection((connection.host, connection.port), _CONNECT_S)
        except OSError:
            raise Unsent(f"{self._host} cannot be reached") from None
        try:
            line.settimeout(_SILENT_S)
            deadline.watch(line.dup())
            connection.sock = line if tls is None else tls.wrap_socket(line, server_hostname=connection.host)
        except BaseException:
            line.close()
            raise
        return connection

    def _check(self, status: int) -> None:
        if status in (301, 302, 303, 307, 308):
            raise ConnectionError(f"{self._host} sends requests on to another place; correct the url")
        if status in (401, 403):
            raise Denied(f"{self._host} does not accept {_credential(self._web)} (HTTP status {status})")

    def _authorization(self) -> dict[str, Any]:
        web = self._web
        if web.token_file:
            return {"Authorization": f"Bearer {read_secret(web.token_file)}".encode()}
        if web.user and web.password_file:
            return {"Authorization": b"Basic " + b64encode(f"{web.user}:{read_secret(web.password_file)}".encode())}
        return {}

    def _pieces(self, response: HTTPResponse, deadline: Deadline, limit_s: float) -> Iterator[bytes]:
        with self._failures(deadline, limit_s):
            is_packed = response.getheader("Content-Encoding", "").lower() == "gzip"
            unpacked = zlib.decompressobj(_GZIP) if is_packed else None
            buffer = memoryview(bytearray(_PIECE))
            while count := response.readinto(buffer):  # `read` would read a chunk of -1 bytes to its end
                yield bytes(buffer[:count]) if unpacked is None else unpacked.decompress(buffer[:count])
            if response.length or not (unpacked is None or unpacked.eof):  # something is missing
                raise IncompleteRead(b"", response.length)
            if deadline.is_over:  # the answer did not tell its length, and seems to be whole
                raise TimeoutError

    @contextmanager
    def _failures(self, deadline: Deadline, limit_s: float) -> Iterator[None]:
        """Raise `ConnectionError` without the text of the library, which holds the path."""
        try:
            yield
        except (HTTPException, OSError, zlib.error) as error:
            if isinstance(error, Unsent) and not deadline.is_over:
                raise
            reason = f"did not answer within {limit_s:g} s" if deadline.is_over else _reason(error)
            kind = Unsent if isinstance(error, Unsent) else ConnectionError
            raise kind(f"{self._host} {reason}") from None


def _credential(web: Web) -> str:
    if web.token_file:
        return f"the token in {web.token_file}"
    if web.user:
        return f"the user {web.user} with the password in {web.password_file}"
    if web.cert:
        return f"the certificate {web.cert}"
    return "requests without a credential; give token_file, or user and password_file"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not accepted ({error.verify_message}); correct ca, or the host in url"
    if isinstance(error, ssl.SSLError):
        return f"and this service do not agree on TLS ({error.reason or 'the connection ended'})"
    if isinstance(error, TimeoutError):
        return f"did not answer within {_SILENT_S:g} s"
    if isinstance(error, (HTTPException, ConnectionError, zlib.error)):
        return "ended the connection without a whole answer"
    return "cannot be reached"
