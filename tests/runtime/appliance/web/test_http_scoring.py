"""Calls of consoles on the HTTP application, with a supervisor and a worker in this process."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile

import pytest
from pydicom import dcmread

from helpers.appliance import tiny_files
from helpers.http_calls import FORM, acall, call, form
from helpers.served import plain, request
from spinescore.runtime import load_study
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.recovery import clean

DICOM, ZIP, FRAME = "application/dicom", "application/zip", "application/octet-stream"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("study"))


def test_dicom_files_give_the_report_of_the_scorer(alone, dicom, files, score):
    one = alone()
    answer = one.score(form(*dicom))
    assert answer.status == 200
    assert plain(answer.json()["report"]) == plain(json.loads(score(load_study(*files)).to_json()))
    assert answer.json()["results"] == answer.json()["not_made"] == {}
    assert one.left() == []


def test_raw_frames_give_the_report_of_the_scorer(alone, frames, score):
    views, parts, radiographs = frames
    answer = alone().score(form(request(views=views, budget_ms=None), *parts))
    assert answer.status == 200
    assert plain(answer.json()["report"]) == plain(json.loads(score(radiographs).to_json()))


def header_of(path) -> bytes:
    ds = dcmread(path)
    del ds.PixelData
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_raw_frames_with_headers_have_dicom_results(alone, frames, files, score):
    """The report is that of the files themselves, and the structured report refers to them."""
    views, parts, _ = frames
    views = [{name: view[name] for name in ("part", "rows", "columns", "bits_allocated")} for view in views]
    views = [view | {"header": f"{view['part']}.head"} for view in views]
    heads = [(f"{path.stem}.head", DICOM, header_of(path)) for path in files]
    one = alone()
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
def test_a_body_may_come_in_any_pieces(alone, frames, piece):
    views, parts, _ = frames
    small = [dict(view, rows=3, columns=5) for view in views]
    body = form(request(views=small), *((name, kind, b"\r\n--a-boun" + b"\r" * 5) for name, kind, _ in parts))
    one = alone()
    one.supervisor.fault = ("too-small", "too small")
    assert one.score(body, piece=piece).status == 422


def test_a_file_of_an_archive_or_the_whole_body_is_taken(alone, files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for path in files:
            writing.write(path, path.name)
    one = alone()
    for body, kind in ((archive.getvalue(), ZIP), (files[0].read_bytes(), DICOM)):
        assert one.score(body, kind, "?strict=false&budget_ms=60000&formats=json,csv").status == 200
    assert one.score(form(("all", ZIP, archive.getvalue()))).json()["report"]["total"]["value"] is not None


def test_results_are_fetched_until_their_time(alone, dicom):
    one = alone()
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


def test_old_results_are_removed(alone, dicom, make):
    appliance = make()
    one = alone()
    links = one.score(form(request(formats=["json"]), *dicom)).json()["results"]
    appliance.clock.now_s = one.clock.now() + 3 * 86400.0
    clean(one.places, appliance.index, appliance.clock, SpoolPart("x", results_d=4.0))
    assert call(one.app, "GET", links["json"]).status == 200
    clean(one.places, appliance.index, appliance.clock, SpoolPart("x", results_d=2.0))
    assert call(one.app, "GET", links["json"]).status == 404


def test_dicom_results_of_raw_frames_say_why_there_are_none(alone, frames):
    views, parts, _ = frames
    answer = alone().score(form(request(views=views, formats=["sr", "json"]), *parts)).json()
    assert list(answer["results"]) == ["json"]
    assert "header" in answer["not_made"]["sr"]


def test_a_study_that_cannot_be_scored_is_a_problem_with_its_code(alone, dicom):
    one = alone()
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
def test_every_end_of_a_job_has_its_status(alone, dicom, code, status):
    one = alone()
    one.supervisor.fault = (code, "a sentence")
    answer = one.score(form(*dicom))
    assert (answer.status, answer.code, answer.json()["detail"]) == (status, code, "a sentence")
    assert ("retry-after" in answer.headers) == (status == 503)
    assert one.left() == []


def test_who_disconnects_is_cancelled_and_leaves_nothing(alone, dicom):
    one = alone()
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


def test_what_an_earlier_process_left_is_removed(alone):
    one = alone()
    (one.places.incoming / "1-a.console").mkdir()
    (one.places.incoming / "x.part").write_bytes(b"of another process")
    alone()
    assert [path.name for path in one.left()] == ["x.part"]
