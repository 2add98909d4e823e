"""Calls of consoles on the HTTP application, with a supervisor and a worker in this process."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from helpers.appliance import FakeClock, tiny_files
from helpers.http_calls import FORM, TCP, acall, call, form
from helpers.served import Supervisor
from spinescore.runtime import load_study, radiograph_from_array
from spinescore.runtime.appliance.configuration.config import Config, Score, SpoolPart
from spinescore.runtime.appliance.configuration.httpconfig import Http, HttpToken
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.web.access import read_access
from spinescore.runtime.appliance.web.app import make_app
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.documents import document_of

DICOM, ZIP, FRAME = "application/dicom", "application/zip", "application/octet-stream"


@dataclass
class Served:
    app: object
    supervisor: Supervisor
    places: object
    clock: FakeClock

    def score(self, body, kind=FORM, query="", **more):
        return call(self.app, "POST", f"/v1/score{query}", body, kind, **more)

    def left(self) -> list[Path]:
        return list(self.places.incoming.iterdir())


@pytest.fixture
def served(tmp_path, bundle, score):
    """A function that opens the application on a spool in the test's folder."""

    def start(**http):
        config = Config(SpoolPart(str(tmp_path / "spool"), 0.001), Score(str(bundle)), http=Http(**http))
        places, clock, consoles = make_places(tmp_path / "spool", 1 << 20), FakeClock(), Consoles()
        supervisor = Supervisor(score, consoles)
        consoles.open(places, clock, supervisor.say)
        app = make_app(Site(config, places, clock, read_access(config.http), consoles))
        return Served(app, supervisor, places, clock)

    return start


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("study"))


@pytest.fixture
def dicom(files):
    return [(path.stem, DICOM, path.read_bytes()) for path in files]


@pytest.fixture
def frames(files):
    """The parts of a call with raw frames, and the radiographs of the same arrays."""
    views, parts, radiographs = [], [], []
    for path in files:
        ds = dcmread(path)
        pixels = ds.pixel_array
        assert pixels.dtype == np.uint8
        facts = {"pixel_spacing_mm": [float(side) for side in ds.PixelSpacing], "region": path.stem, "facing": "left"}
        uids = {"study_instance_uid": str(ds.StudyInstanceUID), "sop_instance_uid": None}
        view = {"part": path.stem, "rows": ds.Rows, "columns": ds.Columns, "bits_allocated": 8, **facts, **uids}
        views.append(view)
        parts.append((path.stem, FRAME, pixels.tobytes()))
        radiographs.append(radiograph_from_array(
            pixels, region=path.stem, spacing_mm=tuple(view["pixel_spacing_mm"]), facing="left",
            study=str(ds.StudyInstanceUID), name=path.stem))  # fmt: skip
    return views, parts, radiographs


def request(**options) -> tuple[str, str, bytes]:
    return "request", "application/json", json.dumps(options).encode()


def plain(report: dict) -> dict:
    """A report without its times, and without the names of its files."""
    report = {name: value for name, value in report.items() if name != "timings_ms"}
    return json.loads(json.dumps(report).replace("image-1.dcm", "cervical.dcm").replace("image-2.dcm", "lumbar.dcm"))


def test_dicom_files_give_the_report_of_the_scorer(served, dicom, files, score):
    one = served()
    answer = one.score(form(*dicom))
    assert answer.status == 200
    assert plain(answer.json()["report"]) == plain(json.loads(score(load_study(*files)).to_json()))
    assert answer.json()["results"] == answer.json()["not_made"] == {}
    assert one.left() == []


def test_raw_frames_give_the_report_of_the_scorer(served, frames, score):
    views, parts, radiographs = frames
    answer = served().score(form(request(views=views, budget_ms=None), *parts))
    assert answer.status == 200
    assert plain(answer.json()["report"]) == plain(json.loads(score(radiographs).to_json()))


def header_of(path) -> bytes:
    ds = dcmread(path)
    del ds.PixelData
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_raw_frames_with_headers_have_dicom_results(served, frames, files, score):
    """The report is that of the files themselves, and the structured report refers to them."""
    views, parts, _ = frames
    views = [{name: view[name] for name in ("part", "rows", "columns", "bits_allocated")} for view in views]
    views = [view | {"header": f"{view['part']}.head"} for view in views]
    heads = [(f"{path.stem}.head", DICOM, header_of(path)) for path in files]
    one = served()
    answer = one.score(form(request(views=views, formats=["sr"]), *parts, *heads)).json()
    expected = plain(json.loads(score(load_study(*files)).to_json()))
    for name in ("study", "total", "findings"):
        assert answer["report"][name] == expected[name]
    sr = dcmread(io.BytesIO(call(one.app, "GET", answer["results"]["sr"]).body))
    assert sr.StudyInstanceUID == dcmread(files[0]).StudyInstanceUID
    assert one.score(form(request(views=views), *parts, heads[0])).status == 400
    assert one.score(form(request(views=views[:1]), parts[0], (heads[0][0], FRAME, b"x"))).status == 400
    contradicted = one.score(form(request(views=[views[0] | {"region": "lumbar"}]), parts[0], heads[0]))
    assert (contradicted.status, "contradicts" in contradicted.json()["detail"]) == (400, True)
    contradicted = one.score(form(request(views=[views[0] | {"sop_instance_uid": "1.2"}]), parts[0], heads[0]))
    assert (contradicted.status, "contradicts" in contradicted.json()["detail"]) == (400, True)
    broken = one.score(form(request(views=views[:1]), parts[0], (heads[0][0], DICOM, b"x" * 500)))
    assert (broken.status, broken.code) == (422, "not-dicom")


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_body_may_come_in_any_pieces(served, frames, piece):
    views, parts, _ = frames
    small = [dict(view, rows=3, columns=5) for view in views]
    body = form(request(views=small), *((name, kind, b"\r\n--a-boun" + b"\r" * 5) for name, kind, _ in parts))
    one = served()
    one.supervisor.fault = ("too-small", "too small")
    assert one.score(body, piece=piece).status == 422


def test_a_file_of_an_archive_or_the_whole_body_is_taken(served, files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for path in files:
            writing.write(path, path.name)
    one = served()
    for body, kind in ((archive.getvalue(), ZIP), (files[0].read_bytes(), DICOM)):
        assert one.score(body, kind, "?strict=false&budget_ms=60000&formats=json,csv").status == 200
    assert one.score(form(("all", ZIP, archive.getvalue()))).json()["report"]["total"]["value"] is not None


def test_results_are_fetched_until_their_time(served, dicom):
    one = served()
    answer = one.score(form(request(formats=["json", "sr", "csv", "html", "png"]), *dicom))
    links = answer.json()["results"]
    assert sorted(links) == ["csv", "html", "json", "png-cervical", "png-lumbar", "sr"]
    results = {name: call(one.app, "GET", link) for name, link in links.items()}
    assert dcmread(io.BytesIO(results["sr"].body)).Modality == "SR"
    assert json.loads(results["json"].body) == answer.json()["report"]
    assert one.left() == []
    key = links["sr"].split("/")[3]
    for path in (f"/v1/results/{key}/none.dcm", f"/v1/results/{'1-' + '0' * 32}/sr.dcm", f"/v1/results/{key}/..",
                 "/v1/results/../index.sqlite"):  # fmt: skip
        assert call(one.app, "GET", path).status == 404


def test_old_results_are_removed(served, dicom, make):
    appliance = make()
    one = served()
    links = one.score(form(request(formats=["json"]), *dicom)).json()["results"]
    appliance.clock.now_s = one.clock.now() + 3 * 86400.0
    clean(one.places, appliance.index, appliance.clock, 24.0, 4.0)
    assert call(one.app, "GET", links["json"]).status == 200
    clean(one.places, appliance.index, appliance.clock, 24.0, 2.0)
    assert call(one.app, "GET", links["json"]).status == 404


def test_dicom_results_of_raw_frames_say_why_there_are_none(served, frames):
    views, parts, _ = frames
    answer = served().score(form(request(views=views, formats=["sr", "json"]), *parts)).json()
    assert list(answer["results"]) == ["json"]
    assert "header" in answer["not_made"]["sr"]


def test_a_study_that_cannot_be_scored_is_a_problem_with_its_code(served, dicom):
    one = served()
    answer = one.score(form(("a", DICOM, b"no DICOM at all" * 100)))
    assert (answer.status, answer.code) == (422, "not-dicom")
    other = one.score(form(dicom[0], ("b", DICOM, dicom[1][2].replace(b"1.2.3.4", b"1.2.3.5"))))
    assert (other.status, other.code) == (422, "several-studies")
    assert one.left() == []


@pytest.mark.parametrize(
    ("code", "status"),
    [("worker-crashed", 500), ("worker-memory", 500), ("worker-timeout", 504), ("budget", 504), ("not-ready", 503),
     ("http-busy", 503), ("no-space", 503), ("low-confidence", 422), ("no-image", 422), ("engine", 500)],
)  # fmt: skip
def test_every_end_of_a_job_has_its_status(served, dicom, code, status):
    one = served()
    one.supervisor.fault = (code, "a sentence")
    answer = one.score(form(*dicom))
    assert (answer.status, answer.code, answer.json()["detail"]) == (status, code, "a sentence")
    assert ("retry-after" in answer.headers) == (status == 503)
    assert one.left() == []


def head(lines: str) -> bytes:
    return f"--a-boundary\r\n{lines}\r\n\r\nx\r\n--a-boundary--\r\n".encode()


NAMED = 'Content-Disposition: form-data; name="a"'
MALFORMED = {
    "nothing": (b"", "no multipart|ends before"),
    "no boundary in it": (b"x" * 100, "no multipart"),
    "cut off": (form(("a", DICOM, b"x"), end=False), "ends before"),
    "no part": (b"--a-boundary--\r\n", "no multipart|ends before|no file"),
    "no file": (form(request()), "no file"),
    "no name": (head("Content-Disposition: form-data"), "has no name"),
    "a name with a path": (head('Content-Disposition: form-data; name="../../x"'), "has no name"),
    "another disposition": (head('Content-Disposition: attachment; name="a"'), "has no name"),
    "no type": (head(NAMED), "Content-Type of the part a"),
    "another type": (head(f"{NAMED}\r\nContent-Type: text/html"), "Content-Type of the part a"),
    "one name twice": (form(("a", DICOM, b"x"), ("a", DICOM, b"y")), "two parts have the name a"),
    "a raw frame without a view": (form(("a", FRAME, b"x")), "no view"),
    "options that are no JSON": (form(("request", "application/json", b"{"), ("a", DICOM, b"x")), "options"),
    "an unknown option": (form(request(budget=1), ("a", DICOM, b"x")), "budget"),
    "options of a wrong type": (form(request(budget_ms="soon"), ("a", DICOM, b"x")), "budget_ms"),
    "an unknown format": (form(request(formats=["pdf"]), ("a", DICOM, b"x")), "formats"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_a_problem_with_a_next_step(served, case):
    body, words = MALFORMED[case]
    one = served()
    answer = one.score(body)
    assert (answer.status, answer.code) == (400, "http-request")
    assert any(word in answer.json()["detail"] for word in words.split("|")), answer.json()["detail"]
    assert answer.json()["next_step"]
    assert one.left() == []
    assert one.supervisor.said == [{"consoles": "none"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"rows": 5}, "bytes"), ({"part": "other"}, "missing"), ({"bits_allocated": 12}, "bits_allocated"),
     ({"bits_stored": 12}, "bits_stored"), ({"pixel_spacing_mm": [0, 1]}, "spacing"), ({"region": "hip"}, "region"),
     ({"rows": 1 << 60}, "rows"), ({"facing": "up"}, "facing"), ({"study_instance_uid": "Doe^John"}, "digits and dots"),
     ({"more": 1}, "more"), ({"rows": None}, "rows")],
)  # fmt: skip
def test_a_view_that_does_not_fit_is_named(served, frames, change, words):
    views, parts, _ = frames
    answer = served().score(form(request(views=[views[0] | change]), parts[0]))
    assert answer.status == 400
    assert words in answer.json()["detail"]


def test_frames_and_files_are_not_mixed_and_views_have_names_of_their_own(served, frames, dicom):
    views, parts, _ = frames
    one = served()
    file = ("file", *dicom[0][1:])
    assert "one of the two" in one.score(form(request(views=views), *parts, file)).json()["detail"]
    assert "earlier view" in one.score(form(request(views=[views[0]] * 2), parts[0])).json()["detail"]
    as_dicom = one.score(form(request(views=views[:1]), (parts[0][0], DICOM, parts[0][2])))
    assert f"send it as {FRAME}" in as_dicom.json()["detail"]


def test_limits_hold_before_memory(served, dicom):
    one = served(max_body_mb=1)
    assert one.score(b"", DICOM, headers=[("content-length", str(2 << 20))]).status == 413  # nothing of it was read
    assert one.score(b"x" * (1 << 20) + b"y", DICOM, headers=[("transfer-encoding", "chunked")]).status == 413
    assert one.score(form(*((f"p{n}", DICOM, b"x") for n in range(5)))).status == 413
    assert one.score(form(("request", "application/json", b" " * 70_000), dicom[0])).status == 413
    assert one.score(head(f"{NAMED}\r\nX-More: {'x' * 3000}\r\nX-Most: {'x' * 3000}")).status in (400, 413)
    assert one.score(b"x", f"{FORM}{'y' * 300}").status == 400
    assert one.left() == []


def test_other_types_and_options_in_two_places_are_refused(served, dicom):
    one = served()
    for kind in ("", "text/plain", "application/json", "multipart/mixed"):
        assert one.score(b"x", kind).status == 415
    assert one.score(b"x", "multipart/form-data").status == 400
    assert one.score(b"", DICOM).status == 400
    for query in ("?what=1", "?budget_ms=soon", "?budget_ms=nan", "?strict=perhaps", "?formats=pdf"):
        assert one.score(b"x", DICOM, query).status == 400
    assert one.score(form(request(), dicom[0]), FORM, "?strict=true").status == 400


def test_a_full_disk_refuses_before_the_body_and_in_it(served, dicom, monkeypatch):
    one = served()
    room = iter([False, True, False])
    monkeypatch.setattr(one.places, "has_room", lambda byte_count=0: next(room))
    assert one.score(form(*dicom)).code == "no-space"
    answer = one.score(form(*dicom), headers=[("content-length", "0")])  # the first of the two counts
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "no-space", "30")
    assert one.left() == []


def test_who_disconnects_is_cancelled_and_leaves_nothing(served, dicom):
    one = served()
    one.supervisor.holds = True

    async def leave():
        gone = asyncio.Event()
        task = asyncio.create_task(acall(one.app, "POST", "/v1/score", form(*dicom), FORM, gone=gone))
        while not any("score" in message for message in one.supervisor.said):
            await asyncio.sleep(0.01)
        gone.set()
        await task
        for _ in range(500):
            if not one.left():
                break
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    (key,) = [message["score"]["key"] for message in one.supervisor.said if "score" in message]
    assert one.supervisor.said[-1] == {"cancel": key}
    assert one.left() == []


def test_a_sixth_caller_is_refused_before_its_body(served, dicom):
    one = served()
    one.supervisor.holds = True

    async def six():
        tasks = [asyncio.create_task(acall(one.app, "POST", "/v1/score", form(*dicom), FORM)) for _ in range(5)]
        while sum("score" in message for message in one.supervisor.said) < 5:
            await asyncio.sleep(0.01)
        refused = await acall(one.app, "POST", "/v1/score", b"", FORM)
        for message in [one for one in one.supervisor.said if "score" in one]:
            one.supervisor.consoles.hear({"console": message["score"]["key"], "code": "no-space", "message": "full"})
        return refused, [await task for task in tasks]

    refused, others = asyncio.run(six())
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "http-busy", "1")
    assert [answer.code for answer in others] == ["no-space"] * 5


def test_what_an_earlier_process_left_is_removed(served):
    one = served()
    (one.places.incoming / "1-a.console").mkdir()
    (one.places.incoming / "x.part").write_bytes(b"of another process")
    served()
    assert [path.name for path in one.left()] == ["x.part"]


def test_roles_over_tcp(served, tmp_path, dicom):
    tokens = {role: f"{role}-{'0123456789abcdef'}" for role in ("console", "reader", "admin")}
    for role, token in tokens.items():
        (tmp_path / role).write_text(f"{token}\n", encoding="utf-8")
    listed = tuple(HttpToken(role, str(tmp_path / role)) for role in tokens)
    one = served(tcp="127.0.0.1:8080", token=listed)

    def status(method, path, shown, body=b"", kind=""):
        headers = [("authorization", shown)] if shown else []
        return call(one.app, method, path, body, kind, headers=headers, server=TCP).status

    for shown in ("", "Bearer", "Bearer wrong", f"Basic {tokens['admin']}", "Bearer " + tokens["admin"][:-1]):
        assert status("GET", "/health/live", shown) == 401
        assert status("GET", "/nothing", shown) == 401
    for role, token in tokens.items():
        shown = f"Bearer {token}"
        assert status("GET", "/health/live", shown) == 200
        assert status("GET", "/v1/version", f"bearer  {token}") == 200
        assert status("POST", "/v1/score", shown, form(*dicom), FORM) == (403 if role == "reader" else 200)
        assert status("GET", "/nothing", shown) == (404 if role == "admin" else 403)
    assert call(one.app, "GET", "/health/live").status == 200  # on the unix socket its mode is the guard
    assert document_of(one.supervisor.said[0]) == {"consoles": "none"}
