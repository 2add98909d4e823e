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
from pathlib import Path

from helpers.console_structs import SentAnswer
from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime.console.wire import ANSWER as KIND
from spinescore.runtime.console.wire import REQUEST, REQUEST_BYTES, pack_answer, unpack_request

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


def answer(status: str, body: bytes | dict, *headers: str, kind: str = KIND) -> bytes:
    """A whole answer with its Content-Length."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def packed(
    document: dict, status: int = 200, retry_after_s: int = -1, text: bytes | None = None, **fields: object
) -> bytes:
    """The body of an answer, as the service makes it; then fields of its structs are changed.

    A field is named by its path, with underscores doubled: `report__regions__0__total`.
    """
    text = json.dumps(document).encode() if text is None else text
    problem = {} if status == 200 else {**document, "retry_after_s": retry_after_s}
    sent = SentAnswer.from_buffer_copy(
        pack_answer(problem, document.get("report"), document.get("results", {}), len(text))
    )
    for path, value in fields.items():
        *names, last = path.split("__")
        place = sent
        for name in names:
            place = place[int(name)] if name.isdecimal() else getattr(place, name)
        if last.isdecimal():
            place[int(last)] = value
        else:
            setattr(place, last, value)
    return bytes(sent) + text


def report(**fields: object) -> bytes:
    """An answer with a report, some of whose fields are changed."""
    return answer("200 OK", packed(ANSWER, **{f"report__{path}": value for path, value in fields.items()}))


def corner(**fields: object) -> bytes:
    """An answer whose first corner is changed."""
    return report(**{f"regions__0__discs__0__corners__0__{path}": value for path, value in fields.items()})


def edited(**changes: object) -> dict:
    """The right answer with other fields in the JSON of its report."""
    return {**ANSWER, "report": {**REPORT, **changes}}


def problem(line: str, *, retry_after_s: int = -1, **changes: object) -> bytes:
    """An answer with a problem."""
    document = {**PROBLEM, "status": int(line[:3]), **changes}
    return answer(line, packed(document, int(line[:3]), retry_after_s))


RIGHT = packed(ANSWER)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: " + KIND.encode() + b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PLAIN: dict[str, bytes] = {
    "right": answer("200 OK", RIGHT),
    "indented": answer("200 OK", packed(ANSWER, text=json.dumps(ANSWER, indent=2).encode())),
    "interim": CONTINUE + b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + answer("200 OK", RIGHT),
    "large": answer("200 OK", packed(ANSWER, text=b" " * 2_000_000)),
    "trailing": answer("200 OK", RIGHT + b"more"),
    "no-json": answer("200 OK", packed(ANSWER, text=b"")),
    "never-continues": answer("200 OK", RIGHT),
    "silent": b"",
    "half-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half-struct": answer("200 OK", RIGHT)[:5000],
    "half-body": answer("200 OK", RIGHT)[:-500],
    "other-length": HEAD + b"Content-Length: 7\r\n\r\n" + RIGHT,
    "no-length": HEAD + b"\r\n" + RIGHT,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%X\r\n%s\r\n0\r\n\r\n" % (len(RIGHT), RIGHT),
    "not-http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status-no-number": b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
    "status-cut": b"HTTP/1.1 20\r\n\r\n",
    "status-999": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "folded-header": HEAD + b"X: 1\r\n Content-Length: 7\r\n\r\n",
    "header-without-colon": HEAD + b"Content-Length 2\r\n\r\n{}",
    "endless-head": HEAD + b"X: 1\r\n" * 100_000,
    "endless-line": HEAD + b"X: " + b"1" * 100_000,
    "nul-in-head": HEAD + b"X: \0\r\nContent-Length: 2\r\n\r\n{}",
    "json": answer("200 OK", ANSWER, kind="application/json"),
    "other-version": answer("200 OK", RIGHT, kind="application/vnd.spinescore.answer"),
    "empty-body": answer("200 OK", b""),
    "cut-problem": answer("200 OK", RIGHT[:800]),
    "cut-report": answer("200 OK", RIGHT[:10215]),
    "no-report": answer("200 OK", packed({})),
    "size-too-small": report(struct_size=9383),
    "size-too-large": report(struct_size=65537),
    "json-beyond-the-body": report(answer_bytes=1 << 20),
    "json-huge": report(answer_bytes=(1 << 30) + 1),
    "code-without-end": answer("422 Unprocessable Content", packed(PROBLEM, 422, problem__code=b"x" * 48)),
    "message-without-end": answer("422 Unprocessable Content", packed(PROBLEM, 422, problem__message=b"x" * 512)),
    "step-without-end": answer("422 Unprocessable Content", packed(PROBLEM, 422, problem__next_step=b"x" * 256)),
    "study-without-end": report(study_instance_uid=b"1" * 72),
    "total-73": report(total=73),
    "total-no-number": report(total=float("nan")),
    "total-infinite": report(total=float("inf")),
    "total-negative": report(total=-0.5),
    "total-status": report(total_status=3),
    "range-73": report(range__1=73),
    "range-backwards": report(range__0=70, range__1=3),
    "budget": report(within_budget=2),
    "elapsed-negative": report(elapsed_ms=-2),
    "elapsed-no-number": report(elapsed_ms=float("nan")),
    "region-status": report(regions__1__status=3),
    "region-status-negative": report(regions__1__status=-1),
    "region-total": report(regions__0__total=37),
    "region-range": report(regions__0__range__1=37),
    "missing-13": report(regions__0__missing=13),
    "reject-code": report(regions__0__reject_code=b"low confidence"),
    "seven-discs": report(regions__0__disc_count=7),
    "five-discs": report(regions__0__disc_count=5),
    "discs-of-a-missing-region": report(regions__0__status=2),
    "level-without-end": report(regions__0__discs__5__level=b"C2/C3/C4"),
    "point-huge": report(regions__0__discs__0__centre_px__1=1e300),
    "point-no-number": report(regions__0__discs__5__anterior_px__0=float("nan")),
    "confidence": report(regions__1__discs__0__confidence=1.5),
    "rotation": report(regions__1__discs__0__rotation_deg=181),
    "disc-total": report(regions__1__discs__0__total=6.5),
    "grade-4": corner(grade=4),
    "grade-missing": corner(grade=-1),
    "grade-negative": corner(grade=-2),
    "grade-of-no-status": corner(status=1),
    "corner-status": corner(status=4, grade=-1),
    "no-site": corner(site=b""),
    "imputed": corner(imputed=3.5),
    "probability": corner(probabilities__2=1.01),
    "probability-missing": corner(probabilities__2=-1),
    "warning-without-code": report(warning_count=1),
    "finding-code": report(warning_count=1, warnings__0__code=b"x" * 48),
    "finding-region": report(reject_count=1, rejects__0__code=b"x", rejects__0__region=2),
    "seventeen-results": report(result_count=17),
    "path-without-end": report(results__0__path=b"/v1/results/" + b"x" * 196),
    "path-in-two-lines": report(results__1__path=b"/v1/results/\r\nX: 1"),
    "busy": problem("503 Service Unavailable", retry_after_s=7, code="budget"),
    "rejected": problem("422 Unprocessable Content"),
    "rejected-report": problem("422 Unprocessable Content", report=REJECTED),
    "rejected-wrongly": answer(
        "422 Unprocessable Content", packed({**PROBLEM, "report": REJECTED}, 422, report__total=73)
    ),
    "unauthorized": problem("401 Unauthorized", code="error", detail="The token is not known."),
    "too-late": problem("504 Gateway Timeout", code="budget"),
    "broken": answer("500 Internal Server Error", b"<html>oops</html>", kind="text/html"),
    "broken-half": answer("500 Internal Server Error", b"<html>oops</html>", kind="text/html")[:-7],
    "no-service": answer("503 Service Unavailable", b"", kind="text/html"),
    "problem-large": answer("500 Internal Server Error", b"x" * 3_000_000, kind="text/html"),
    "problem-half": problem("422 Unprocessable Content")[:-20],
    "problem-cut": problem("422 Unprocessable Content")[:700],
    "problem-json": answer("400 Bad Request", PROBLEM, kind="application/problem+json"),
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
        """The options of a request as JSON, and its files by their names: content type and bytes."""
        _, headers, body = self.requests[token]
        assert headers["content-type"] == REQUEST
        options, files = unpack_request(body[:REQUEST_BYTES])
        parts, place = {"request": ("application/json", json.dumps(options).encode())}, REQUEST_BYTES
        for file in files:
            kind = "application/dicom" if file.is_dicom else "application/octet-stream"
            content = body[place : place + file.byte_count]
            if file.stride:
                rows = range(0, len(content), file.stride)
                content = b"".join(content[row : row + file.row_bytes] for row in rows)
            parts[file.name] = kind, content
            place += file.byte_count
        assert place == len(body)
        return parts


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
    if line.startswith("GET /v1/results/") and token == "right":
        return [answer("200 OK", packed({}, text=SR))]
    if line.startswith("GET /health/ready"):
        if token == "starting":
            return [problem("503 Service Unavailable", code="not-ready", detail="The worker starts.")]
        return [answer("200 OK", packed({}, text=b'{"ready": true}'))]
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
