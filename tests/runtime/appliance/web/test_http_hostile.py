"""Requests that mean no good: ambiguous lengths, odd methods, options that come twice, archives without end."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile

import pytest

from helpers.http_calls import FORM, TCP, described, form
from helpers.web_server import AMBIGUOUS, ask, connect, exchange, serving
from spinescore.runtime.appliance.web import bodies, events, limits, server

DICOM, ZIP = "application/dicom", "application/zip"


@pytest.fixture
def path(served, tmp_path, monkeypatch):
    """The socket of a server with the whole application."""
    monkeypatch.setattr(server, "_TICK_S", 0.05)
    with serving(served.app, tmp_path / "s"):
        yield tmp_path / "s"


def test_what_two_servers_could_read_in_two_ways_ends_the_connection(path):
    for name, request in AMBIGUOUS.items():
        received = exchange(path, request)
        assert received.count(b"HTTP/1.1 ") == 1, (name, received)
        assert received.split()[1] in (b"400", b"431"), (name, received)
        assert b"connection: close" in received
    assert ask(path, "GET /v1/version")[0] == 200


@pytest.mark.parametrize("wish", [
    "connection: upgrade\r\nupgrade: h2c", "connection: upgrade\r\nupgrade: websocket", "range: bytes=0-1",
    "if-none-match: *", "if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT", "origin: https://evil.example",
])  # fmt: skip
def test_another_protocol_a_part_or_an_older_copy_is_not_given(path, wish):
    head, _, body = exchange(path, f"GET /v1/version HTTP/1.1\r\nhost: x\r\n{wish}\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    assert (head.split()[1], json.loads(body)["name"]) == (b"200", "spinescore")
    assert b"access-control" not in head.lower()


def paths_of(served):
    """Each path of the description, for study 1."""
    key = served.get("/v1/studies/1")["report_url"].split("/")[5]
    values = {"number": "1", "region": "lumbar", "key": key, "file": "report.json"}
    return [path.replace("{file}", "review.js").format(**values) if path.startswith("/review/")
            else path.format(**values) for path in described()["paths"]]  # fmt: skip


def test_each_path_takes_its_own_methods_alone_and_no_answer_is_kept(served, files):
    served.appliance.receive(*files)
    served.appliance.run(10)
    for path in paths_of(served):
        for method in ("OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
            headers = [("access-control-request-method", "POST")]
            refused = served.ask(method, path, headers=headers)
            assert refused.status == 405
            assert set(refused.headers["allow"].split(", ")) <= {"GET", "HEAD", "POST"}
            foreign = served.ask(method, path, headers=[*headers, ("origin", "https://evil.example")])
            assert not [name for name in (*refused.headers, *foreign.headers) if name.startswith("access-control")]
        if path == "/v1/events":
            continue
        got, head = served.ask("GET", path), served.ask("HEAD", path)
        assert got.status == head.status, path
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cache-control"] == ("no-cache" if path.startswith("/review") else "private, no-store"), path


def test_a_token_in_the_address_is_none(served):
    for query in ("token=reader-token", "access_token=reader-token", "authorization=Bearer%20reader-token"):
        answer = served.ask("GET", f"/v1/studies?{query}", server=TCP)
        assert (answer.status, "reader-token" in answer.body.decode()) == (401, False)
    cookie = [("cookie", "token=reader-token; authorization=Bearer reader-token")]
    assert served.ask("GET", "/v1/studies", server=TCP, headers=cookie).status == 401


def test_options_that_come_twice_or_in_another_form_are_refused(served):
    for query in ("state=due&state=parked", "since=2026-01-01&since=", "until=20261129", "since=2026-W01-1",
                  "cursor=1e3", "cursor=%D9%A1", "state=%00"):  # fmt: skip
        assert served.ask("GET", f"/v1/studies?{query}").status == 400, query
    for query in ("budget_ms=5000&budget_ms=6000", "budget_ms=1_000", "budget_ms=1e999", "budget_ms=-0", "strict=%ff",
                  "formats=" + "json," * 3000, "token=x"):  # fmt: skip
        assert served.ask("POST", f"/v1/score?{query}", b"x", DICOM).status == 400, query
    for kind in ("deliver", "dismiss"):
        assert served.ask("POST", f"/v1/studies/1/{kind}?destination=out&destination=all").status == 400


@pytest.mark.parametrize("text", [
    b'{"budget_ms": 1e999}', b'{"budget_ms": NaN}', b'{"budget_ms": -0}', b'{"budget_ms": -Infinity}',
    b'{"budget_ms": 5000, "budget_ms": 6000}', b'{"budget_ms": ' + b"9" * 5000 + b"}", b"[" * 60_000,
    b'{"views": ' * 6000, b'{"strict": 1}', b'{"formats": ["\\ud800"]}', b'{"formats": {"sr": true}}',
    b'{"views": [{"part": "a", "rows": 1e2, "columns": -0, "bits_allocated": 8}]}',
])  # fmt: skip
def test_numbers_and_nesting_of_options_are_those_of_json(served, text):
    answer = served.ask("POST", "/v1/score", form(("request", "application/json", text), ("a", DICOM, b"x")), FORM)
    assert (answer.status, answer.code) == (400, "http-request")
    assert len(answer.body) < 1000


def test_ten_thousand_parts_are_not_taken(served):
    for path in ("/v1/score", "/v1/studies"):
        body = form(*((f"p{number}", DICOM, b"x") for number in range(10_000)))
        assert served.ask("POST", path, body, FORM, piece=1 << 16).status == 413


def zipped(*entries):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writing:
        for name, content in entries:
            writing.writestr(name, content)
    return archive.getvalue()


def test_archives_that_unpack_for_ever_are_refused(served, files):
    inner = zipped(*((path.name, path.read_bytes()) for path in files))
    nested = inner
    for _ in range(20):
        nested = zipped(("more.zip", nested))
    many = zipped(*((f"{number}.dcm", b"") for number in range(5000)))
    for body, code in ((zipped(("a.dcm", bytes(100 << 20))), "too-large"), (many, "too-large"), (nested, "no-image"),
                       (inner[:-30], "not-dicom")):  # fmt: skip
        answer = served.ask("POST", "/v1/score", body, ZIP, piece=1 << 16)
        assert (answer.status, answer.code) == (422, code)


def test_a_body_that_comes_too_slowly_is_told_so(served, monkeypatch):
    monkeypatch.setattr(bodies, "_BODY_S", 0.05)

    def stalled(path, kind):
        async def receive():
            await asyncio.sleep(3600)

        async def whole():
            sent = []
            scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
                     "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": None, "scheme": "http",
                     "server": ("/s", None), "headers": [(b"content-type", kind.encode())]}  # fmt: skip

            async def send(message):
                sent.append(message)

            await served.app(scope, receive, send)
            return sent[0]["status"]

        return asyncio.run(whole())

    for path, kind in (("/v1/score", DICOM), ("/v1/studies", FORM), ("/v1/studies/1/grades", "application/json"),
                       ("/dicom-web/studies", f'multipart/related; type="{DICOM}"; boundary=x')):  # fmt: skip
        assert stalled(path, kind) == 408, path
    assert not list(served.appliance.places.incoming.iterdir())


def test_listeners_that_never_read_are_cut_off_and_leave_their_places(path, monkeypatch):
    monkeypatch.setattr(limits, "ANSWER_S", 1.0)
    listen = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n"
    deaf = [connect(path) for _ in range(events._MOST)]
    try:
        for client in deaf:
            client.sendall(listen)
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert ask(path, "GET /v1/events")[0] == 503
        for client in deaf:
            while client.recv(65536):
                pass
        with connect(path) as again:
            again.sendall(listen)
            assert again.recv(15) == b"HTTP/1.1 200 OK"
    finally:
        for client in deaf:
            client.close()
