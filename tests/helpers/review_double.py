"""A service for the review page, on loopback: the routes that the page asks, with studies that a test makes."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

from helpers.review_reports import Scored, corrected, rejected, restored, scored

PAGE = Path(__file__).parents[2] / "runtime" / "appliance" / "web" / "review"
KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
         "svg": "image/svg+xml"}  # fmt: skip
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
          "frame-ancestors 'none'; base-uri 'none'; form-action 'none'")  # fmt: skip
READER, CONSOLE = "a-token-of-a-reader", "a-token-of-a-console"
BUSY = ("collecting", "due", "scoring")


@dataclass
class Study:
    number: int
    scored: Scored | None = None
    state: str = "delivered"
    study_date: str = "20260101"
    received_at: str = "2026-11-29T08:00:00+00:00"
    reviewed: str | None = None
    prior: int | None = None
    reports: list = field(default_factory=list)  # of the revisions from 1
    revisions: list = field(default_factory=list)
    code: str | None = None

    def __post_init__(self) -> None:
        if self.scored is not None:
            self.add(self.scored.report, "spinescore", None, None)

    def add(
        self, report: dict, by: str, verdict: str | None, comment: str | None, unreadable=None, readable=None
    ) -> None:
        self.reports.append(report)
        self.revisions.append({"revision": len(self.reports), "made_at": "2026-11-29T08:01:00+00:00", "by": by,
                               "verdict": verdict, "comment": comment, "unreadable": unreadable or [],
                               "readable": readable or [], "report_url": self.url(len(self.reports)),
                               "total": report["total"]})  # fmt: skip

    @property
    def total(self) -> float:
        """The total before any correction."""
        return self.scored.report["total"]["value"]

    def tag(self, region: str) -> str:
        return self.scored.report["regions"][region]["radiograph"]["pixels_digest"]

    def url(self, revision: int) -> str:
        return f"/v1/studies/{self.number}/results/{revision:064x}/report.json"

    @property
    def revision(self) -> int:
        return max(1, len(self.reports) + (self.state in BUSY and bool(self.reports)))

    def row(self) -> dict:
        report = self.reports[-1] if self.reports else None
        total = report and {key: report["total"][key] for key in ("value", "status", "range")}
        return {"study": self.number, "study_instance_uid": f"1.2.{self.number}", "state": self.state,
                "revision": self.revision, "code": self.code,
                "message": self.code and "the study was parked by this test", "received_at": self.received_at,
                "study_date": self.study_date, "total": total,
                "findings": [one["code"] for one in report["findings"]] if report else [],
                "reviewed": self.reviewed, "has_prior": self.prior is not None}  # fmt: skip


def many() -> list[Study]:
    """A scored study, and 30 that wait, were parked or have no files any more."""
    rows = []
    for number in range(1, 31):
        state = ("due", "parked", "delivered", "scoring")[number % 4]
        received_at = f"2026-11-{number % 28 + 1:02}T08:00:00+00:00"
        rows.append(Study(number, None, state=state, code="no-spine" if state == "parked" else None,
                          received_at=received_at))  # fmt: skip
    return [Study(40, scored(1), prior=39), Study(39, scored(0)), *rows]


class Double:
    """The studies, what was asked, and faults to come: `faults` has (method, end of the path) -> (status, problem).

    `holds` has (method, end of the path) -> an Event, for which the answer waits.
    """

    def __init__(self, studies, tokens=None, page_size=100, scoring_s=0.4) -> None:
        self.studies = {one.number: one for one in studies}
        self.tokens, self.page_size, self.scoring_s = tokens, page_size, scoring_s
        self.asked, self.bodies, self.faults, self.holds, self.events = [], [], {}, {}, []
        self.changed = threading.Condition()
        self.is_closed = False
        self.listeners = 0

    def say(self, study: Study) -> None:
        with self.changed:
            self.events.append({"study": study.number, "state": study.state, "revision": study.revision})
            self.changed.notify_all()

    def finish(self, study: Study, report: dict, by: str, verdict: str, comment: str | None, *said) -> None:
        time.sleep(self.scoring_s)
        study.state = "delivered"
        study.reviewed = verdict
        study.add(report, by, verdict, comment, *said)
        self.say(study)

    def shown(self, study: Study) -> dict:
        views = {}
        for region, pixels in study.scored.pixels.items() if study.scored else ():
            views[region] = {"url": f"/v1/studies/{study.number}/views/{region}", "sha256": study.tag(region),
                             "rows": pixels.shape[0], "columns": pixels.shape[1],
                             "turn_deg": study.reports[0]["regions"][region]["radiograph"]["turn_deg"]}  # fmt: skip
        prior = self.studies.get(study.prior)
        newest = study.revisions[-1]["report_url"] if study.revisions else None
        names = ("report.html", "report.json", "sr.dcm")
        files = [newest.replace("report.json", name) for name in names] if newest else []
        return {**study.row(), "report_url": newest, "views": views, "revisions": study.revisions,
                "prior": prior and {"study": prior.number, "report_url": prior.revisions[-1]["report_url"],
                                    "study_date": prior.study_date},
                "files": files}  # fmt: skip


def with_prior() -> Double:
    """Return a double with study 2, which was scored, and study 1 of the same patient before it."""
    return Double([Study(2, scored(1), prior=1), Study(1, scored(0), study_date="20240101")])


@contextmanager
def serving(double: Double):
    """Serve until the end of the block; yield the address of the page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    double.stop = lambda: _stop(server, double)
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        double.stop()
        thread.join(10)


def _stop(server, double) -> None:
    if not double.is_closed:
        with double.changed:
            double.is_closed = True
            double.changed.notify_all()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    double: Double
    protocol_version = "HTTP/1.0"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        path, _, query = self.path.partition("?")
        self.double.asked.append((method, self.path, self.headers.get("Host")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/" or path.startswith("/review"):
            return self._static(path)
        for (verb, end), hold in list(self.double.holds.items()):
            if verb == method and path.endswith(end):
                hold.wait(60)
        for (verb, end), fault in list(self.double.faults.items()):
            if verb == method and path.endswith(end):
                return self._problem(*fault)
        if (refusal := self._refusal(path)) is not None:
            return self._problem(*refusal)
        if method == "POST":
            assert self.headers["Content-Type"] == "application/json"
            self.double.bodies.append((path, json.loads(body)))
        return self._route(method, path, query, body)

    def _refusal(self, path: str):
        if self.double.tokens is None:
            return None
        role = self.double.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        if role is None:
            return 401, _problem("http-request", "the request shows no token that this service knows")
        if role == "console" and path != "/v1/version":
            return 403, _problem("http-request", "the role console may not ask for this path")
        return None

    def _route(self, method: str, path: str, query: str, body: bytes) -> None:
        if path == "/v1/version":
            return self._json({"version": "0.1.0"})
        if path == "/v1/events":
            return self._events()
        if path == "/v1/studies":
            return self._json(self._list(dict(parse_qsl(query))))
        found = re.fullmatch(r"/v1/studies/(\d+)(/.*)?", path)
        study = self.double.studies.get(int(found[1])) if found else None
        if study is None:
            return self._problem(404, _problem("http-request", "there is no such study"))
        rest = found[2] or ""
        if method == "POST":
            return self._change(study, rest, json.loads(body))
        if rest == "":
            return self._json(self.double.shown(study))
        if rest.startswith("/views/"):
            window = {"Spinescore-Window": "{centre:g} {width:g}".format(**study.scored.window[rest[7:]]),
                      "ETag": f'"{study.tag(rest[7:])}"'}  # fmt: skip
            return self._send(200, study.scored.pixels[rest[7:]].tobytes(), "application/octet-stream", window)
        if rest.endswith("/report.json"):
            return self._json(study.reports[int(rest.split("/")[2], 16) - 1])
        return self._send(200, b"a file", "application/octet-stream")

    def _list(self, query: dict) -> dict:
        since, until = (query.get(name, default)[:19] for name, default in (("since", ""), ("until", "9")))
        found = [one for number, one in sorted(self.double.studies.items(), reverse=True)
                 if query.get("state") in (None, one.state) and since <= one.received_at[:19] <= until
                 and number < int(query.get("cursor", 10**9))]  # fmt: skip
        shown = found[: self.double.page_size]
        return {"studies": [one.row() for one in shown], "next": shown[-1].number if len(found) > len(shown) else None}

    def _change(self, study: Study, rest: str, body: dict) -> None:
        if body["revision"] != len(study.reports) or study.state in BUSY:
            return self._problem(409, _problem("review-conflict", f"revision {len(study.reports)} is the newest one",
                                               "load the study again and correct its newest revision"))  # fmt: skip
        report = restored(study.reports[-1], study.scored.report, body.get("readable", ()))
        report = corrected(report, body.get("points", {}), body.get("grades", {}))
        if rest == "/preview":
            return self._json({"report": report})
        if rest == "/accept":
            study.reviewed = "accepted"
            study.revisions[-1].update(verdict="accepted", comment=body["comment"])
            self.double.say(study)
            return self._json({"study": self.double.shown(study)})
        for region in body.get("regions", ()):
            report = rejected(report, region, "reader-unreadable")
        study.state = "due"
        self.double.say(study)
        verdict = rest[1:] if rest in ("/unreadable", "/readable") else "corrected"
        finish = (study, report, body["reader"], verdict, body["comment"], body.get("regions"), body.get("readable"))
        threading.Thread(target=self.double.finish, args=finish, daemon=True).start()
        return self._json({"study": self.double.shown(study)}, 202)

    def _events(self) -> None:
        with self.double.changed:
            self.double.listeners += 1
        try:
            self._stream()
        finally:
            with self.double.changed:
                self.double.listeners -= 1

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        at = int(self.headers.get("Last-Event-ID") or len(self.double.events))
        self.wfile.write(b": hello\n\n")
        while not self.double.is_closed:
            with self.double.changed:
                if len(self.double.events) == at and not self.double.is_closed:
                    self.double.changed.wait(1)
                fresh = self.double.events[at:]
            try:
                for event in fresh:
                    at += 1
                    self.wfile.write(f"id: {at}\nevent: study\ndata: {json.dumps(event)}\n\n".encode())
                self.wfile.write(b": still here\n\n")
            except OSError:
                return

    def _static(self, path: str) -> None:
        name = "review.html" if path in ("/", "/review") else path.rpartition("/")[2]
        file = PAGE / name
        if not file.is_file():
            return self._problem(404, _problem("http-request", f"there is no {path} here"))
        more = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return self._send(200, file.read_bytes(), KINDS[file.suffix[1:]], more)

    def _json(self, document: dict, status: int = 200) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _problem(self, status: int, document: dict) -> None:
        self._send(status, json.dumps({"status": status, **document}).encode(), "application/problem+json")

    def _send(self, status: int, content: bytes, kind: str, more: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _problem(code: str, detail: str, next_step: str = "correct the request") -> dict:
    return {"code": code, "detail": detail, "next_step": next_step}
