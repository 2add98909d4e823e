"""A server of HTTP on the loopback interface that does with each request what a test tells it to.

It is not built on a library of HTTP: it can answer with half a head, with too much, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Act = Callable[[socket.socket, Request], None]


class Server:
    """Does the acts of `plan` in turn, the last one again and again, one connection for each request."""

    def __init__(self, *plan: Act, tls: ssl.SSLContext | None = None) -> None:
        self.plan, self.requests, self.connections = list(plan), [], 0
        self._tls, self._end = tls, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Server:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self._tls)}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._end.is_set():
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            request = read_request(connection)
            self.requests.append(request)
            act = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
            act(connection, request)
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def read_request(connection: socket.socket) -> Request:
    stream = connection.makefile("rb")
    method, path, _ = stream.readline().decode().split(" ")
    headers = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, path, headers, stream.read(int(headers.get("content-length", 0))))


def answer(status: int, content: object = b"", **headers: str) -> Act:
    """An act: a whole answer. Content that is not bytes is sent as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def act(connection: socket.socket, request: Request) -> None:
        told = {"Content-Type": "application/dicom+json", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items() if value)
        connection.sendall(f"HTTP/1.1 {status} Told\r\n{head}\r\n".encode() + body)

    return act


def die(connection: socket.socket, request: Request) -> None:
    """An act: no answer."""


def hang(connection: socket.socket, request: Request) -> None:
    """An act: keep the connection open until the other side ends it."""
    while connection.recv(1024):
        pass


def half(connection: socket.socket, request: Request) -> None:
    """An act: less than was told."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 500\r\n\r\n{}")


def drip(connection: socket.socket, request: Request) -> None:
    """An act: a head without an end, a little of it every 50 ms."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    connection.settimeout(0.05)
    for number in count():
        connection.sendall(f"X-{number}: x\r\n".encode() if number < 90 else b"x")
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1024):
                return


def flood(connection: socket.socket, request: Request) -> None:
    """An act: an answer without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"[" * 0x10000 + b"\r\n")
