"""A double of Orthanc's REST, as far as a source asks for it: the list of changes, and instances.

What it answers was compared with Orthanc 1.10: the order of changes, gaps after a deletion, `Last` of an empty list.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

Act = Callable[[BaseHTTPRequestHandler], None]


class OrthancDouble:
    """Serves on the loopback interface while it is entered. `acts` replace the answers to paths that end so."""

    def __init__(self) -> None:
        self.renew()
        self.asked: list[str] = []
        self.acts: dict[str, Act] = {}
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                double.asked.append(self.path)
                double.answer(self)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OrthancDouble:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def renew(self, day: int = 1) -> None:
        """Begin a new database, on a day."""
        self.changes: list[dict[str, object]] = []
        self.instances: dict[str, bytes] = {}
        self.classes: dict[str, str] = {}
        self.last, self.day = 0, day

    def note(self, kind: str, resource: str) -> None:
        self.last += 1
        date = f"202601{self.day:02}T{self.last:06}"
        self.changes.append({"ChangeType": kind, "Date": date, "ID": resource, "Seq": self.last})

    def store(self, path: Path, sop_class: str | None = None) -> str:
        """Store a file as Orthanc does; return the name of the instance."""
        content = path.read_bytes()
        digest = hashlib.sha1(content).hexdigest()
        name = "-".join(digest[place : place + 8] for place in range(0, 40, 8))
        self.instances[name] = content
        self.classes[name] = sop_class or str(dcmread(path, stop_before_pixels=True).SOPClassUID)
        self.note("NewInstance", name)
        for kind in ("NewSeries", "NewStudy", "NewPatient"):
            self.note(kind, name[::-1])
        return name

    def settle(self) -> None:
        """Tell, as Orthanc does a minute later, that nothing changed."""
        for kind in ("StableSeries", "StableStudy", "StablePatient", "StableStudy"):
            self.note(kind, "f" * 8)

    def delete(self, name: str) -> None:
        """Delete an instance; its changes go with it."""
        del self.instances[name], self.classes[name]
        self.changes = [change for change in self.changes if change["ID"] not in (name, name[::-1])]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        for end, act in self.acts.items():
            if url.path.endswith(end):
                act(handler)
                return
        parts, query = url.path.strip("/").split("/"), parse_qs(url.query, keep_blank_values=True)
        if parts == ["changes"]:
            reply(handler, json.dumps(self._list(query)).encode())
        elif parts[0] == "instances" and parts[1] in self.instances:
            name, what = parts[1], "/".join(parts[2:])
            content = {"metadata/SopClassUid": self.classes[name].encode(), "file": self.instances[name]}
            reply(handler, content[what])
        else:
            reply(handler, b"{}", 404)

    def _list(self, query: dict[str, list[str]]) -> dict[str, object]:
        if "last" in query:
            return {"Changes": self.changes[-1:], "Done": True, "Last": self.last}
        since, limit = int(query["since"][0]), int(query["limit"][0])
        later = [change for change in self.changes if change["Seq"] > since]
        page = later[:limit]
        return {"Changes": page, "Done": len(page) == len(later), "Last": page[-1]["Seq"] if page else self.last}


def reply(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
