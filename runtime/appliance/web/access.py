"""Permissions of clients: over the unix socket everything, over TCP the paths that the role of a token allows."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from spinescore.runtime.appliance.configuration.httpconfig import Http, Role
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.web.problems import problem
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import read_text

__all__ = ["ROLES", "Access", "Guard", "allowed", "read_access"]

_LEAST_TOKEN = 16  # characters; a shorter one could be guessed
_MOST_TOKEN_BYTES = 4096
_BEARER = b"bearer "

_ALL: tuple[Role, ...] = ("console", "reader")

# The roles by method and the beginning of a path; the longest one that fits counts. An admin may ask for everything.
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
    ("POST", "/dicom-web/studies"): ("console",),
}


class Access:
    """The tokens of the configuration. They are compared as hashes, each of them, in a time that tells nothing."""

    def __init__(self, tokens: Mapping[str, Role], *, by_certificate: bool = False) -> None:
        """With `by_certificate`, TLS has checked each client's certificate, and there are no tokens."""
        self._roles = {_digest(token.encode()): role for token, role in tokens.items()}
        self._by_certificate = by_certificate

    def role(self, scope: Scope) -> Role | None:
        """Return the role of a request; None if it shows no valid token."""
        server = scope.get("server")
        if server is None or server[1] is None:  # the unix socket: it has no port
            return "admin"
        if self._by_certificate:
            return "admin"
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        digest = _digest(shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else b"")
        fits = [role for known, role in self._roles.items() if hmac.compare_digest(known, digest)]
        return fits[0] if fits else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def read_access(http: Http) -> Access:
    """Return the tokens of a configuration. Raises SpineScoreError for a file that holds none."""
    tokens: dict[str, Role] = {}
    for one in http.token:
        try:
            token = read_text(Path(one.file), _MOST_TOKEN_BYTES).strip()
        except (OSError, ValueError) as error:
            raise SpineScoreError(f"http.token: {one.file} cannot be read ({type(error).__name__}); write the token "
                                  "into it, and let the service read it") from None  # fmt: skip
        if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise SpineScoreError(f"http.token: {one.file} has to hold one token of at least {_LEAST_TOKEN} letters "
                                  "and digits; make one with: openssl rand -hex 32")  # fmt: skip
        if tokens.get(token, one.role) != one.role:
            raise SpineScoreError(f"http.token: {one.file} holds the token of another role; make one for each role")
        tokens[token] = one.role
    return Access(tokens, by_certificate=http.tls is not None and not tokens)


def allowed(method: str, path: str) -> tuple[Role, ...]:
    """Return the roles that may ask for a path, besides the admin."""
    method = "GET" if method == "HEAD" else method
    fits = [begin for name, begin in ROLES if name == method and path.startswith(begin)]
    return ROLES[method, max(fits, key=len)] if fits else ()


class Guard:
    """An ASGI application around another one, which gets only the requests of those who may make them."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            role = self._access.role(scope)
            refusal = None
            if role is None:
                fault = Fault("http-request", "the request shows no token that this service knows")
                refusal = problem(401, fault, {"WWW-Authenticate": 'Bearer realm="spinescore"'})
            elif role != "admin" and role not in allowed(scope["method"], scope["path"]):
                refusal = problem(403, Fault("http-request", f"the role {role} may not ask for this path"))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
