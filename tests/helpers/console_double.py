"""A double of the local HTTP service for consoles, which answers as a test asks: right, late, half or wrong.

The bearer token of a request names the behaviour, so that one program goes through all of them with one server.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path

from helpers.made_reports import NORMAL, changed, made_report

SR = bytes(range(256)) * 600
GRADES = {"cervical": changed(NORMAL, at1=2), "lumbar": changed(NORMAL, at1=1)}
REPORT = json.loads(made_report(GRADES).to_json())
ANSWER = {
    "report": REPORT,
    "results": {"sr": "/v1/results/4f/sr.dcm", "gsps-cervical": "/v1/results/4f/gsps-cervical.dcm"},
}
REJECTED = json.loads(made_report({"cervical": None, "lumbar": None}).to_json())
PROBLEM = {
    "type": "about:blank",
    "title": "Rejected",
    "status": 422,
    "code": "low-confidence",
    "detail": "The localizer is not sure: caf\u00e9 \U0001f9b4.",
    "next_step": "Give the points.",
}


def answer(status: str, body: bytes | dict, *headers: str, kind: str = "application/json") -> bytes:
    """A whole answer with its Content-Length."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body: bytes, size: int, end: bytes = b"0\r\nX-Trailer: 1\r\n\r\n") -> bytes:
    """A whole answer in chunks of a size."""
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%X;note=1\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + end


def edited(**changes: object) -> dict:
    """The right answer with other fields in its report."""
    return {**ANSWER, "report": {**REPORT, **changes}}


def region_with(**changes: object) -> dict:
    """The right answer with another cervical region."""
    return edited(regions={**REPORT["regions"], "cervical": {**REPORT["regions"]["cervical"], **changes}})


def disc_with(**changes: object) -> dict:
    """The right answer with another first disc."""
    first, *others = REPORT["regions"]["cervical"]["discs"]
    return region_with(discs=[{**first, **changes}, *others])


def corner_with(**changes: object) -> dict:
    """The right answer with another first corner."""
    upper, lower = REPORT["regions"]["cervical"]["discs"][0]["corners"]
    return disc_with(corners=[{**upper, **changes}, lower])


def problem(line: str, *headers: str, **changes: object) -> bytes:
    """An answer with a problem document."""
    return answer(line, {**PROBLEM, **changes}, *headers, kind="application/problem+json")


RIGHT = json.dumps(ANSWER).encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PLAIN: dict[str, bytes] = {
    "right": answer("200 OK", ANSWER),
    "indented": answer("200 OK", json.dumps(ANSWER, indent=2).replace("\n", "\r\n\t").encode()),
    "chunked": chunked(RIGHT, 1000),
    "interim": CONTINUE + b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + answer("200 OK", ANSWER),
    "never-continues": answer("200 OK", ANSWER),
    "silent": b"",
    "half-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half-body": answer("200 OK", ANSWER)[:-500],
    "half-chunk": chunked(RIGHT, 1000)[:2500],
    "no-last-chunk": chunked(RIGHT, 1000, b""),
    "endless-trailers": chunked(RIGHT, 1000, b"0\r\n" + b"X: 1\r\n" * 1000 + b"\r\n"),
    "huge-length": HEAD + b"Content-Length: 999999999999999999\r\n\r\n" + RIGHT,
    "overflowing-length": HEAD + b"Content-Length: 18446744073709551999\r\n\r\n" + RIGHT,
    "negative-length": HEAD + b"Content-Length: -1\r\n\r\n" + RIGHT,
    "signed-length": HEAD + b"Content-Length: +5\r\n\r\n" + RIGHT,
    "empty-length": HEAD + b"Content-Length: \r\n\r\n" + RIGHT,
    "two-lengths": answer("200 OK", ANSWER, f"Content-Length: {len(RIGHT)}"),
    "length-and-chunks": chunked(RIGHT, 1000).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 1),
    "no-length": HEAD + b"\r\n" + RIGHT,
    "gzip": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + RIGHT,
    "chunk-without-size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "chunk-too-long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "chunk-overflow": HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "chunk-huge": HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n" + b" " * 3_000_000,
    "not-http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status-no-number": b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
    "status-cut": b"HTTP/1.1 20\r\n\r\n",
    "line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "folded-header": HEAD + b"X: 1\r\n Content-Length: 7\r\n\r\n",
    "header-without-colon": HEAD + b"Content-Length 2\r\n\r\n{}",
    "endless-head": HEAD + b"X: 1\r\n" * 100_000,
    "endless-line": HEAD + b"X: " + b"1" * 100_000,
    "nul-in-head": HEAD + b"X: \0\r\nContent-Length: 2\r\n\r\n{}",
    "nul-in-body": answer("200 OK", RIGHT[:50] + b"\0" + RIGHT[50:]),
    "empty-body": answer("200 OK", b""),
    "no-json": answer("200 OK", RIGHT[:-1]),
    "two-values": answer("200 OK", RIGHT + b"{}"),
    "list": answer("200 OK", b"[]"),
    "deep": answer("200 OK", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep-objects": answer("200 OK", b'{"x":' * 200_000),
    "bad-utf8": answer("200 OK", RIGHT.replace(b"tiny", b"t\xc0\x80y")),
    "half-surrogate": answer("200 OK", RIGHT.replace(b"tiny", b"t\\ud800y")),
    "other-schema": answer("200 OK", edited(schema="spinescore.report/2")),
    "no-total": answer("200 OK", {**ANSWER, "report": {k: v for k, v in REPORT.items() if k != "total"}}),
    "two-totals": answer("200 OK", RIGHT.replace(b'"total": {', b'"t\\u006ftal": {}, "total": {', 1)),
    "total-too-high": answer("200 OK", edited(total={**REPORT["total"], "value": 73})),
    "grade-4": answer("200 OK", corner_with(grade=4)),
    "grade-text": answer("200 OK", corner_with(grade="2")),
    "grade-half": answer("200 OK", corner_with(grade=1.5)),
    "grade-null": answer("200 OK", corner_with(grade=None)),
    "probabilities-3": answer("200 OK", corner_with(probabilities=[0, 0, 1])),
    "one-corner": answer("200 OK", disc_with(corners=REPORT["regions"]["cervical"]["discs"][0]["corners"][:1])),
    "seven-discs": answer("200 OK", region_with(discs=[REPORT["regions"]["cervical"]["discs"][0]] * 7)),
    "point-huge": answer("200 OK", disc_with(centre_px=[1e300, 5])),
    "null-study": answer("200 OK", edited(study=None)),
    "path-too-long": answer("200 OK", {**ANSWER, "results": {"sr": "/v1/results/" + "x" * 300}}),
    "large": answer("200 OK", RIGHT + b" " * 2_000_000),
    "large-chunked": chunked(RIGHT + b" " * 2_000_000, 10_000),
    "busy": problem("503 Service Unavailable", "Retry-After: 7", status=503, code="budget"),
    "busy-until": problem("503 Service Unavailable", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", status=503),
    "rejected": problem("422 Unprocessable Content"),
    "rejected-report": problem("422 Unprocessable Content", report=REJECTED),
    "unauthorized": problem("401 Unauthorized", status=401, code="error", detail="The token is not known."),
    "too-late": problem("504 Gateway Timeout", status=504, code="budget"),
    "broken": answer("500 Internal Server Error", b"<html>oops</html>", kind="text/html"),
    "problem-large": answer("500 Internal Server Error", b"x" * 3_000_000),
    "problem-half": problem("422 Unprocessable Content")[:-20],
    "problem-odd": problem("400 Bad Request", code=7, detail=None, next_step=["x"]),
    "moved": answer("301 Moved Permanently", b"", "Location: /v2"),
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@dataclass
class Double:
    """The service: its address, what it was asked, and the behaviours during which the client closed the connection."""

    address: str
    requests: dict[str, tuple[str, dict[str, str], bytes]] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def parts(self, token: str) -> dict[str, tuple[str, bytes]]:
        """The parts of a request by their names: content type and bytes."""
        _, headers, body = self.requests[token]
        text = f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body
        return {
            str(part.get_param("name", header="content-disposition")): (
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in message_from_bytes(text, policy=policy.HTTP).iter_parts()
        }


def read_head(stream: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers by names in lower case, and the bytes of the body that came with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            raise ConnectionError
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *headers = head.decode("latin-1").split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in headers)}, rest


def read_body(stream: socket.socket, first: bytes, length: int) -> bytes:
    """The whole body. Raises ConnectionError if the client closes before its end."""
    pieces, missing = [first], length - len(first)
    while missing > 0:
        pieces.append(stream.recv(min(missing, 1 << 20)))
        if not pieces[-1]:
            raise ConnectionError
        missing -= len(pieces[-1])
    return b"".join(pieces)


def wait_for_close(stream: socket.socket) -> None:
    """Return when the client has closed the connection."""
    with suppress(OSError):
        while stream.recv(65536):
            pass


def answers(line: str, token: str) -> list[bytes]:
    """The pieces of the answer to a request."""
    if line.startswith("GET /v1/results/") and token in ("right", "sr-chunked"):
        return [answer("200 OK", SR, kind="application/dicom") if token == "right" else chunked(SR, 7000)]
    if line.startswith("GET /health/ready"):
        ready = token != "starting"
        return [answer("200 OK" if ready else "503 Service Unavailable", {"ready": ready})]
    if token == "dribble":
        return [PLAIN["right"][i : i + 97] for i in range(0, len(PLAIN["right"]), 97)]
    if token.startswith(("slow", "cancel")):
        return [PLAIN["right"][:-500]] if token == "slow-body" else []
    return [PLAIN[token]]


def serve_one(stream: socket.socket, double: Double) -> None:
    """Answer one request as its token says."""
    line, headers, first = read_head(stream)
    token = headers.get("authorization", "Bearer right").removeprefix("Bearer ")
    if token == "busy-early":  # an answer before the study is read, as a service that is full gives it
        stream.sendall(PLAIN["busy"])
        double.requests[token] = line, headers, first + b"".join(iter(lambda: stream.recv(65536), b""))
        return
    if token == "slow-send":  # nothing is read any more
        threading.Event().wait(3)
        return
    if headers.get("expect") == "100-continue" and token != "never-continues":
        stream.sendall(CONTINUE)
    try:
        double.requests[token] = line, headers, read_body(stream, first, int(headers.get("content-length", 0)))
    except ConnectionError:
        double.closed.append(token)
        return
    for piece in answers(line, token):
        stream.sendall(piece)
    if token.startswith(("slow", "cancel")) and line.startswith("POST"):
        wait_for_close(stream)
        double.closed.append(token)


@contextmanager
def console_double(socket_path: Path | None) -> Iterator[Double]:
    """Run the double on a Unix socket, or without a path on loopback TCP, until the block ends."""
    listener = socket.socket(socket.AF_UNIX if socket_path else socket.AF_INET)
    listener.bind(str(socket_path) if socket_path else ("127.0.0.1", 0))
    listener.listen(50)
    double = Double(str(socket_path) if socket_path else f"127.0.0.1:{listener.getsockname()[1]}")

    def handle(stream: socket.socket) -> None:
        with stream, suppress(OSError):
            serve_one(stream, double)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
