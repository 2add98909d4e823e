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
from spinescore.runtime.appliance.web.consolebody import Packed, PackedAnswers
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


def view(rows=0, columns=0, data=0, header=0, region=b"", spacing=(0.0, 0.0), stored=0, uid=b"", stride=None):
    stride = columns if stride is None else stride
    return struct.pack(
        "<4I2d3Q16s16s16s72s72s",
        *(rows, columns, 8 if rows else 0, stored, *spacing, header, data, stride, b"", region, b"", uid, b""),
    )


def body(*views, contents=(), formats=b"", count=None, size=1120, strict=0, budget_ms=0):
    head = struct.pack("<4I112s", size, len(views) if count is None else count, budget_ms, strict, formats)
    return head + b"".join(views).ljust(992, b"\0") + b"".join(contents)


def score_body(served, sent, **more):
    return call(served[0], "POST", "/v1/score", sent, REQUEST, headers=ACCEPT, **more)


def unpack(answer):
    """The structs of an answer, and its JSON."""
    assert answer.headers["content-type"] == ANSWER
    assert int(answer.headers["content-length"]) == len(answer.body)
    sent = SentAnswer.from_buffer_copy(answer.body)
    assert sent.report.answer_bytes == len(answer.body) - 10216
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
    problem, none, fetched = unpack(call(served[0], "GET", links["json"], headers=ACCEPT))
    assert (fetched, problem.message, none.struct_size) == (document["report"], b"", 0)


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
        body(view(data=4))[:1119],
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
        body(view(2, 3, data=6), contents=[b"pixels"], size=1121),
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


def ask(app, path, accepted):
    """Return the messages of an answer, and whether the application was asked for it."""
    sent, asked = [], []

    async def send(message):
        sent.append(message)

    async def asked_app(scope, receive, send):
        asked.append(scope["path"])
        await app(scope, receive, send)

    scope = {"type": "http", "path": path, "headers": [(b"accept", accepted.encode())]}
    asyncio.run(PackedAnswers(asked_app)(scope, None, send))
    return sent, bool(asked)


def pieces(status, kind, *bodies):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": body is not bodies[-1]})

    return app


def test_a_fault_of_ours_is_packed():
    broken = pieces(500, "application/problem+json", b'{"code": "http-fault", "detail": "KeyError"}')
    sent, _ = ask(broken, "/v1/score", ANSWER)
    assert SentAnswer.from_buffer_copy(sent[1]["body"]).problem.code == b"http-fault"


def test_only_answers_in_one_piece_on_the_paths_of_the_library_are_packed():
    whole, streamed = pieces(200, "application/json", b"{}"), pieces(200, "text/plain", b"a", b"b")
    assert len(ask(whole, "/health/ready", ANSWER)[0][1]["body"]) == 10218
    assert ask(whole, "/v1/status", ANSWER)[0][1]["body"] == b"{}"
    assert [message.get("body") for message in ask(streamed, "/v1/results/1/a", ANSWER)[0]] == [None, b"a", b"b"]


def test_a_service_that_is_not_ready_says_why():
    waits = pieces(503, "application/json", b'{"ready": false, "reasons": ["the worker starts", "the disk is full"]}')
    problem = SentAnswer.from_buffer_copy(ask(waits, "/health/ready", ANSWER)[0][1]["body"]).problem
    assert (problem.code, problem.message) == (b"not-ready", b"the worker starts; the disk is full")
    assert problem.next_step


@pytest.mark.parametrize("path", ["/v1/score", "/v1/results/4f/sr.dcm", "/health/ready"])
@pytest.mark.parametrize("version", ["", "-1", "-3"])
def test_a_library_of_another_version_is_told_so_in_its_own_type(path, version):
    accepted = f"application/vnd.spinescore.answer{version}"
    sent, asked = ask(pieces(200, "application/json", b"{}"), path, accepted)
    problem = SentAnswer.from_buffer_copy(sent[1]["body"]).problem
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode(), asked) == (400, accepted, False)
    assert (problem.struct_size, problem.code) == (832, b"http-request")
    assert b"console-sdk" in problem.message


def test_the_padding_of_rows_is_left_out(tmp_path):
    """The bytes of the pieces end anywhere in rows and padding."""
    for piece in (1, 7, 1 << 20):
        taken = Packed(tmp_path / str(piece), 8)
        (tmp_path / str(piece)).mkdir()
        sent = body(
            view(3, 4, data=26, stride=11), view(1, 2, data=2, stride=9), contents=[b"abcd......." * 2 + b"abcd", b"ef"]
        )
        for place in range(0, len(sent), piece):
            taken.write(sent[place : place + piece])
        taken.close()
        taken.check()
        assert [(part.path.read_bytes(), part.byte_count) for part in taken.parts] == [(b"abcd" * 3, 12), (b"ef", 2)]


@pytest.mark.parametrize(
    "change", [{"stride": 3}, {"stride": 0}, {"data": 25}, {"data": 27}, {"rows": 70_000}, {"columns": 70_000}]
)
def test_rows_that_do_not_fit_their_stride_are_refused(served, change):
    sent = body(view(**{"rows": 3, "columns": 4, "data": 26, "stride": 11, **change}), contents=[b"x" * 26])
    answer = score_body(served, sent)
    assert (answer.status, unpack(answer)[0].code) == (400, b"http-request")
