"""The HTTP server in a thread of this process, and clients on plain sockets that send whatever a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from starlette.applications import Starlette

from spinescore.runtime.appliance.web import server
from spinescore.runtime.appliance.web.server import open_unix_socket

WAIT_S = 60.0

SCORE = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/dicom\r\n"
HIDDEN = b"GET /v1/version HTTP/1.1\r\nhost: x\r\n\r\n"
# Two servers could read these in two ways, and disagree on where the next request begins.
AMBIGUOUS = {
    "a length and chunks": SCORE + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": SCORE + b"content-length: 5\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two codings": SCORE + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an unknown coding": SCORE + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a space before the colon": SCORE + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded line": SCORE + b"a: b\r\n content-length: 5\r\n\r\n" + HIDDEN,
    "a lone carriage return": SCORE + b"a: b\rcontent-length: 5\r\n\r\n" + HIDDEN,
    "a zero byte": SCORE + b"a: b\0c\r\n\r\n" + HIDDEN,
    "a sign": SCORE + b"content-length: +5\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a length beyond all": SCORE + b"content-length: 99999999999999999999999\r\n\r\n" + HIDDEN,
    "a chunk beyond all": SCORE + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + HIDDEN,
    "line feeds alone": SCORE.replace(b"\r\n", b"\n") + b"\n" + HIDDEN,
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "trailers without end": SCORE
    + b"transfer-encoding: chunked\r\n\r\n0\r\na: "
    + b"b" * 40_000
    + b"\r\n\r\n"
    + HIDDEN,
}


def serving(app: Starlette, path: Path):
    """Serve an application on a unix socket."""
    return running([(open_unix_socket(path), None)], app)


@contextlib.contextmanager
def running(listeners: list[server.Listener], app: Starlette):
    """Serve an application on sockets."""
    one = server.make_server(app, listeners, lambda: None)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield
    finally:
        one.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(WAIT_S)
    client.connect(str(path))
    return client


def answer(client: socket.socket) -> tuple[int, str, str]:
    """The status, the head and the body of an answer; status 0 if the connection ends without one."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in received and (piece := client.recv(65536)):
            received += piece
        if not received:
            return 0, "", ""
        head, _, body = received.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(lines[b"content-length"]) and (piece := client.recv(65536)):
            body += piece
        return int(head.split()[1]), head.decode(), body.decode()
    return 0, "", ""


def ask(path: Path, request: str, body: bytes = b"") -> tuple[int, str, str]:
    with connect(path) as client:
        client.sendall(f"{request} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return answer(client)


def exchange(path: Path, request: bytes) -> bytes:
    """Everything that comes for these bytes until the connection ends; nothing more is sent."""
    received = b""
    with connect(path) as client, contextlib.suppress(OSError):
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            received += piece
    return received
