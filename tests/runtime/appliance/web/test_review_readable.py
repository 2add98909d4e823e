"""The review page in Chromium: a reader says that a region can be read, which another one could not read."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers import review_reports as reports
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow

CONTROL, ENTER, TAB = "\ue009", "\ue007", "\ue004"
POINT = "L2/L3, anterior point"
LUMBAR = "[data-region=lumbar]"


@pytest.fixture
def service():
    """A study with a corrected grade, whose lumbar radiograph a reader could then not read."""
    one = reports.scored(1)
    graded = reports.corrected(one.report, {}, {"L1-inferior": 3})
    study = double.Study(2, reports.Scored(graded, one.pixels, one.window))
    study.add(reports.rejected(graded, "lumbar", "reader-unreadable"), "CD", "unreadable", "Blurred.", ["lumbar"])
    study.reviewed = "unreadable"
    return double.Double([study])


def by_keyboard(reader: Reader, name: str) -> None:
    """Go to a control by its name, and press it."""
    for _ in range(60):
        if reader.focused().startswith(name):
            return reader.keys(ENTER)
        reader.keys(TAB)
    raise AssertionError(f"no key leads to {name}")


def test_a_region_is_restored_with_its_grades_and_points(reader, service):
    reader.open(2)
    assert reader.text(".revisions td:nth-of-type(3)").startswith("lumbar cannot be read")
    assert not reader.button("Can be read", LUMBAR).get_property("hidden")
    assert not reader.one("[data-region=cervical] .restore").is_displayed()
    by_keyboard(reader, "Can be read: lumbar spine")
    assert reader.focused().startswith("Take back: lumbar spine")
    assert "Lumbar spine: can be read" in reader.text(".changes")
    total = f"{service.studies[2].total:g}"
    assert reader.settled_total() == f"no total becomes → {total}"
    assert service.bodies == [("/v1/studies/2/preview", {"revision": 2, "readable": ["lumbar"]})]
    assert "Rejected" not in reader.text(LUMBAR)
    assert "You say that this region can be read" in reader.text(LUMBAR)
    reader.one("#reader").send_keys("EF")
    reader.press("Save correction")
    reader.wait(lambda: reader.total() == total, "the new revision")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/readable"
    assert body == {"revision": 2, "readable": ["lumbar"], "reader": "EF", "comment": None}
    assert reader.label("L1-inferior").startswith("L1-inferior: grade 3")
    assert "not to be trusted" not in reader.text(LUMBAR)
    assert not reader.one(f"{LUMBAR} .restore").is_displayed()
    assert "EF lumbar can be read again" in reader.text(".revisions")
    assert "Reviewed can be read again" in reader.text(".head")


def test_it_is_a_draft_that_can_be_undone_with_the_points_that_need_it(reader, service):
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    assert "None." in reader.text(".draft"), "the points of a region that cannot be read stay where they are"
    reader.press("Can be read", LUMBAR)
    reader.settled_total()
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    assert service.bodies[-1][1]["readable"] == list(service.bodies[-1][1]["points"]) == ["lumbar"]
    reader.chord(CONTROL, "z")
    reader.chord(CONTROL, "z")
    assert "None." in reader.text(".draft")
    assert "Rejected (reader-unreadable)" in reader.text(LUMBAR)
    assert reader.total() == "no total"
    reader.press("Redo")
    reader.press("Redo")
    assert "moved" in reader.text(".changes")
    reader.press("Take back", LUMBAR)
    assert "None." in reader.text(".draft"), "points go with the word that they need"
    reader.press("Undo")
    assert "moved" in reader.text(".changes")
    reader.press("Discard all")
    assert not reader.button("Save correction").is_enabled()
    assert reader.button("Can be read", LUMBAR).is_enabled()


@pytest.mark.parametrize("is_out", [False, True])
def test_two_readers_who_speak_of_one_region_at_once(reader, service, is_out):
    """The draft goes onto the newest revision, in which the region is restored, or is taken out again."""
    service.allowed = (409,)
    reader.open(2)
    reader.press("Can be read", LUMBAR)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    study = service.studies[2]
    if is_out:
        study.add(study.reports[-1], "GH", "unreadable", None, ["lumbar"])
    else:
        study.add(study.reports[0], "GH", "readable", None, None, ["lumbar"])
    reader.save()
    reader.wait_text("#alerts", "Revision 3 is the newest one")
    reader.press("Load the newest revision with my changes")
    reader.wait_text(".head", "Revision 3")
    assert ("Lumbar spine: can be read" in reader.text(".changes")) is is_out
    assert "L2/L3, anterior point: moved" in reader.text(".changes")
    assert reader.text("#alerts") == ""
    reader.settled_total()
    reader.save()
    reader.wait_text(".head", "Revision 4")
    path, body = service.bodies[-1]
    assert path.endswith("/readable" if is_out else "/points")
    assert ("readable" in body, list(body["points"])) == (is_out, ["lumbar"])


def test_points_of_a_region_that_another_reader_took_out_meanwhile_are_left_out(reader, service):
    service.allowed = (409,)
    study = service.studies[2]
    study.add(study.reports[0], "EF", "readable", None, None, ["lumbar"])
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    study.add(study.reports[1], "GH", "unreadable", None, ["lumbar"])
    reader.save()
    reader.press("Load the newest revision with my changes")
    reader.wait_text("#alerts", "were left out. L2/L3.")
    assert "None." in reader.text(".draft")


def test_a_word_that_is_taken_back_shows_the_region_as_rejected_without_a_new_preview(reader, service):
    service.allowed = (503,)
    reader.open(2)
    reader.one("input[name='grade-C3-superior'][aria-label^='3,']").find_element("xpath", "..").click()
    reader.press("Can be read", LUMBAR)
    reader.settled_total()
    assert "Rejected" not in reader.text(LUMBAR)
    service.faults["POST", "/preview"] = (503, {"code": "not-ready", "detail": "the worker is not ready"})
    reader.press("Take back", LUMBAR)
    reader.wait_text(".total", "The new total is not known")
    assert "Rejected (reader-unreadable)" in reader.text(LUMBAR)
    assert reader.focused() == "Can be read: lumbar spine"
