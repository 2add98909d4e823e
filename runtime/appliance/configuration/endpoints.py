"""The tables `[[source]]`, `[[destination]]` and `[http]` of the configuration, and the types that tables share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from spinescore.runtime.fields import INLINE, OPTIONAL, Length, Within
from spinescore.runtime.outputs.formats import ResultFormat

__all__ = ["LONGEST_SOCKET", "Destination", "Http", "HttpToken", "Path_", "ResultKind", "Role", "Seconds",
           "SopClassName", "Source", "Tls", "Web", "address_of", "check_ae_title", "check_host"]  # fmt: skip

ResultKind = Literal[ResultFormat, "not-scored"]
SopClassName = Literal["CR", "DX", "DX for processing", "secondary capture", "XA", "RF", "Enhanced XA", "Enhanced XRF"]
Seconds = Annotated[float, Within(0.0, 86400.0), OPTIONAL]
Path_ = Annotated[str, Length(1, 4096)]
_OptionalPath = Annotated[str | None, OPTIONAL, Length(1, 4096)]

_DEFAULT_RESULTS: tuple[ResultKind, ...] = ("json", "sr", "not-scored")
_DICOM_RESULTS: tuple[ResultKind, ...] = ("sr", "gsps", "sc", "not-scored")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Tls:
    """Files in PEM: a certificate, its key, and the authority that the other side's certificate must be of."""

    cert: Path_
    key: Path_
    ca: Path_


@dataclass(frozen=True)
class Web:
    """A server of HTTP: its URL, the credential for it, and the certificates of both sides.

    Secrets are in files of one line. A relative name means a file of $CREDENTIALS_DIRECTORY if there is such a file.
    """

    url: Annotated[str | None, OPTIONAL, Length(1, 2048)] = None
    token_file: _OptionalPath = None  # sent as `Authorization: Bearer`
    user: Annotated[str | None, OPTIONAL, Length(1, 255)] = None
    password_file: _OptionalPath = None
    ca: _OptionalPath = None  # the authority of the server's certificate; without it those of the system
    cert: _OptionalPath = None  # shown to the server
    key: _OptionalPath = None

    def _check_fields(self, path: str) -> None:
        if self.url is not None and not _is_web_url(self.url):
            text = "expected http:// or https:// with a host, and without user, password, query and fragment"
            raise ValueError(f"{path}.url: {text}")
        for one, other in (("user", "password_file"), ("password_file", "user"), ("cert", "key"), ("key", "cert")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                raise ValueError(f"{path}.{one}: {other} is missing beside it; give that too, or remove it")
        if self.token_file is not None and self.user is not None:
            raise ValueError(f"{path}.token_file: there is a user with a password, too; remove it")
        for name in ("ca", "cert"):
            if getattr(self, name) is not None and not (self.url or "https:").startswith("https:"):
                raise ValueError(f"{path}.{name}: only https:// uses certificates; correct url, or remove it")


_WEB = ("token_file", "user", "password_file", "ca", "cert", "key")


@dataclass(frozen=True)
class Source:
    """A folder that is watched, or an Orthanc whose list of changes is followed.

    With `remove`, a file is removed from the folder after it was taken in. Of an Orthanc only radiographs of `classes`
    are fetched; without `history` those that it already has at the first start are not.
    """

    name: Annotated[str, Length(1, 64)]
    kind: Literal["folder", "orthanc"]
    path: _OptionalPath = None
    settle_s: Seconds = 2.0  # a file is taken in when it has not changed for so long
    poll_s: Annotated[float, Within(0.05, 3600.0), OPTIONAL] = 1.0
    remove: Annotated[bool, OPTIONAL] = False
    web: Annotated[Web, INLINE] = Web()
    classes: Annotated[tuple[SopClassName, ...], OPTIONAL, Length(1, 16)] = ("DX", "CR")
    history: Annotated[bool, OPTIONAL] = True

    def _check_fields(self, path: str) -> None:
        _check_name(self.name, path)
        kinds = {"folder": ("path", "settle_s", "remove"), "orthanc": ("url", *_WEB, "classes", "history")}
        _check_kind(self, path, "source", kinds, ("path", "url"))


@dataclass(frozen=True)
class Destination:
    """A place that gets the results: a folder, a DICOM archive, or an archive with STOW-RS or Orthanc's REST.

    A folder must exist: a disk that is not mounted would be taken for an empty one. An archive gets the results that
    are DICOM objects: of a study that was not scored, the report that says why.
    """

    name: Annotated[str, Length(1, 64)]
    kind: Literal["folder", "dicom", "stow", "orthanc"]
    path: _OptionalPath = None
    host: Annotated[str | None, OPTIONAL, Length(1, 255)] = None
    port: Annotated[int | None, OPTIONAL, Within(1, 65535)] = None
    ae_title: Annotated[str | None, OPTIONAL, Length(1, 16)] = None
    tls: Annotated[Tls | None, OPTIONAL] = None
    commitment: Annotated[bool, OPTIONAL] = False  # ask the archive to confirm that it keeps each object
    results: Annotated[tuple[ResultKind, ...], OPTIONAL, Length(1, 16)] = ()  # empty: what the kind usually gets
    web: Annotated[Web, INLINE] = Web()

    def _check_fields(self, path: str) -> None:
        _check_name(self.name, path)
        if self.ae_title is not None:
            check_ae_title(self.ae_title, path)
        if self.host is not None:
            check_host(self.host, path)
        kinds = {"folder": ("path",), "dicom": ("host", "port", "ae_title", "tls"), "stow": ("url", *_WEB),
                 "orthanc": ("url", *_WEB)}  # fmt: skip
        _check_kind(self, path, "destination", kinds, ("path", "host", "port", "ae_title", "url"))
        if self.commitment and self.kind != "dicom":
            raise ValueError(f"{path}.commitment: only an archive of the kind dicom confirms; remove it")
        other = [kind for kind in self.results if self.kind != "folder" and kind not in _DICOM_RESULTS]
        if other:
            text = f"{other[0]} is no DICOM object; an archive takes {', '.join(_DICOM_RESULTS)}"
            raise ValueError(f"{path}.results: {text}")

    @property
    def gets(self) -> tuple[ResultKind, ...]:
        return self.results or (_DEFAULT_RESULTS if self.kind == "folder" else ("sr", "not-scored"))


def _check_kind(
    end: Source | Destination, path: str, noun: str, kinds: Mapping[str, tuple[str, ...]], needed: tuple[str, ...]
) -> None:
    """Raise `ValueError` if the table lacks a field that its kind needs, or has a field of another kind."""
    for name in dict.fromkeys(name for names in kinds.values() for name in names):
        holder: Any = end if hasattr(end, name) else end.web
        is_given = getattr(holder, name) != getattr(type(holder), name)
        if name in kinds[end.kind] and name in needed and not is_given:
            raise ValueError(f"{path}.{name}: missing; a {noun} of the kind {end.kind} needs it")
        if name not in kinds[end.kind] and is_given:
            raise ValueError(f"{path}.{name}: a {noun} of the kind {end.kind} has no {name}; remove it")


def _check_name(name: str, path: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path}.name: expected small letters, digits and hyphens, found {name!r}")


def check_ae_title(title: str, path: str) -> None:
    """Check an AE title (PS3.5, section 6.2): printable ASCII characters without a backslash, and not blanks only."""
    if not title.strip() or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(f"{path}.ae_title: expected 1 to 16 ASCII characters, found {title!r}")


def check_host(host: str, path: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{path}.host: expected an address or a name, found {host!r}") from None


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for one that is no number
        check_host(str(parts.hostname), "")
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment and url.isascii() and url.isprintable()
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and " " not in url


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
