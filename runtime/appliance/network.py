"""TLS contexts and secrets of node and archives, and the check of all that a configuration needs for the network."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from spinescore.runtime.appliance.configuration.config import Config, Tls
from spinescore.runtime.appliance.configuration.endpoints import LONGEST_SOCKET, Http, Web
from spinescore.runtime.appliance.fault import Denied
from spinescore.runtime.errors import SpineScoreError

__all__ = ["certificate_faults", "client_context", "network_faults", "read_secret", "server_context", "socket_fault",
           "web_context"]  # fmt: skip

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# The two times of a certificate's validity in DER, each a UTCTime or a GeneralizedTime (RFC 5280, section 4.1.2.5).
_TIME = rb"(?:\x17\r|\x18\x0f)([0-9]{12,14}Z)"
_VALIDITY = re.compile(rb"0." + _TIME + _TIME, re.DOTALL)
_INSTALL = "pip install 'spinescore[appliance]'"
_HTTP_PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client")


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a TLS server: TLS 1.2 or later, and peers must show a certificate of the authority.

    Raises `OSError` (`ssl.SSLError` is one) if a file cannot be read or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, tls)


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a TLS client: TLS 1.2 or later, and the server's certificate must name its host.

    Raises `OSError` (`ssl.SSLError` is one) if a file cannot be read or does not fit.
    """
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def web_context(web: Web) -> ssl.SSLContext:
    """Return the context of a client of HTTP, which shows a certificate if it has one. Raises as `client_context`."""
    context = ssl.create_default_context(cafile=web.ca)
    if web.cert:
        context.load_cert_chain(web.cert, web.key, password="")  # an encrypted key must not ask for its password
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    return context


def network_faults(config: Config) -> list[str]:
    """Return a sentence for each package that is missing, and each certificate or secret that cannot be used."""
    archives = [one for one in config.destination if one.kind == "dicom"]
    web = {f"{noun} {one.name}": one.web
           for noun, entries in (("source", config.source), ("destination", config.destination))
           for one in entries if one.web.url is not None}  # fmt: skip
    faults = []
    if (config.node or archives) and find_spec("pynetdicom") is None:
        faults.append(f"DICOM over the network needs pynetdicom, which is not installed; {_INSTALL}")
    if config.node is not None and config.node.tls is not None:
        tls = config.node.tls
        faults += _file_faults("node", (tls.cert, tls.key, tls.ca), partial(server_context, tls))
    for one in archives:
        if one.tls is not None:
            files = (one.tls.cert, one.tls.key, one.tls.ca)
            faults += _file_faults(f"destination {one.name}", files, partial(client_context, one.tls))
    for where, settings in web.items():
        faults += _web_faults(where, settings)
    return [*faults, *_http_faults(config.http)]


def certificate_faults(config: Config, now: datetime) -> list[str]:
    """Return a sentence for each certificate of the configuration that is not valid at a time."""
    node = None if config.node is None else config.node.tls
    tables = [tls for tls in (node, config.http.tls, *(one.tls for one in config.destination)) if tls is not None]
    web = [*(one.web for one in config.source), *(one.web for one in config.destination)]
    paths = [*(path for tls in tables for path in (tls.cert, tls.ca)),
             *(path for one in web for path in (one.cert, one.ca) if path)]  # fmt: skip
    faults = []
    for path in dict.fromkeys(paths):
        with suppress(OSError, ValueError):  # `network_faults` tells of those
            faults.append(_validity_fault(Path(path), now))
    return [fault for fault in faults if fault is not None]


def _validity_fault(path: Path, now: datetime) -> str | None:
    """Return a sentence if the first certificate of a PEM file is not valid at a time; None if it is.

    Raises OSError or ValueError if the file cannot be read.
    """
    pem = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
    validity = pem and _VALIDITY.search(ssl.PEM_cert_to_DER_cert(pem[0]))
    if not validity:
        raise ValueError(f"{path} has no certificate")
    begin, end = (datetime.strptime(_century(time.decode()) + "+0000", "%Y%m%d%H%M%SZ%z")
                  for time in validity.groups())  # fmt: skip
    if begin <= now <= end:
        return None
    reason = f"is not valid before {begin:%Y-%m-%d %H:%M}" if now < begin else f"was valid until {end:%Y-%m-%d %H:%M}"
    return f"the certificate {path} {reason} UTC; replace it, or correct the machine's date"


def _century(time: str) -> str:
    """Return a time with four digits of its year; of two, 50 and later are of the last century."""
    return time if len(time) == 15 else ("19" if time >= "50" else "20") + time


def _http_faults(http: Http) -> Iterator[str]:
    missing = [package for package in _HTTP_PACKAGES if find_spec(package) is None]
    yield from (f"the service answers over HTTP with {one}, which is not installed; {_INSTALL}" for one in missing)
    if not missing:
        from spinescore.runtime.appliance.web.access import read_access

        try:
            read_access(http)
        except SpineScoreError as error:
            yield str(error)
    if http.socket is not None and (fault := socket_fault(Path(http.socket))):
        yield fault
    if http.tls is not None:
        yield from _file_faults("http", (http.tls.cert, http.tls.key, http.tls.ca), partial(server_context, http.tls))


def socket_fault(path: Path) -> str | None:
    """Return a sentence if a path is too long for a unix socket; None if it is not."""
    length = len(os.fsencode(path))
    if length <= LONGEST_SOCKET:
        return None
    return (
        f"http.socket: the path {path} has {length} bytes, and a unix socket's has at most {LONGEST_SOCKET}; name a "
        "shorter one, such as /run/spinescore/http.sock"
    )


def _web_faults(where: str, web: Web) -> Iterator[str]:
    for fault in map(_secret_fault, filter(None, (web.token_file, web.password_file))):
        if fault is not None:
            yield f"{where}: {fault}; write it there, or correct the path"
    yield from _file_faults(where, (web.cert, web.key, web.ca), partial(web_context, web))


def _secret_fault(path: str) -> str | None:
    try:
        read_secret(path)
    except Denied as error:
        return str(error)
    return None


def _file_faults(where: str, files: Iterable[str | None], load: Callable[[], object]) -> Iterator[str]:
    """Yield the faults of certificate, key and authority, which `load` loads."""
    missing = [path for path in files if path and not Path(path).is_file()]
    yield from (f"{where}: there is no file {path}; correct its path" for path in missing)
    if not missing:
        try:
            load()
        except OSError as error:
            yield f"{where}: its certificate, key and authority cannot be used ({error})"


_LONGEST = 16384


def read_secret(path: str) -> str:
    """Return the line of a file. Raises `Denied` if there is none."""
    try:
        with Path(path).open("rb") as file:
            secret = file.read(_LONGEST).decode().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Denied(f"the credential in {path} cannot be read ({reason})") from None
    if not secret or not secret.isprintable():
        raise Denied(f"the credential in {path} is not one line of text")
    return secret
