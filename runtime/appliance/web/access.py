"""Permissions of clients: over the unix socket everything, over TCP the paths that the role of a token allows.

The review page itself needs no token: it holds no data. A request that changes anything and comes from a page of
another site, as its `Origin` says, is refused: a browser would send its certificate with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spinescore.runtime.appliance.configuration.endpoints import Http, Role
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.web.problems import problem
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import read_text

__all__ = ["CLIENT", "PUBLIC", "ROLES", "Access", "Client", "Guard", "allowed", "read_access"]

_LEAST_TOKEN = 16  # characters; a shorter one could be guessed
_MOST_TOKEN_BYTES = 4096
_BEARER = b"bearer "
# Answers have data of patients, which no browser and no proxy keeps, unless an answer says so itself.
_HEADERS = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}

CLIENT = "spinescore.client"  # where a request's scope has its `Client`
PUBLIC = re.compile(r"/|/review(/[^/]*)?")  # paths that need no token

_ALL: tuple[Role, ...] = ("console", "reader")

# The roles by method and the beginning of a path, where `*` is any name; the longest one that fits counts. An admin may
# ask for everything.
ROLES: Mapping[tuple[str, str], tuple[Role, ...]] = {
    ("GET", "/health/"): _ALL,
    ("GET", "/v2/health/"): _ALL,
    ("GET", "/metrics"): ("reader",),
    ("GET", "/openapi.json"): _ALL,
    ("GET", "/v1/version"): _ALL,
    ("GET", "/v1/status"): ("reader",),
    ("POST", "/v1/score"): ("console",),
    ("GET", "/v1/results/"): ("console", "reader"),
    ("GET", "/v1/studies"): ("reader",),
    ("POST", "/v1/studies"): ("console",),
    ("POST", "/v1/studies/"): (),
    ("POST", "/v1/studies/*/preview"): ("reader",),
    ("POST", "/v1/studies/*/points"): ("reader",),
    ("POST", "/v1/studies/*/grades"): ("reader",),
    ("POST", "/v1/studies/*/unreadable"): ("reader",),
    ("POST", "/v1/studies/*/readable"): ("reader",),
    ("POST", "/v1/studies/*/accept"): ("reader",),
    ("GET", "/v1/events"): ("reader",),
    ("POST", "/dicom-web/studies"): ("console",),
}


@dataclass(frozen=True)
class Client:
    """A client's role, and the reader's name if its token has one."""

    role: Role
    name: str | None = None


class Access:
    """The tokens of the configuration. They are compared as hashes, each of them, in a time that tells nothing."""

    def __init__(self, tokens: Mapping[str, Client], *, by_certificate: bool = False) -> None:
        """With `by_certificate`, TLS has checked each client's certificate, and there are no tokens."""
        self._clients = {_digest(token.encode()): client for token, client in tokens.items()}
        self._by_certificate = by_certificate

    def client(self, scope: Scope) -> Client | None:
        """Return the client of a request; None if it shows no valid token."""
        server = scope.get("server")
        if server is None or server[1] is None:  # the unix socket: it has no port
            return Client("admin")
        if self._by_certificate:
            return Client("admin")
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        digest = _digest(shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else b"")
        fits = [client for known, client in self._clients.items() if hmac.compare_digest(known, digest)]
        return fits[0] if fits else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def read_access(http: Http) -> Access:
    """Return the tokens of a configuration. Raises SpineScoreError for a file that holds none."""
    tokens: dict[str, Client] = {}
    for one in http.token:
        try:
            token = read_text(Path(one.file), _MOST_TOKEN_BYTES).strip()
        except (OSError, ValueError) as error:
            raise SpineScoreError(f"http.token: {one.file} cannot be read ({type(error).__name__}); write the token "
                                  "into it, and let the service read it") from None  # fmt: skip
        if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise SpineScoreError(f"http.token: {one.file} has to hold one token of at least {_LEAST_TOKEN} letters "
                                  "and digits; make one with: openssl rand -hex 32")  # fmt: skip
        client = Client(one.role, one.name)
        if tokens.get(token, client) != client:
            raise SpineScoreError(f"http.token: {one.file} holds the token of another role, or of a reader of another "
                                  "name; make one for each of them")  # fmt: skip
        tokens[token] = client
    return Access(tokens, by_certificate=http.tls is not None and not tokens)


def allowed(method: str, path: str) -> tuple[Role, ...]:
    """Return the roles that may ask for a path, besides the admin."""
    method = "GET" if method == "HEAD" else method
    fits = [begin for name, begin in ROLES if name == method and _begins(path, begin)]
    return ROLES[method, max(fits, key=len)] if fits else ()


def _begins(path: str, begin: str) -> bool:
    return re.match(re.escape(begin).replace(r"\*", "[^/]+"), path) is not None


class Guard:
    """An ASGI application around another one, which gets only the requests of those who may make them."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _with_headers(send)
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer for a request that may not be made; note the client of any other one."""
        reads = scope["method"] in ("GET", "HEAD")
        if reads and PUBLIC.fullmatch(scope["path"]):
            return None
        client = self._access.client(scope)
        if client is None:
            fault = Fault("http-request", "the request shows no token that this service knows")
            return problem(401, fault, {"WWW-Authenticate": 'Bearer realm="spinescore"'})
        if client.role != "admin" and client.role not in allowed(scope["method"], scope["path"]):
            return problem(403, Fault("http-request", f"the role {client.role} may not ask for this path"))
        if not reads and not _is_own(scope):
            text = "the request comes from a page of another site; a proxy in front has to pass on the header Host"
            return problem(403, Fault("http-request", text))
        scope[CLIENT] = client
        return None


def _with_headers(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return add


def _is_own(scope: Scope) -> bool:
    """Return whether a request comes from no page, or from a page of this service: its Origin has its own Host."""
    values = {name: value for name, value in scope["headers"] if name in (b"host", b"origin")}
    if b"origin" not in values:
        return True
    try:
        origin = str(urlsplit(values[b"origin"].decode("latin-1")).netloc)
    except ValueError:  # of an address in brackets
        return False
    host = str(values.get(b"host", b"").decode("latin-1"))
    return bool(host) and origin == host
