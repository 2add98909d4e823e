"""The client of archives over HTTP: answers that are built in an unusual way, and servers that answer too early."""

from __future__ import annotations

import gzip
import socket
import threading

import pytest

from helpers.hostile_http import Server, answer
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Denied, Unsent
from spinescore.runtime.appliance.webclient import WebClient

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PACKED = gzip.compress(b'{"a": 1}')


def whole(client):
    with client.file("/x") as pieces:
        return b"".join(pieces)


def raw(text):
    return lambda connection, request: connection.sendall(text)


@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_less_than_nothing_is_no_answer_and_fills_no_memory(size):
    sent = 0

    def flood(connection, request):
        nonlocal sent
        connection.sendall(CHUNKED + size + b"\r\n")
        while sent < 1 << 28:
            connection.sendall(bytes(1 << 16))
            sent += 1 << 16

    with Server(flood, raw(CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n")) as server:
        with pytest.raises(ConnectionError, match="without a whole answer"):
            WebClient(Web(server.url)).ask("GET", "/x")
        for ask in (whole, lambda client: client.ask("GET", "/x")):
            with pytest.raises(ConnectionError, match="without a whole answer"):
                ask(WebClient(Web(server.url)))
    assert sent < 1 << 28


def test_an_answer_in_chunks_is_whole_with_its_last_one():
    begin, end = CHUNKED + b'6\r\n{"a":1\r\n', b"1;x=y\r\n}\r\n0\r\nTrailer: a\r\n\r\n"
    with Server(raw(begin + end), raw(begin)) as server:
        assert WebClient(Web(server.url)).ask("GET", "/x").document() == {"a": 1}
        with pytest.raises(ConnectionError, match="without a whole answer"):
            WebClient(Web(server.url)).ask("GET", "/x")


def test_what_a_server_has_packed_unasked_is_unpacked():
    packed = answer(200, PACKED, Content_Encoding="gzip")
    with Server(packed, packed, answer(200, gzip.compress(bytes(50 << 20)), Content_Encoding="gzip")) as server:
        client = WebClient(Web(server.url))
        assert client.ask("GET", "/x").document() == {"a": 1}
        assert whole(client) == b'{"a": 1}'
        with pytest.raises(ConnectionError, match="answered with more than 4 MiB"):
            client.ask("GET", "/x")


@pytest.mark.parametrize("content", [PACKED[:-1], b"plain", b""])
def test_what_cannot_be_unpacked_is_no_whole_answer(content):
    with Server(answer(200, content, Content_Encoding="gzip")) as server:
        for ask in (whole, lambda client: client.ask("GET", "/x")):
            with pytest.raises(ConnectionError, match="without a whole answer"):
                ask(WebClient(Web(server.url)))


def test_a_refusal_that_comes_before_the_body_was_read_is_heard():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 10)
                connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(Denied, match="HTTP status 401"):
            WebClient(Web(f"http://127.0.0.1:{listener.getsockname()[1]}")).ask("POST", "/x", bytes(3 << 20))
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_without_a_port_has_the_port_of_its_scheme(scheme, monkeypatch):
    places = []

    def refuse(place, timeout):
        places.append(place)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", refuse)
    for host in ("[fd00::a]", "[::1]", "127.0.0.1"):
        with pytest.raises(Unsent, match="cannot be reached"):
            WebClient(Web(f"{scheme}://{host}")).ask("GET", "/x")
    port = {"http": 80, "https": 443}[scheme]
    assert places == [("fd00::a", port), ("::1", port), ("127.0.0.1", port)]
