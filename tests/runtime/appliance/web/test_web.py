"""The HTTP server on a unix socket, in a thread: its socket, its answers, and clients that mean no good."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from helpers.web_server import WAIT_S, answer, ask, connect, running, serving
from spinescore.runtime.appliance.configuration.endpoints import Tls
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.network import server_context, socket_fault
from spinescore.runtime.appliance.seen.ready import Alive, write_alive
from spinescore.runtime.appliance.web import limits, server
from spinescore.runtime.appliance.web import site as site_module
from spinescore.runtime.appliance.web.access import Access
from spinescore.runtime.appliance.web.app import make_app
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.problems import HANDLERS, Problem
from spinescore.runtime.appliance.web.server import open_tcp_socket, open_unix_socket
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.errors import SpineScoreError


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())}")


async def refuse(request: Request) -> PlainTextResponse:
    raise Problem(503, Fault("no-space", "the disk is full"), {"Retry-After": "5"})


async def fail(request: Request) -> PlainTextResponse:
    raise RuntimeError("Quorvexel^Zarnith")


APP = Starlette(
    routes=[Route("/echo", echo, methods=["GET", "POST"]), Route("/refuse", refuse), Route("/fail", fail)],
    exception_handlers=HANDLERS,
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_TICK_S", 0.05)
    with serving(APP, tmp_path / "s"):
        yield tmp_path / "s"


def test_a_socket_is_for_its_owner_and_group(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert ask(path, "POST /echo", b"x" * 300_000) == (200, *ask(path, "POST /echo", b"x" * 300_000)[1:])


def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path):
    open_unix_socket(tmp_path / "s").close()
    assert (tmp_path / "s").is_socket()
    with open_unix_socket(tmp_path / "s"), pytest.raises(SpineScoreError, match="another process listens"):
        open_unix_socket(tmp_path / "s")
    (tmp_path / "f").write_text("")
    with pytest.raises(SpineScoreError, match="is no socket"):
        open_unix_socket(tmp_path / "f")
    with pytest.raises(SpineScoreError, match="cannot be made"):
        open_unix_socket(tmp_path / "none" / "s")


def test_a_path_that_is_too_long_is_said_but_serves_those_in_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    assert "107" in socket_fault(folder / "s")
    assert socket_fault(Path("/run/spinescore/http.sock")) is None
    monkeypatch.setattr(server, "_TICK_S", 0.05)
    with serving(APP, folder / "s"):
        monkeypatch.chdir(folder)
        assert ask(Path("s"), "GET /echo")[0] == 200


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [
        ("GET /none", 404, "http-request"),
        ("DELETE /echo", 405, "http-request"),
        ("GET /refuse", 503, "no-space"),
        ("GET /fail", 500, "http-fault"),
    ],
)
def test_errors_are_problems(path, request_line, status, code, capfd):
    found, head, body = ask(path, request_line)
    document = json.loads(body)
    assert (found, document["status"], document["code"]) == (status, status, code)
    assert "application/problem+json" in head
    assert set(document) == {"type", "title", "status", "detail", "code", "next_step"}
    assert "Zarnith" not in body + "".join(capfd.readouterr())
    assert ("retry-after: 5" in head.lower()) == (status == 503)


@pytest.mark.parametrize("header", ["x: " + "y" * 60_000, "\r\n".join(f"x{n}: {'y' * 500}" for n in range(100))])
def test_a_head_that_is_too_large_is_refused(path, header):
    with connect(path) as client:
        client.sendall(f"GET /echo HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n".encode())
        assert answer(client)[0] == 431


def test_a_head_that_never_ends_is_refused(path):
    with connect(path) as client:
        client.sendall(b"GET /echo HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.sendall(b"x" * 1000)
                time.sleep(0.001)
        assert answer(client)[0] in (431, 0)
    with connect(path) as client:
        client.sendall(b"\x16\x03\x01\x02\r\n\r\n")
        assert answer(client)[0] == 400
    assert ask(path, "GET /echo")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /ec", b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"])
def test_a_client_that_is_too_slow_is_cut_off(path, sent, monkeypatch):
    for name in ("HEAD_S", "BODY_S"):
        monkeypatch.setattr(limits, name, 0.2)
    with connect(path) as client:
        client.sendall(sent)
        assert answer(client)[0] == 0


def test_a_crowd_of_silent_clients_holds_up_nobody(path):
    with contextlib.ExitStack() as crowd:
        for number in range(300):
            client = crowd.enter_context(connect(path))
            if number % 2:
                client.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
        for _ in range(20):
            assert ask(path, "POST /echo", b"123")[::2] == (200, "3")


def test_a_client_that_asks_much_and_takes_nothing_holds_up_nobody(path):
    request = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
    with connect(path) as client:
        client.sendall(request * 3)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3:
            received += client.recv(65536)
    with contextlib.ExitStack() as crowd:
        for _ in range(50):
            client = crowd.enter_context(connect(path))
            with contextlib.suppress(OSError):
                client.sendall(request * 300)
        for _ in range(20):
            assert ask(path, "POST /echo", b"123")[::2] == (200, "3")


def test_ready_follows_the_supervisor_and_answers_are_shared(make, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_TICK_S", 0.05)
    appliance = make()
    consoles = Consoles().open(appliance.places, appliance.clock, lambda **_: None)
    site = Site(appliance.config, appliance.places, appliance.clock, Access({}), consoles)
    opened = []
    monkeypatch.setattr(appliance.places, "has_room", lambda *_: opened.append(1) or True)
    with serving(make_app(site), tmp_path / "s"):
        assert ask(tmp_path / "s", "GET /health/live")[0] == 200
        status, _, body = ask(tmp_path / "s", "GET /health/ready")
        assert (status, json.loads(body)["ready"]) == (503, False)
        write_alive(appliance.places, Alive(1000.0, {}, {"state": "ready"}, "", None))
        deadline = time.monotonic() + WAIT_S
        while ask(tmp_path / "s", "GET /v2/health/ready")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ask(tmp_path / "s", "GET /health/ready")[::2] == (200, '{"ready":true}')
        monkeypatch.setattr(site_module, "_FRESH_S", 3600.0)
        count = len(opened)
        assert {ask(tmp_path / "s", "GET /health/ready")[0] for _ in range(20)} == {200}
        assert len(opened) == count
        status, head, text = ask(tmp_path / "s", "GET /metrics")
        assert (status, "text/plain" in head, "spinescore_ready 1.0" in text) == (200, True, True)
        assert json.loads(ask(tmp_path / "s", "GET /v1/status")[2])["schema"] == "spinescore.appliance-status/1"


def test_over_tls_a_client_needs_a_certificate(certificates, monkeypatch):
    monkeypatch.setattr(server, "_TICK_S", 0.05)
    files = (str(certificates / name) for name in ("server.pem", "server.key", "ca.pem"))
    listener = open_tcp_socket("127.0.0.1", 0)
    address = listener.getsockname()
    stranger = ssl.create_default_context(cafile=certificates / "ca.pem")
    known = ssl.create_default_context(cafile=certificates / "ca.pem")
    known.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with running([(listener, server_context(Tls(*files)))], APP):
        assert [status_over_tls(address, context) for context in (known, stranger)] == [200, 0]


def status_over_tls(address: tuple[str, int], context: ssl.SSLContext) -> int:
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.suppress(ssl.SSLError, ConnectionError))
        plain = opened.enter_context(socket.create_connection(address, WAIT_S))
        client = opened.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
        client.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        return answer(client)[0]
    return 0


def test_the_process_needs_neither_pydicom_nor_an_engine():
    code = ("import sys; import spinescore.runtime.appliance.service, spinescore.runtime.appliance.web.app, "
            "spinescore.runtime.appliance.web.server; print([name for name in ('pydicom', 'pynetdicom', 'onnxruntime', "
            "'cv2', 'openvino') if name in sys.modules])")  # fmt: skip
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_body_that_is_refused_early_is_no_head(path):
    """The client gets the answer while it still sends, and its connection stays good."""
    with connect(path) as client:
        client.sendall(b"GET /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n")
        assert answer(client)[0] == 503
        client.sendall(b"x" * 300_000 + b"GET /refuse HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer(client)[0] == 503
