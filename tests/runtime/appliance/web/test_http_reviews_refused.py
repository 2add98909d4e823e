"""Verdicts of readers over HTTP that are refused: of others, of pages of other sites, malformed, or unfit."""

from __future__ import annotations

import json

from helpers.appliance import tiny_files
from helpers.http_calls import TCP
from helpers.served import CLIENTS, serve
from spinescore.runtime.appliance.configuration.endpoints import Http, HttpToken
from spinescore.runtime.appliance.seen.audit import files_of
from spinescore.runtime.appliance.web.access import Client, read_access
from spinescore.runtime.appliance.web.reviews import CALLS

GRADES = {"C3-superior": 2, "L1-inferior": None}

POINTS = {"cervical": {"C2/C3": [[30.0, 40.0], [50.0, 41.0]]}}


def test_who_may_and_in_whose_name(make, score, files):
    clients = {**CLIENTS, "berg-token": Client("reader", "Dr A. Berg")}
    served = serve(make(), score, clients)
    served.appliance.receive(*files)
    served.appliance.run(10)
    call = {"revision": 1, "grades": GRADES}
    for path in ("grades", "points", "unreadable", "accept", "preview"):
        assert served.post(f"/v1/studies/1/{path}", call, token="console-token").status == 403
        assert served.post(f"/v1/studies/1/{path}", call, token="none").status == 401
    assert served.post("/v1/studies/1/grades", call, token="reader-token").status == 400  # without a reader
    other = served.post("/v1/studies/1/grades", {**call, "reader": "CD"}, token="berg-token")
    assert (other.status, "Dr A. Berg" in other.json()["detail"]) == (403, True)
    study = served.post("/v1/studies/1/grades", call, token="berg-token").json()["study"]
    assert study["revisions"][1]["by"] == "Dr A. Berg"
    served.appliance.run(10)
    assert served.post("/v1/studies/1/accept", {"revision": 2, "reader": "AB"}).status == 200  # the unix socket
    assert served.post("/v1/studies/1/retry", {}, token="berg-token").status == 403


def test_pages_of_other_sites_change_nothing(delivered):
    body = json.dumps({"revision": 1, "reader": "AB"}).encode()

    def status(origin, host="scores.example:8080", kind="application/json", path="accept"):
        headers = [("authorization", "Bearer admin-token"), ("origin", origin), *([("host", host)] if host else [])]
        return delivered.ask("POST", f"/v1/studies/1/{path}", body, kind, headers=headers, server=TCP).status

    for origin in (
        "https://evil.example",
        "null",
        "",
        "http://scores.example",
        "http://scores.example:8080.evil",
        "http://[",
    ):
        assert status(origin) == status(origin, path="retry") == 403, origin
    assert status("https://scores.example:8080", host="") == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert status("https://scores.example:8080", kind=kind) == 415
    assert delivered.get("/v1/studies/1")["reviewed"] is None
    assert status("https://scores.example:8080", kind="Application/JSON; charset=utf-8") == 200


HOSTILE = [
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff\xfe\x00", b"[" * 60000, b'{"a":' * 10000, b"{}",
    b'{"revision": NaN}', b'{"revision": 1e999}', b'{"revision": 1, "revision": 1}', b'{"revision": "1"}',
    b'{"revision": 1.0}', b'{"revision": true}', b'{"revision": 0}', b'{"revision": -1}',
    b'{"revision": ' + b"9" * 400 + b"}",
    b'{"revision": 99999999999999999999}', b'{"revision": 1, "reader": 5}', b'{"revision": 1, "reader": []}',
    b'{"revision": 1, "reader": "\\u0000"}', b'{"revision": 1, "reader": "\\ud800"}', b'{"revision": 1, "other": 1}',
]  # fmt: skip

WRONG = {
    "grades": [None, [], {}, 3, "x", {"X": 1}, {"": 1},
               *({"C3-superior": one} for one in (4, -1, 1.5, True, "2", [1]))],
    "points": [None, [], {}, {"cervical": None}, {"cervical": {}}, {"thoracic": {}},
               {"cervical": {"L1/L2": [[1, 2], [3, 4]]}},
               *({"cervical": {"C2/C3": one}} for one in (None, [[1, 2]], [[1, 2], [1, 2]], [[1, 2], [3, "4"]],
                                                          [[1, 2], [3, 1e300]], [[1, 2, 3], [3, 4, 5]]))],
    "unreadable": [None, [], {}, "lumbar", ["thoracic"], ["lumbar", "lumbar"], [None], [["lumbar"]]],
    "readable": [None, [], {}, "lumbar", ["thoracic"], ["lumbar", "lumbar"], [None], [["lumbar"]], ["lumbar"]],
}  # fmt: skip


def test_hostile_bodies_are_problems(delivered):
    for path in CALLS:
        for body in HOSTILE:
            answer = delivered.ask("POST", f"/v1/studies/1/{path}", body, "application/json", piece=70000)
            assert answer.status == 400, (path, body[:40], answer.body)
        assert delivered.ask("POST", f"/v1/studies/1/{path}", b"1" * 70000, "application/json").status == 413
        for words in ({"reader": "A" * 65}, {"reader": "A", "comment": "a" * 1001}):
            assert delivered.post(f"/v1/studies/1/{path}", {"revision": 1, **words}).status == 400
        changes = {"points": POINTS, "grades": GRADES, "regions": ["lumbar"], "readable": ["lumbar"]}
        call = {"revision": 1, "reader": "A", **{name: changes[name] for name in CALLS[path]}}
        for number in ("9", "x", "1e3", "-1", "9" * 30):
            assert delivered.post(f"/v1/studies/{number}/{path}", call).status == 404
    for path, values in WRONG.items():
        for value in values:
            name = "regions" if path == "unreadable" else path
            answer = delivered.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "A", name: value})
            assert answer.status == 400, (path, value)
    assert delivered.get("/v1/studies/1")["revision"] == 1


def test_what_does_not_fit_the_study_is_refused(make, score, tmp_path):
    served = serve(make(), score)
    served.appliance.receive(*tiny_files(tmp_path / "study", regions=("cervical",)))
    served.appliance.run(20)
    for path, more in (("grades", {"grades": {"L1-inferior": 1}}), ("unreadable", {"regions": ["lumbar"]}),
                       ("points", {"points": {"lumbar": {"L1/L2": [[1, 2], [3, 4]]}}}),
                       ("points", {"points": POINTS, "grades": {"L1-inferior": 1}}),
                       ("preview", {"grades": {"L1-inferior": 1}})):  # fmt: skip
        answer = served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "AB", **more})
        assert (answer.status, "lumbar" in answer.json()["detail"]) == (400, True), path


def test_a_full_disk_or_a_log_that_cannot_be_written_takes_no_verdict(delivered):
    for path in files_of(delivered.appliance.places.root / "audit"):
        path.unlink()
    (delivered.appliance.places.root / "audit").rmdir()
    (delivered.appliance.places.root / "audit").write_text("a file where the folder of the log would be")
    answer = delivered.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"})
    assert (answer.status, answer.code) == (503, "audit-not-written")
    assert delivered.get("/v1/studies/1")["reviewed"] is None


def test_names_of_readers_are_of_tokens(tmp_path):
    files = [tmp_path / name for name in ("one", "two")]
    for path in files:
        path.write_text("a" * 32)
    tokens = (HttpToken("reader", str(files[0]), "AB"), HttpToken("reader", str(files[1]), "AB"))
    scope = {"server": TCP, "headers": [(b"authorization", b"Bearer " + b"a" * 32)]}
    assert read_access(Http(tcp="127.0.0.1:1", token=tokens)).client(scope) == Client("reader", "AB")
