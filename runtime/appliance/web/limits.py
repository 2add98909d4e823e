"""The connections of the HTTP server, so limited that no client holds up the others.

- A request's head has to come within 10 s and in 32 KiB, its body within 60 s, and its answer has to be taken within
  10 minutes. What takes longer is cut off. A connection without a request is closed after 5 s (uvicorn's own limit).
- If more than 64 connections are open, the one that has waited longest for its client is closed, be it for a request or
  for its client to take the answer. One whose request is worked on is not, nor one that is younger than half a second,
  unless 256 are open.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.web.problems import document_of_problem

__all__ = ["LimitedProtocol"]

MANY, MOST = 64, 256  # connections
GRACE_S = 0.5
_MOST_PIPELINED = 4  # requests that wait behind the one that is answered; each takes memory
MOST_HEAD_BYTES = 1 << 15
HEAD_S, BODY_S, ANSWER_S = 10.0, 60.0, 600.0


_NO_HTTP = f"this is no HTTP, or more than {_MOST_PIPELINED} requests were sent before their answers"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It waits for a head, a body, or for its client to take the answer, each with a time limit."""

    waits: str = "head"  # head, body, or answer
    since_s: float = 0.0
    _head_bytes = _sized = 0  # as they came, and as the parser gave them out
    _is_whole = True  # the body of the request has come
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for("head", HEAD_S)
        if len(self.connections) > MANY:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client; this one if there is none, and far too many."""
        waiting = [one for one in self.connections if isinstance(one, LimitedProtocol) and one.waits_for_client]
        oldest = min(waiting, key=lambda one: one.since_s, default=self)
        if oldest.since_s < self.since_s - GRACE_S or len(self.connections) > MOST:
            oldest.cut_off()

    @property
    def waits_for_client(self) -> bool:
        """Whether it waits for bytes of its client, or for its client to take some."""
        return self.waits != "answer" or self.transport.get_write_buffer_size() > 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def _wait_for(self, part: str, limit_s: float) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(limit_s, self.cut_off)
        self.waits, self.since_s = part, self.loop.time()

    def cut_off(self) -> None:
        """Close the connection, whatever is under way on it."""
        self.connections.discard(self)  # at once: many may be made before this one is lost
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.waits == "head":
            self._head_bytes += len(data)
        super().data_received(data)
        if self.waits == "head" and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the head of the request is too large")

    def on_message_begin(self) -> None:
        """Begin a request. Raises `ValueError` if too many wait for their turn, which the parser takes for a fault."""
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests at once")
        super().on_message_begin()
        self._sized, self._is_whole = 0, False

    def on_url(self, url: bytes) -> None:
        self._size(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _size(self, byte_count: int) -> None:
        """Add to the size of the head. Raises `ValueError` if it is too large, which the parser takes for a fault."""
        self._sized += byte_count
        if self._sized > MOST_HEAD_BYTES:
            raise ValueError("the head of the request is too large")

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._wait_for("body", BODY_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_whole = True
        self._wait_for("head", HEAD_S) if self.cycle.response_complete else self._wait_for("answer", ANSWER_S)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._is_whole:  # or else the rest of a body comes that nobody wants
            self._wait_for("head", HEAD_S)
        super().on_response_complete()
        if not self.cycle.response_complete:  # the next one came already
            self._wait_for("answer", ANSWER_S)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP, or whose head is too large, and close the connection."""
        too_large = max(self._head_bytes, self._sized) > MOST_HEAD_BYTES
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
        detail = f"the head of the request is larger than {MOST_HEAD_BYTES} bytes" if too_large else _NO_HTTP
        body = json.dumps(document_of_problem(status, Fault("http-request", detail))).encode()
        head = (f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n")  # fmt: skip
        self.transport.write(head.encode() + body)
        self.transport.close()
