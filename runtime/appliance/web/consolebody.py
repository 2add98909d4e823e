"""Calls of the C library for consoles: a study's body as structs, and answers as structs in front of their content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.web.problems import document_of_problem, problem
from spinescore.runtime.appliance.web.upload import DICOM, FRAME, Files, Malformed
from spinescore.runtime.console.wire import ANSWER, ANSWERS, REQUEST_BYTES, SentFile, pack_answer, unpack_request

__all__ = ["Packed", "PackedAnswers"]

_PATHS = ("/v1/score", "/v1/results/", "/health/ready")  # that the library calls
_OTHER_VERSION = ("the console's C library and this service are of different releases; write the library by "
                  "`spinescore console-sdk` of the service's release, and build the console with it")  # fmt: skip


class Packed(Files):
    """A body that begins with a struct, which says how long each file after it is."""

    def __init__(self, folder: Path, most_files: int) -> None:
        super().__init__(folder, most_files)
        self._head = bytearray()
        self._coming: list[SentFile] = []  # the first one is open if some of it has come
        self._taken = 0  # bytes of the first one

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes of the body. Raises Malformed, and `OSError` of the disk."""
        rest = memoryview(chunk)
        if self.request is None:
            size = REQUEST_BYTES - len(self._head)
            self._head += rest[:size]
            rest = rest[size:]
            if len(self._head) < REQUEST_BYTES:
                return
            self._read_head()
        while rest:
            if not self._coming:
                raise Malformed("the body is longer than its struct says; send each view as its own array")
            rest = rest[self._take(self._coming[0], rest) :]

    def _read_head(self) -> None:
        try:
            options, self._coming = unpack_request(bytes(self._head))
        except ValueError as error:
            raise Malformed(f"the struct of the request is wrong: {error}") from None
        if not all(file.byte_count for file in self._coming):
            raise Malformed("the struct of the request has a view without data; send its pixels or its file")
        self.request = json.dumps(options).encode()

    def _take(self, file: SentFile, rest: memoryview) -> int:
        """Write the next bytes of a file without the padding of its rows, and return how many bytes they were."""
        if not self._taken:
            self.begin_file(file.name, DICOM if file.is_dicom else FRAME)
        piece: memoryview | bytes = rest[: file.byte_count - self._taken]
        size = len(piece)
        if file.stride:
            rows = range(-(self._taken % file.stride), size, file.stride)
            piece = b"".join(piece[max(0, row) : max(0, row + file.row_bytes)] for row in rows)
        self.add(piece)
        self._taken += size
        if self._taken == file.byte_count:
            self.close()
            self._coming, self._taken = self._coming[1:], 0
        return size

    def check(self) -> None:
        if self.request is None or self._coming:
            raise Malformed("the body ends before its last view does; send it again")


class PackedAnswers:
    """An ASGI application around another one, whose answers begin with structs if the caller accepts them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"].startswith(_PATHS):
            accepted = Headers(scope=scope).get("accept", "")
            if ANSWERS.fullmatch(accepted):
                send = _packing(send, accepted, scope["path"])
                if accepted != ANSWER:
                    app = problem(400, Fault("http-request", _OTHER_VERSION))
        await app(scope, receive, send)


def _packing(send: Send, kind: str, path: str) -> Send:
    """Return a `send` that puts the structs in front of an answer, unless it comes in several pieces."""
    start: Message = {}  # of an answer whose body comes next

    async def pack(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        if start and not message.get("more_body"):
            headers, body = MutableHeaders(raw=list(start["headers"])), message.get("body", b"")
            message = {**message, "body": _structs(path, start["status"], headers, body) + body}
            headers["content-type"], headers["content-length"] = kind, str(len(message["body"]))
            start["headers"] = headers.raw
        if start:
            await send(dict(start))
            start.clear()
        await send(message)

    return pack


def _structs(path: str, status: int, headers: Headers, body: bytes) -> bytes:
    """Return the structs of an answer: its problem, or the report of a study."""
    told: dict[str, Any] = {}
    report: dict[str, Any] = {}
    if headers.get("content-type") == "application/problem+json":
        told = report = json.loads(body)
    elif path == "/health/ready" and status == 503:
        told = document_of_problem(503, Fault("not-ready", "; ".join(json.loads(body)["reasons"])))
    elif path == "/v1/score" and status == 200:
        report = json.loads(body)
    told = {**told, "retry_after_s": int(headers.get("retry-after", "-1"))}
    return pack_answer(told, report.get("report"), report.get("results", {}), len(body))
