"""TLS contexts for the DICOM node and for archives, and the check of what a configuration says about the network."""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from pathlib import Path

from spinescore.runtime.appliance.config import Config, Tls
from spinescore.runtime.appliance.httpconfig import Http
from spinescore.runtime.appliance.web.sockets import socket_fault
from spinescore.runtime.errors import SpineScoreError

__all__ = ["check_network", "client_context", "server_context"]

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


def _load(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    return context


def check_network(config: Config) -> None:
    """Raise `SpineScoreError` if a package is missing, or a socket's path or a file of TLS cannot be used."""
    users = [one for one in config.destination if one.kind == "dicom"]
    if (config.node or users) and find_spec("pynetdicom") is None:
        raise SpineScoreError(
            "DICOM over the network needs pynetdicom, which is not installed; pip install 'spinescore[appliance]'"
        )
    if config.node is not None and config.node.tls is not None:
        _check_tls("node", config.node.tls, server=True)
    for one in users:
        if one.tls is not None:
            _check_tls(f"destination {one.name}", one.tls, server=False)
    _check_http(config.http)


def _check_http(http: Http) -> None:
    missing = [name for name in _HTTP_PACKAGES if find_spec(name) is None]
    if missing:
        raise SpineScoreError(f"the service answers over HTTP with {missing[0]}, which is not installed; "
                              "pip install 'spinescore[appliance]'")  # fmt: skip
    if http.socket is not None and (fault := socket_fault(Path(http.socket))):
        raise SpineScoreError(fault)
    if http.tls is not None:
        _check_tls("http", http.tls, server=True)


def _check_tls(where: str, tls: Tls, *, server: bool) -> None:
    for path in (tls.cert, tls.key, tls.ca):
        if not Path(path).is_file():
            raise SpineScoreError(f"{where}: there is no file {path}; correct its path in tls")
    try:
        server_context(tls) if server else client_context(tls)
    except OSError as error:
        raise SpineScoreError(f"{where}: its certificate, key and authority cannot be used ({error})") from None
