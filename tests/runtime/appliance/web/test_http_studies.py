"""Studies that are sent, listed, shown and taken up again over HTTP, on an appliance in this process."""

from __future__ import annotations

import json

from pydicom import dcmread

from helpers.appliance import tiny_files
from helpers.http_calls import BOUNDARY, FORM, TCP, form
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.studies import park

DICOM = "application/dicom"
RELATED = f'multipart/related; type="{DICOM}"; boundary={BOUNDARY}'


def parts(files):
    return [(path.stem, DICOM, path.read_bytes()) for path in files]


def related(*contents, kind=DICOM):
    head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() if kind else f"--{BOUNDARY}\r\n\r\n".encode()
    return b"".join(head + content + b"\r\n" for content in contents) + f"--{BOUNDARY}--\r\n".encode()


def test_a_study_is_sent_scored_in_its_turn_and_shown_with_its_results(served, files):
    answer = served.ask("POST", "/v1/studies", form(*parts(files)), FORM)
    assert answer.status == 202
    assert [(one["part"], one["status"], one["study"]) for one in answer.json()["files"]] == [
        ("cervical", "stored", 1), ("lumbar", "stored", 1),
    ]  # fmt: skip
    again = served.ask("POST", "/v1/studies", files[0].read_bytes(), DICOM)
    assert [one["status"] for one in again.json()["files"]] == ["known"]
    assert served.appliance.index.rows("SELECT source FROM associations WHERE closed_s IS NULL") == []
    assert served.ask("GET", "/v1/studies/1").json()["state"] == "collecting"
    served.appliance.run(20)
    study = served.ask("GET", "/v1/studies/1").json()
    assert (study["state"], len(study["objects"]), len(study["files"])) == ("delivered", 2, 2)
    report = served.ask("GET", next(link for link in study["files"] if link.endswith("report.json")))
    assert report.json()["total"]["status"] == "complete"
    sr = next(link for link in study["files"] if link.endswith("sr.dcm"))
    assert served.ask("GET", sr).body[128:132] == b"DICM"
    key = sr.split("/")[5]
    for path in (f"/v1/studies/1/results/{key}/set.json", f"/v1/studies/2/results/{key}/sr.dcm",
                 f"/v1/studies/1/results/{key[:-1]}/sr.dcm", f"/v1/studies/1/results/{key}/none.dcm"):  # fmt: skip
        assert served.ask("GET", path).status == 404


def test_files_that_are_not_taken_are_named_and_the_others_stored(served, files, tmp_path):
    ds = dcmread(files[1])
    ds.SOPInstanceUID = dcmread(files[0]).SOPInstanceUID
    ds.save_as(tmp_path / "other.dcm")
    body = form(parts(files)[0], ("x", DICOM, b"no DICOM" * 99), ("y", DICOM, (tmp_path / "other.dcm").read_bytes()))
    outcomes = served.ask("POST", "/v1/studies", body, FORM).json()["files"]
    assert [(one["status"], one["code"]) for one in outcomes] == [
        ("stored", None), ("refused", "not-dicom"), ("quarantined", "quarantined"),
    ]  # fmt: skip
    refused = served.ask("POST", "/v1/studies", b"no DICOM" * 99, DICOM)
    assert (refused.status, refused.code) == (422, "not-dicom")


def test_what_is_no_study_is_refused(served, files, monkeypatch):
    frame = ("a", "application/octet-stream", b"x")
    request = ("request", "application/json", b"{}")
    assert served.ask("POST", "/v1/studies", form(frame), FORM).status == 400
    assert served.ask("POST", "/v1/studies", form(request, *parts(files)), FORM).status == 400
    assert served.ask("POST", "/v1/studies", b"x", "application/zip").status == 415
    assert served.ask("POST", "/v1/studies", form(*((f"p{n}", DICOM, b"x") for n in range(65))), FORM).status == 413
    served.appliance.places.reserve_bytes = 1 << 60
    full = served.ask("POST", "/v1/studies", form(*parts(files)), FORM)
    assert (full.status, full.code) == (503, "no-space")
    monkeypatch.setattr(served.appliance.places, "has_room", lambda byte_count=0: byte_count > 0)
    assert served.ask("POST", "/v1/studies", form(*parts(files)), FORM).code == "no-space"
    assert served.appliance.states() == {}


def test_without_an_audit_log_the_sender_is_told_to_send_again(served, files):
    (served.appliance.places.root / "audit").write_text("a file where the folder of the log would be")
    answer = served.ask("POST", "/v1/studies", form(*parts(files)), FORM)
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "audit-not-written", "30")
    assert served.appliance.states() == {}


def test_stow_stores_and_says_what_it_did_not(served, files):
    contents = [path.read_bytes() for path in files]
    answer = served.ask("POST", "/dicom-web/studies", related(*contents), RELATED)
    assert (answer.status, list(answer.json())) == (200, ["00081199"])
    stored = answer.json()["00081199"]["Value"]
    assert [one["00081155"]["Value"][0] for one in stored] == [str(dcmread(path).SOPInstanceUID) for path in files]
    mixed = served.ask("POST", "/dicom-web/studies", related(contents[0], b"x" * 500, kind=""), RELATED)
    assert (mixed.status, sorted(mixed.json())) == (202, ["00081198", "00081199"])
    assert mixed.json()["00081198"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]
    assert served.ask("POST", "/dicom-web/studies", related(b"x" * 500), RELATED).status == 409
    other = f"multipart/related; type=application/dicom+json; boundary={BOUNDARY}"
    assert served.ask("POST", "/dicom-web/studies", related(*contents), other).status == 415
    assert served.ask("POST", "/dicom-web/studies", related(*contents, kind="text/html"), RELATED).status == 400
    assert served.ask("POST", "/dicom-web/studies", b"x", RELATED).status == 400


def test_studies_are_listed_by_state_time_and_page(served, tmp_path, monkeypatch):
    monkeypatch.setattr("spinescore.runtime.appliance.web.studies._MOST_STUDIES", 2)
    for number in range(3):
        served.appliance.receive(*tiny_files(tmp_path / str(number), f"1.2.{number}", ("cervical",)))

    def numbers(query=""):
        answer = served.ask("GET", f"/v1/studies{query}").json()
        return [one["study"] for one in answer["studies"]], answer["next"]

    assert numbers() == ([3, 2], 2)
    assert numbers("?cursor=2") == ([1], None)
    assert numbers("?state=parked") == ([], None)
    assert numbers("?state=collecting&cursor=3") == ([2, 1], 1)
    assert numbers("?since=2026-01-05T12:00:00%2B02:00") == ([3, 2], 2)  # the clock of tests stands at 10:00 UTC
    assert numbers("?since=2026-01-05T10:00:01Z") == ([], None)
    assert numbers("?since=2026-01-06") == ([], None)
    for query in ("?state=lost", "?cursor=x", "?since=soon", "?since=0001-01-01T00:00:00%2B23:00", "?page=2"):
        assert served.ask("GET", f"/v1/studies{query}").status == 400


def test_a_parked_study_is_scored_again_and_results_are_delivered_again(served, files):
    served.appliance.receive(*files)
    index, clock = served.appliance.index, served.appliance.clock
    with index.transaction():
        park(index, clock, 1, Fault("worker-crashed", "it crashed"))
    assert served.ask("GET", "/v1/studies?state=parked").json()["studies"][0]["code"] == "worker-crashed"
    assert served.ask("POST", "/v1/studies/1/retry").json()["study"]["state"] == "due"
    served.appliance.run(10)
    again = served.ask("POST", "/v1/studies/1/deliver?destination=out").json()
    assert again["study"]["state"] == "delivering"
    assert "delivered again" in again["message"]
    assert served.ask("POST", "/v1/studies/1/deliver?destination=pacs").status == 400
    nothing = served.ask("POST", "/v1/studies/1/dismiss?destination=pacs").json()
    assert nothing["message"].endswith("nothing was changed")
    given_up = served.ask("POST", "/v1/studies/1/dismiss").json()
    assert (given_up["study"]["state"], given_up["study"]["files"]) == ("dismissed", again["study"]["files"])
    assert served.ask("GET", "/v1/studies?state=dismissed").json()["studies"][0]["study"] == 1
    for path in ("/v1/studies/9", "/v1/studies/one"):
        assert served.ask("GET", path).status == 404
        assert {served.ask("POST", f"{path}/{verb}").status for verb in ("retry", "deliver", "dismiss")} == {404}


def test_who_may(served, files):
    def status(role, method, path, body=b"", kind=""):
        headers = [("authorization", f"Bearer {role}-token")]
        return served.ask(method, path, body, kind, headers=headers, server=TCP).status

    body = form(*parts(files))
    assert [status(role, "POST", "/v1/studies", body, FORM) for role in ("console", "reader")] == [202, 403]
    assert [status(role, "GET", "/v1/studies/1") for role in ("console", "reader", "admin")] == [403, 200, 200]
    for verb in ("retry", "dismiss"):
        path = f"/v1/studies/1/{verb}"
        assert [status(role, "POST", path) for role in ("console", "reader", "admin")] == [403, 403, 200]
    assert json.loads(json.dumps(served.appliance.states())) == {"1.2.3.4": "collecting"}
