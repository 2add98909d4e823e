"""The calls of a reader's page over HTTP: the work list, views of radiographs, events, and the files of the page."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from pydicom import dcmread

from helpers import dicom_files
from helpers.appliance import tiny_files
from helpers.http_calls import TCP
from helpers.served import serve
from spinescore.runtime import load_radiograph
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.web import pages, views
from spinescore.runtime.appliance.work.reviewanswer import view_of


def dated(folder, uid, date, patient="P-1"):
    files = tiny_files(folder / uid, uid)
    for path in files:
        ds = dcmread(path)
        ds.StudyDate, ds.PatientID = date, patient
        ds.save_as(path)
    return files


def test_the_work_list_shows_total_findings_and_prior_studies(served, tmp_path):
    studies = (("1.1", "20260301", "P-1"), ("1.2", "20240101", "P-1"), ("1.3", "20250101", "P-2"), ("1.4", "", "P-1"),
               ("1.5", "20260301", "P-1"))  # fmt: skip
    for study in studies:
        served.appliance.receive(*dated(tmp_path, *study))
    one = served.get("/v1/studies?state=collecting")["studies"][-1]
    assert (one["study_date"], one["total"], one["findings"], one["reviewed"], one["has_prior"]) == (
        None, None, [], None, False,
    )  # fmt: skip
    served.appliance.run(20)
    listed = {one["study"]: one for one in served.get("/v1/studies")["studies"]}
    report = served.get(served.get("/v1/studies/1")["report_url"])
    assert listed[1]["total"] == {name: report["total"][name] for name in ("value", "status", "range")}
    assert listed[1]["study_date"] == "20260301"
    assert set(listed[1]["findings"]) == {one["code"] for one in (*report["findings"], *report["notices"])}
    assert {number for number, one in listed.items() if one["has_prior"]} == {1, 5}
    prior = {number: served.get(f"/v1/studies/{number}")["prior"] for number in listed}
    assert {number: one and (one["study"], one["study_date"]) for number, one in prior.items()} == {
        1: (2, "20240101"), 2: None, 3: None, 4: None, 5: (1, "20260301"),
    }  # fmt: skip
    assert served.get(prior[1]["report_url"])["study"]["study_date"] == "20240101"
    file = served.ask("GET", served.get("/v1/studies/1")["files"][0])
    policy = set(file.headers["content-security-policy"].split("; "))
    assert policy == {"sandbox allow-scripts", "frame-ancestors 'none'"}
    assert "patient_key" not in json.dumps(listed)


def test_a_list_ends_with_the_day_or_the_second_of_until(served, files):
    served.appliance.receive(*files)  # the clock of tests stands at 10:00 UTC on 2026-01-05
    for query, count in (("until=2026-01-05", 1), ("until=2026-01-04", 0), ("until=2026-01-05T10:00:00Z", 1),
                         ("until=2026-01-05T09:59:59Z", 0), ("until=2026-01-05T12:00:00%2B02:00", 1),
                         ("since=2026-01-05&until=2026-01-05", 1)):  # fmt: skip
        assert len(served.get(f"/v1/studies?{query}")["studies"]) == count, query
    for query in ("until=soon", "until=9999-12-31", "until="):
        assert served.ask("GET", f"/v1/studies?{query}").status == 400


def test_an_index_of_the_version_before_gets_its_summaries(make, score, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(10)
    with appliance.index.transaction():
        for name in ("summaries", "reviews", "changes"):
            appliance.index.change(f"DROP TABLE {name}")
        for name in ("study_begins", "study_changes", "study_accepted", "changes_end"):
            appliance.index.change(f"DROP TRIGGER IF EXISTS {name}")
        appliance.index.change("PRAGMA user_version = 101")
    appliance.close()
    served = serve(make(), score)
    study = served.get("/v1/studies/1")
    assert (study["total"]["status"], study["study_date"]) == ("complete", "20260105")
    assert served.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"}).status == 200


def test_a_view_has_the_grey_values_of_the_file(served, files, monkeypatch):
    served.appliance.receive(*files)
    served.appliance.run(10)
    shown = served.get("/v1/studies/1")["views"]
    assert set(shown) == {"cervical", "lumbar"}
    for file in files:
        one = shown[file.stem]
        answer = served.ask("GET", one["url"])
        pixels = dcmread(file).pixel_array
        assert (one["rows"], one["columns"], one["turn_deg"]) == (*pixels.shape, 0)
        assert answer.headers["spinescore-size"] == f"{one['rows']} {one['columns']}"
        assert answer.headers["spinescore-window"] == "127.5 253"
        assert answer.headers["cache-control"] == "private, no-store"
        np.testing.assert_array_equal(np.frombuffer(answer.body, "<u2").reshape(pixels.shape), pixels)
        assert answer.headers["etag"] == f'"{one["sha256"]}"'
        assert one["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert served.ask("GET", shown["lumbar"]["url"]).status == 200
    assert served.supervisor.jobs() == ["review", "review"]
    for path in ("1/views/thoracic", "1/views/..", "9/views/lumbar", "x/views/lumbar"):
        assert served.ask("GET", f"/v1/studies/{path}").status == 404
    monkeypatch.setattr(views, "_MOST_KEPT", 1)
    for path in served.appliance.places.objects.glob("*/*"):
        path.unlink()
    for path in served.appliance.places.views.iterdir():
        path.unlink()
    gone = served.ask("GET", shown["lumbar"]["url"])
    assert (gone.status, gone.code) == (409, "object-missing")


def test_few_views_are_kept_and_none_over_a_start(make, score, files, monkeypatch):
    monkeypatch.setattr(views, "_MOST_KEPT", 1)
    served = serve(make(), score)
    served.appliance.receive(*files)
    served.appliance.run(10)
    for region in ("cervical", "lumbar"):
        assert served.ask("GET", f"/v1/studies/1/views/{region}").status == 200
        assert len(list(served.appliance.places.views.iterdir())) == 1
    monkeypatch.setattr(served.appliance.places, "has_room", lambda byte_count=0: False)
    assert served.ask("GET", "/v1/studies/1/views/cervical").status == 200  # made anew, and not kept
    assert served.supervisor.jobs() == ["review"] * 3
    served.appliance.close()
    assert not list(make().places.views.iterdir())


@pytest.mark.parametrize("tags", [
    {"PhotometricInterpretation": "MONOCHROME1"}, {"RescaleSlope": -2, "RescaleIntercept": 9},
    {"PixelPaddingValue": 0}, {"RescaleSlope": 0.001, "RescaleIntercept": 0},
    {"WindowCenter": 1000, "WindowWidth": 400},
])  # fmt: skip
def test_larger_values_of_a_view_are_brighter(tmp_path, tags):
    radiograph = load_radiograph(dicom_files.write(dicom_files.radiograph_dataset(**tags), tmp_path / "one.dcm"))
    pixels, (centre, width) = view_of(radiograph)
    grey = radiograph.table[radiograph.pixels.astype(int) - radiograph.stored_min]
    assert (pixels.dtype, pixels.shape, int(pixels.max()) <= 4095) == (np.uint16, radiograph.pixels.shape, True)
    assert len(np.unique(pixels)) == len(np.unique(radiograph.pixels))
    order = np.argsort(pixels.ravel(), kind="stable")
    visible = order[radiograph.pixels.ravel()[order] != 0] if "PixelPaddingValue" in tags else order
    assert (np.diff(grey.ravel()[visible]) >= 0).all()
    inside = (pixels > centre - width / 2) & (pixels < centre + width / 2)
    assert 0 < grey[inside].min() < 0.1
    assert 0.9 < grey[inside].max() < 1


def test_the_page_needs_no_token_and_nothing_else_is_served(served, tmp_path, monkeypatch):
    folder = tmp_path / "page" / "review"
    folder.mkdir(parents=True)
    for name in ("review.html", "review.js", "review.css", "views.js", "secret.txt", ".hidden.js", "Upper.js"):
        (folder / name).write_text(name)
    (folder.parent / "outside.js").write_text("outside")
    monkeypatch.setattr(pages, "_FOLDER", folder)

    def ask(path, method="GET"):
        return served.ask(method, path, server=TCP)

    assert (ask("/").status, ask("/").headers["location"]) == (307, "/review")
    for path, name in (
        ("/review", "review.html"),
        ("/review/review.js", "review.js"),
        ("/review/views.js", "views.js"),
    ):
        answer = ask(path)
        assert (answer.status, answer.body.decode()) == (200, name)
        policy = answer.headers["content-security-policy"]
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    for name in ("secret.txt", ".hidden.js", "Upper.js", "none.js", "..", ".", "..\\outside.js", "review.js\0",
                 "%2e%2e", "review.js/", "../outside.js", "../review/review.js", "", "review.js.bak",
                 "/etc/passwd"):  # fmt: skip
        assert ask(f"/review/{name}").status in (401, 404), name
    assert ask("/review", "POST").status == 401
    assert ask("/reviews").status == ask("/review/a/b").status == 401


def test_a_service_for_consoles_alone_says_that_it_has_no_page(make, score):
    served = serve(make(source=(), destination=()), score)
    answer = served.ask("GET", "/review")
    assert (answer.status, "consoles alone" in answer.json()["detail"]) == (404, True)
    assert served.get("/v1/studies")["studies"] == []
    assert served.ask("GET", "/v1/studies/1").status == 404


def test_the_folder_of_views_is_in_the_spool(tmp_path):
    assert Places(tmp_path, 0).views.parent == tmp_path
