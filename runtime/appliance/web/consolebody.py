"""Calls of the C library for consoles: a study's body as structs, and answers as structs in front of their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spinescore.runtime.appliance.web.upload import DICOM, FRAME, Files, Malformed
from spinescore.runtime.console.wire import ANSWER, REQUEST_BYTES, pack_answer, unpack_request

__all__ = ["Packed", "PackedAnswers"]


class Packed(Files):
    """A body that begins with a struct, which says how long each file after it is."""

    def __init__(self, folder: Path, most_files: int) -> None:
        super().__init__(folder, most_files)
        self._head = bytearray()
        self._coming: list[tuple[str, bool, int]] = []
        self._left = 0  # bytes of the file that is open

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
            if not self._left:
                self._begin()
            piece, rest = rest[: self._left], rest[self._left :]
            self.add(piece)
            self._left -= len(piece)

    def _read_head(self) -> None:
        try:
            options, self._coming = unpack_request(bytes(self._head))
        except ValueError as error:
            raise Malformed(f"the struct of the request is wrong: {error}") from None
        if not all(size for _, _, size in self._coming):
            raise Malformed("the struct of the request has a view without data; send its pixels or its file")
        self.request = json.dumps(options).encode()

    def _begin(self) -> None:
        """Begin the next file."""
        self.close()
        if not self._coming:
            raise Malformed("the body is longer than its struct says; send each view as its own array")
        name, is_dicom, self._left = self._coming.pop(0)
        self.begin_file(name, DICOM if is_dicom else FRAME)

    def check(self) -> None:
        """Raise Malformed if the body is not whole."""
        if self.request is None or self._coming or self._left:
            raise Malformed("the body ends before its last view does; send it again")


class PackedAnswers:
    """An ASGI application around another one. If the caller accepts structs, they precede reports and problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and Headers(scope=scope).get("accept") == ANSWER:
            send = _packing(send, scope["path"] == "/v1/score")
        await self._app(scope, receive, send)


def _packing(send: Send, packs_json: bool) -> Send:
    """Return a `send` that puts the structs in front of a problem, and of an answer in JSON if it `packs_json`."""
    kinds = ("application/problem+json", "application/json") if packs_json else ("application/problem+json",)
    start: Message = {}  # of an answer whose body comes next, in one piece

    async def pack(message: Message) -> None:
        if message["type"] == "http.response.start" and Headers(raw=message["headers"]).get("content-type") in kinds:
            start.update(message)
            return
        if start and message["type"] == "http.response.body":
            body = _packed(start, message["body"])
            headers = MutableHeaders(raw=list(start["headers"]))
            headers["content-type"], headers["content-length"] = ANSWER, str(len(body))
            await send({**start, "headers": headers.raw})
            message = {**message, "body": body}
            start.clear()
        await send(message)

    return pack


def _packed(start: Message, body: bytes) -> bytes:
    document: dict[str, Any] = json.loads(body)
    retry_after_s = int(Headers(raw=start["headers"]).get("retry-after", "-1"))
    return pack_answer(start["status"], retry_after_s, document) + body
