"""HTTP without a library: calls of an ASGI application in this process, and of a service on its unix socket.

Each answer is compared with the service's own description, so that every test that asks for something checks it, too.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from functools import cache

import jsonschema

from spinescore.runtime.appliance.web.openapi import document

BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
UNIX, TCP = ("/run/http.sock", None), ("127.0.0.1", 8080)


class Answer:
    def __init__(self, method, path, status, headers, body) -> None:
        self.status, self.headers, self.body = status, headers, body
        check_described(method, path, self)

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json()["code"]


def form(*parts, end=True):
    """A body of parts: name, Content-Type and content."""
    lines = []
    for name, kind, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        lines += [f"{head}Content-Type: {kind}\r\n\r\n".encode(), content, b"\r\n"]
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode() if end else b""])


def call(app, method, path, body=b"", kind="", **more):
    """Call an application; also its work after the answer is done then."""
    return asyncio.run(_whole(acall(app, method, path, body, kind, **more)))


async def _whole(calling):
    answer = await calling
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    return answer


async def acall(app, method, path, body=b"", kind="", *, headers=(), server=UNIX, gone=None, piece=1000):
    """Call an application; the caller disconnects after the body when the event `gone` is set, if it is given."""
    path, _, query = path.partition("?")
    fields = [*headers, *([("content-type", kind)] if kind else []), ("content-length", str(len(body)))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "client": None,
        "server": server, "headers": [(name.lower().encode(), value.encode()) for name, value in fields],
    }  # fmt: skip
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
    sent = []

    async def receive():
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
        await (asyncio.Event() if gone is None else gone).wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(method, path, sent[0]["status"], head, content) if gone is None else None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=180.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path, method, target, body=None, kind=None, timeout=180.0):
    """Ask a service on its unix socket."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, target, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return Answer(method, target.partition("?")[0], answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@cache
def described():
    return document()


def check_described(method, path, answer) -> None:
    """Fail if the description does not have this answer, or its body is not as described."""
    if method == "HEAD" and answer.status != 405:  # the application answers as to GET; the server sends the head alone
        method = "GET"
    patterns = {one: re.sub(r"\{\w+\}", "[^/]+", one) for one in described()["paths"]}
    found = [one for one, pattern in patterns.items() if re.fullmatch(pattern, path)]
    operation = described()["paths"][found[0]].get(method.lower()) if found else None
    if operation is None:
        assert answer.status in (401, 403, 404, 405), answer.body
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    else:
        assert str(answer.status) in operation["responses"], (answer.status, answer.body)
        content = operation["responses"][str(answer.status)].get("content")
        if content is None:
            assert not answer.body
            return
    headers = {name.lower(): value for name, value in answer.headers.items()}
    kind = headers["content-type"].partition(";")[0]
    assert kind in content, (kind, list(content))
    if kind.endswith("json"):
        schema = {**content[kind]["schema"], "components": described()["components"]}
        jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)
