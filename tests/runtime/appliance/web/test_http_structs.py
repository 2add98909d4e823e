"""Calls of the C library on the HTTP application: studies and answers as structs."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest
from pydicom import dcmread

from helpers.appliance import tiny_files
from helpers.console_structs import SentAnswer
from helpers.http_calls import TCP, call
from helpers.served import plain
from spinescore.runtime import load_study, radiograph_from_array
from spinescore.runtime.appliance.web.consolebody import PackedAnswers
from spinescore.runtime.console.wire import ANSWER, REQUEST

ACCEPT = [("accept", ANSWER)]


@pytest.fixture
def served(alone):
    """The application as the server runs it, and its supervisor."""
    one = alone()
    return PackedAnswers(one.app), one.supervisor


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("study"))


def view(rows=0, columns=0, data=0, header=0, region=b"", spacing=(0.0, 0.0), stored=0, uid=b""):
    return struct.pack(
        "<4I2d2Q16s16s16s72s72s",
        *(rows, columns, 8 if rows else 0, stored, *spacing, header, data, b"", region, b"", uid, b""),
    )


def body(*views, contents=(), formats=b"", count=None, size=1088, strict=0, budget_ms=0):
    head = struct.pack("<4I112s", size, len(views) if count is None else count, budget_ms, strict, formats)
    return head + b"".join(views).ljust(960, b"\0") + b"".join(contents)


def score_body(served, sent, **more):
    return call(served[0], "POST", "/v1/score", sent, REQUEST, headers=ACCEPT, **more)


def unpack(answer):
    """The structs of an answer, and its JSON."""
    assert answer.headers["content-type"] == ANSWER
    assert int(answer.headers["content-length"]) == len(answer.body)
    sent = SentAnswer.from_buffer_copy(answer.body)
    return sent.problem, sent.report, json.loads(answer.body[10216:])


def grades(report):
    return [corner.grade for region in report.regions for disc in region.discs for corner in disc.corners]


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_dicom_files_are_scored(served, files, score, piece):
    contents = [path.read_bytes() for path in files]
    sent = body(*(view(data=len(one)) for one in contents), contents=contents, formats=b"json,sr")
    answer = score_body(served, sent, piece=piece)
    problem, report, document = unpack(answer)
    expected = score(load_study(*files))
    assert (answer.status, problem.code, problem.message) == (200, b"", b"")
    assert plain(document["report"]) == plain(json.loads(expected.to_json()))
    assert grades(report) == [-1 if corner.grade is None else corner.grade for region in expected.regions.values()
                              for disc in region.discs for corner in disc.corners]  # fmt: skip
    links = {result.format.decode(): result.path.decode() for result in report.results[: report.result_count]}
    assert links == document["results"]
    assert sorted(links) == ["json", "sr"]
    fetched = call(served[0], "GET", links["json"], headers=ACCEPT)
    assert json.loads(fetched.body) == document["report"]  # a result is never packed


def test_raw_frames_are_scored_with_the_facts_of_their_structs(served, files, score):
    views, contents, radiographs = [], [], []
    for path in files:
        ds = dcmread(path)
        spacing = tuple(float(side) for side in ds.PixelSpacing)
        uid = str(ds.StudyInstanceUID)
        contents.append(ds.pixel_array.tobytes())
        views.append(view(ds.Rows, ds.Columns, len(contents[-1]), 0, path.stem.encode(), spacing, 8, uid.encode()))
        radiographs.append(radiograph_from_array(ds.pixel_array, region=path.stem, spacing_mm=spacing, bits_stored=8,
                                                 study=uid))  # fmt: skip
    _, report, document = unpack(score_body(served, body(*views, contents=contents)))
    expected = json.loads(score(radiographs).to_json())
    assert document["report"]["total"] == expected["total"]
    assert report.study_instance_uid.decode() == expected["study"]["study_instance_uid"]
    assert report.total == (-1 if expected["total"]["value"] is None else expected["total"]["value"])


def test_a_header_belongs_to_its_view(served):
    sent = body(view(2, 3, data=6, header=4), contents=[b"head", b"pixels"])
    problem, _, _ = unpack(score_body(served, sent))
    assert (problem.code, b"header of view-1" in problem.message) == (b"not-dicom", True)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        body(view(data=4))[:1087],
        body(view(data=4), contents=[b"abc"]),
        body(view(data=4), contents=[b"abcde"]),
        body(view(data=0)),
        body(view(2, 3, data=7), contents=[b"pixels!"]),
        body(view(2, 3, data=6), view(data=1), contents=[b"pixels", b"x"]),
        body(view(2, 3, data=6, region=b"n\xc3\xa9ck"), contents=[b"pixels"]),
        body(view(2, 3, data=6, region=b"neck"), contents=[b"pixels"]),
        body(view(2, 3, data=6, uid=b'1.2"'), contents=[b"pixels"]),
        body(view(2, 3, data=6, spacing=(float("nan"), 1.0)), contents=[b"pixels"]),
        body(view(2, 3, data=6), contents=[b"pixels"], formats=b"sr,odd"),
        body(view(2, 3, data=6), contents=[b"pixels"], count=0),
        body(view(2, 3, data=6), contents=[b"pixels"], count=5),
        body(view(2, 3, data=6), contents=[b"pixels"], size=1089),
    ],
)
def test_a_body_that_is_wrong_is_refused(served, sent):
    answer = score_body(served, sent)
    problem, report, document = unpack(answer)
    assert (answer.status, problem.code, report.struct_size) == (400, b"http-request", 0)
    assert problem.message.decode() == document["detail"]
    assert served[1].jobs() == []


def test_files_beyond_the_limit_are_refused(served):
    sent = body(*[view(2, 3, data=6, header=4)] * 3, contents=[b"head", b"pixels"] * 3)
    assert score_body(served, sent).status == 413


def test_a_reject_has_its_report_and_a_busy_service_its_seconds(served, files):
    sent = body(view(20, 20, data=400), contents=[bytes(400)])
    problem, report, document = unpack(score_body(served, sent))
    code = document["report"]["rejects"][0]["code"]
    assert problem.code.decode() == document["code"] == report.rejects[0].code.decode() == code
    assert report.reject_count == len(document["report"]["rejects"])
    assert (problem.struct_size, report.struct_size, problem.retry_after_s) == (832, 9384, -1)
    served[1].fault = ("not-ready", "The worker starts.")
    answer = score_body(served, sent)
    problem, report, _ = unpack(answer)
    assert (answer.status, problem.retry_after_s, report.struct_size) == (503, int(answer.headers["retry-after"]), 0)


def test_every_problem_is_packed_for_who_accepts_it(served):
    problem, _, document = unpack(call(served[0], "POST", "/v1/score", b"", REQUEST, headers=ACCEPT, server=TCP))
    assert (document["status"], problem.message.decode()) == (401, document["detail"])
    assert call(served[0], "POST", "/v1/score", b"", REQUEST).json()["code"] == "http-request"  # it accepts no structs


def test_a_fault_of_ours_is_packed():
    sent = []

    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 500,
                    "headers": [(b"content-type", b"application/problem+json")]})  # fmt: skip
        await send({"type": "http.response.body", "body": b'{"code": "http-fault", "detail": "KeyError"}'})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/v1/version", "headers": [(b"accept", ANSWER.encode())]}
    asyncio.run(PackedAnswers(broken)(scope, None, send))
    assert SentAnswer.from_buffer_copy(sent[1]["body"]).problem.code == b"http-fault"
