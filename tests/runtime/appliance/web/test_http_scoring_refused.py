"""Calls of consoles that are refused: malformed, unfit, beyond a limit, too many at once, or of others."""

from __future__ import annotations

import asyncio

import pytest

from helpers.appliance import tiny_files
from helpers.http_calls import FORM, TCP, acall, call, form
from helpers.served import request
from spinescore.runtime.appliance.configuration.endpoints import HttpToken
from spinescore.runtime.documents import document_of

DICOM, ZIP, FRAME = "application/dicom", "application/zip", "application/octet-stream"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("study"))


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
def test_a_malformed_body_is_a_problem_with_a_next_step(alone, case):
    body, words = MALFORMED[case]
    one = alone()
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
def test_a_view_that_does_not_fit_is_named(alone, frames, change, words):
    views, parts, _ = frames
    answer = alone().score(form(request(views=[views[0] | change]), parts[0]))
    assert answer.status == 400
    assert words in answer.json()["detail"]


def test_frames_and_files_are_not_mixed_and_views_have_names_of_their_own(alone, frames, dicom):
    views, parts, _ = frames
    one = alone()
    file = ("file", *dicom[0][1:])
    assert "one of the two" in one.score(form(request(views=views), *parts, file)).json()["detail"]
    assert "earlier view" in one.score(form(request(views=[views[0]] * 2), parts[0])).json()["detail"]
    as_dicom = one.score(form(request(views=views[:1]), (parts[0][0], DICOM, parts[0][2])))
    assert f"send it as {FRAME}" in as_dicom.json()["detail"]


def test_limits_hold_before_memory(alone, dicom):
    one = alone(max_body_mb=1)
    assert one.score(b"", DICOM, headers=[("content-length", str(2 << 20))]).status == 413  # nothing of it was read
    assert one.score(b"x" * (1 << 20) + b"y", DICOM, headers=[("transfer-encoding", "chunked")]).status == 413
    assert one.score(form(*((f"p{n}", DICOM, b"x") for n in range(5)))).status == 413
    assert one.score(form(("request", "application/json", b" " * 70_000), dicom[0])).status == 413
    assert one.score(head(f"{NAMED}\r\nX-More: {'x' * 3000}\r\nX-Most: {'x' * 3000}")).status in (400, 413)
    assert one.score(b"x", f"{FORM}{'y' * 300}").status == 400
    assert one.left() == []


def test_other_types_and_options_in_two_places_are_refused(alone, dicom):
    one = alone()
    for kind in ("", "text/plain", "application/json", "multipart/mixed"):
        assert one.score(b"x", kind).status == 415
    assert one.score(b"x", "multipart/form-data").status == 400
    assert one.score(b"", DICOM).status == 400
    for query in ("?what=1", "?budget_ms=soon", "?budget_ms=nan", "?strict=perhaps", "?formats=pdf"):
        assert one.score(b"x", DICOM, query).status == 400
    assert one.score(form(request(), dicom[0]), FORM, "?strict=true").status == 400


def test_a_full_disk_refuses_before_the_body_and_in_it(alone, dicom, monkeypatch):
    one = alone()
    room = iter([False, True, False])
    monkeypatch.setattr(one.places, "has_room", lambda byte_count=0: next(room))
    assert one.score(form(*dicom)).code == "no-space"
    answer = one.score(form(*dicom), headers=[("content-length", "0")])  # the first of the two counts
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "no-space", "30")
    assert one.left() == []


def test_a_sixth_caller_is_refused_before_its_body(alone, dicom):
    one = alone()
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


def test_roles_over_tcp(alone, tmp_path, dicom):
    tokens = {role: f"{role}-{'0123456789abcdef'}" for role in ("console", "reader", "admin")}
    for role, token in tokens.items():
        (tmp_path / role).write_text(f"{token}\n", encoding="utf-8")
    listed = tuple(HttpToken(role, str(tmp_path / role)) for role in tokens)
    one = alone(tcp="127.0.0.1:8080", token=listed)

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
