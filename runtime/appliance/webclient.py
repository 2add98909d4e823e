"""HTTP to archives, with limits: the time and the size of an answer, no redirects, no proxies, no stored cookies.

Each request has a connection of its own, so that a request never goes out on a connection that the server is closing.
A credential is read from its file for each request: a new one is used without a restart. Messages name the server and
never the path of a request, which holds UIDs.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response, Session
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.exceptions import ConnectTimeout, ReadTimeout
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError, ReadTimeoutError

from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.configuration.secret import read_secret
from spinescore.runtime.appliance.deadline import Deadline
from spinescore.runtime.appliance.fault import Denied, Unsent

__all__ = ["Answer", "WebClient", "open_session", "raise_if_denied"]

_CONNECT_S, _SILENT_S = 10.0, 45.0
_ANSWER_S, _FILE_S = 60.0, 200.0  # from the request to the answer's last byte, without and with a file
_LARGEST_ANSWER = 4 << 20
_PIECE = 1 << 16


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
    """Asks one server. Use it in one thread."""

    def __init__(self, web: Web) -> None:
        self._web, self._session = web, open_session(web)
        self._url = str(web.url).rstrip("/")

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Return the answer to a request. Raises `ConnectionError`, and `Denied` if it needs another credential."""
        try:
            response = self._session.request(method, self._url + path, data=body)
        except RequestException:  # the adapter raises `ConnectionError`; this is from before it
            raise ConnectionError(f"{self._url} cannot be asked; correct the url") from None
        raise_if_denied(self._web, response.status_code)
        return Answer(response.status_code, response.content)

    @contextmanager
    def file(self, path: str) -> Iterator[Iterator[bytes] | None]:
        """Yield the pieces of a file; None if the server has no such file. Raises as `ask` does."""
        host = _host(self._url)
        try:
            with self._session.get(self._url + path, stream=True) as response:
                raise_if_denied(self._web, response.status_code)
                if response.status_code == 404:
                    yield None
                    return
                if response.status_code != 200:
                    raise ConnectionError(f"{host} answered with the HTTP status {response.status_code}")
                if not {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}:
                    raise ConnectionError(f"{host} does not tell where its files end")
                yield _pieces(response, host)
        finally:
            _current.end()


def open_session(web: Web) -> Session:
    """Return a session for one server. Its requests raise `ConnectionError` with a sentence, and nothing else."""
    from dicomweb_client.session_utils import create_session_from_auth

    for library in ("dicomweb_client", "retrying", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)  # their messages show paths, and answers
    session = create_session_from_auth(_Credential(web))
    session.trust_env = False
    session.verify = web.ca or True
    session.cert = (web.cert, web.key) if web.cert and web.key else None
    session.headers.update({"User-Agent": "spinescore", "Accept-Encoding": "identity"})
    session.mount(str(web.url), _Adapter())
    return session


def raise_if_denied(web: Web, status: int) -> None:
    """Raise `Denied` if a server answered that the credential of the configuration is not accepted."""
    if status in (401, 403):
        raise Denied(f"{_host(str(web.url))} does not accept {_credential(web)} (HTTP status {status})")


def _credential(web: Web) -> str:
    if web.token_file:
        return f"the token in {web.token_file}"
    if web.user:
        return f"the user {web.user} with the password in {web.password_file}"
    if web.cert:
        return f"the certificate {web.cert}"
    return "requests without a credential; give token_file, or user and password_file"


class _Credential(AuthBase):
    """Shows the credential of the configuration, as its file has it now."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._web.token_file:
            request.headers["Authorization"] = f"Bearer {read_secret(self._web.token_file)}"
        elif self._web.user and self._web.password_file:
            return HTTPBasicAuth(self._web.user.encode(), read_secret(self._web.password_file).encode())(request)
        return request


class _Adapter(HTTPAdapter):
    """Sends requests within the limits. One exchange at a time in a thread."""

    def __init__(self) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **settings: Any) -> None:
        super().init_poolmanager(*arguments, **settings)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def send(self, request: PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> Response:  # fmt: skip
        request.headers["Connection"] = "close"
        request.headers.pop("Host", None)  # dicomweb-client leaves the port out; without it urllib3 writes the header
        host, limit_s = _host(str(request.url)), _FILE_S if stream else _ANSWER_S
        if isinstance(request.body, bytes) and len(request.body) > _PIECE:
            request.body = BytesIO(request.body)  # sent in pieces, each with a time-out of its own
            limit_s = _FILE_S
        self.poolmanager.clear()  # a server may close a connection that it said it would keep
        deadline = _current.begin(limit_s)
        is_open = False
        try:
            response = super().send(request, True, (_CONNECT_S, _SILENT_S), verify, cert)
            if stream and not response.is_redirect:
                is_open = True
                return response
            with closing(response.raw):
                if response.is_redirect:
                    raise ConnectionError(f"{host} sends requests on to another place; correct the url")
                content = b"".join(_limited(_pieces(response, host), host))
            if deadline.is_over:  # the answer did not tell its length, and seems to be whole
                raise TimeoutError
            response.raw = BytesIO(content)
            return response
        except (RequestException, HTTPError, OSError) as error:
            if type(error) in (ConnectionError, Denied, Unsent):
                raise
            reason = f"did not answer within {limit_s:g} s" if deadline.is_over else _reason(error)
            kind = Unsent if any(isinstance(one, ConnectTimeoutError) for one in _chain(error)) else ConnectionError
            raise kind(f"{host} {reason}") from None
        finally:
            if not is_open:
                deadline.cancel()


class _Current(threading.local):
    """The deadline of a thread's exchange."""

    deadline: Deadline | None = None

    def begin(self, seconds: float) -> Deadline:
        self.end()
        self.deadline = Deadline(seconds)
        return self.deadline

    def end(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()


_current = _Current()


def _watched(connection: socket.socket) -> socket.socket:
    """Have the deadline watch a connection from before its TLS handshake, which takes the socket itself over."""
    if _current.deadline is not None:
        _current.deadline.watch(connection.dup())
    return connection


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _watched(super()._new_conn())


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _watched(super()._new_conn())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _pieces(response: Response, host: str) -> Iterator[bytes]:
    """Yield the content. Raises `ConnectionError` if it ends too early."""
    try:
        yield from response.raw.stream(_PIECE, decode_content=True)
    except (RequestException, HTTPError, OSError) as error:
        raise ConnectionError(f"{host} {_reason(error)}") from None


def _limited(pieces: Iterator[bytes], host: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _LARGEST_ANSWER:
            raise ConnectionError(f"{host} answered with more than {_LARGEST_ANSWER >> 20} MiB")
        yield piece


def _reason(error: BaseException) -> str:
    """Return the reason of a failed exchange, without the text of the libraries, which holds the path."""
    chain = _chain(error)
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"has a certificate that is not accepted ({one.verify_message}); correct ca, or the host in url"
        if isinstance(one, ssl.SSLError):
            return f"and this service do not agree on TLS ({getattr(one, 'reason', None) or 'the connection ended'})"
    if isinstance(chain[0], (ReadTimeout, ReadTimeoutError)):
        return f"did not answer within {_SILENT_S:g} s"
    if isinstance(chain[0], ConnectTimeout) or not any(isinstance(one, ProtocolError) for one in chain):
        return "cannot be reached"
    return "ended the connection without a whole answer"


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error with all errors behind it."""
    chain = [error]
    for one in chain:  # which grows: the libraries chain some errors, and hold others as an argument
        inner = (one.__cause__, one.__context__, *one.args)
        chain += [other for other in inner if isinstance(other, BaseException) and other not in chain]
    return chain


def _host(url: str) -> str:
    return urlsplit(url).netloc
