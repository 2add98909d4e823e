"""The review page in Chromium: corrections of points and grades, and what is sent."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers import review_reports as reports
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow

CONTROL, SHIFT, ESCAPE, ENTER, TAB = "\ue009", "\ue008", "\ue00c", "\ue007", "\ue004"

RIGHT, DOWN = "\ue014", "\ue015"

POINT = "C4/C5, anterior point"


@pytest.fixture
def service():
    return double.with_prior()


def test_a_dragged_point_changes_the_total_and_is_a_draft(reader, service):
    reader.open(2)
    before = reader.point(POINT)
    scale = float(reader.text("[data-region=cervical] .reading").split(" %")[0]) / 100
    reader.drag(reader.place(POINT), 20, 10)
    after = reader.point(POINT)
    assert after[0] - before[0] == pytest.approx(20 / scale, rel=0.1)
    assert after[1] - before[1] == pytest.approx(10 / scale, rel=0.1)
    assert reader.settled_total().startswith(f"{service.studies[2].total} becomes →")
    assert "moved, not saved" in reader.label(POINT)
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/preview"
    assert body["revision"] == 1
    assert list(body["points"]) == ["cervical"]
    assert list(body["points"]["cervical"]) == ["C4/C5"]
    assert body["points"]["cervical"]["C4/C5"][1] == pytest.approx(after, abs=0.06)
    assert len(service.bodies) == 1, "a drag asks once"
    changes = reader.text(".changes")
    assert "C4/C5, anterior point: moved" in changes
    assert "mm" in changes
    assert "follows from the points" in changes
    assert "was " in reader.label("C4-inferior")
    assert reader.driver.execute_script("return !dispatchEvent(new Event('beforeunload', {cancelable: true}))")

    reader.chord(CONTROL, "z")
    assert reader.point(POINT) == before
    assert reader.total() == str(service.studies[2].total)
    reader.press("Redo")
    assert reader.point(POINT) == after
    reader.settled_total()
    reader.press("Discard all")
    assert reader.point(POINT) == before
    assert "None." in reader.text(".draft")
    assert reader.driver.execute_script("return dispatchEvent(new Event('beforeunload', {cancelable: true}))")


def test_a_slow_drag_is_one_step_to_undo(reader):
    reader.open(2)
    x, y = reader.place(POINT)
    events = [["pointerdown", 0], *(["pointermove", 10 * step] for step in range(1, 5)), ["pointerup", 40]]
    steps = """
    const surface = document.querySelector('[data-region=cervical] .surface');
    surface.setPointerCapture = () => {};
    const [events, x, clientY] = arguments;
    let now = performance.now();
    performance.now = () => (now += 5000);
    for (const [kind, right] of events) {
      const clientX = x + right;
      surface.dispatchEvent(new PointerEvent(kind, { clientX, clientY, pointerId: 9, button: 0, bubbles: true }));
    }"""
    reader.driver.execute_script(steps, events, x, y)
    reader.wait(lambda: reader.place(POINT) == pytest.approx((x + 40, y), abs=1), "the point moves")
    reader.press("Undo")
    reader.wait(lambda: reader.place(POINT) == pytest.approx((x, y), abs=1), "the point is where it was")
    assert not reader.button("Undo").is_enabled()


def test_the_keyboard_alone_moves_a_point_sets_a_grade_and_saves(reader, service):
    reader.open(2)
    site = "C3-superior"
    report = service.studies[2].scored.report
    grade = report["regions"]["cervical"]["discs"][0]["corners"][1]["grade"]
    wanted = (grade + 1) % 4
    for _ in range(30):
        reader.keys(TAB)
        if reader.focused().startswith("C2/C3, centre"):
            break
    before = reader.point(reader.focused())
    reader.keys(RIGHT)
    reader.chord(SHIFT, DOWN)
    x, y = reader.point("C2/C3, centre")
    assert (x - before[0], y - before[1]) == pytest.approx((1, 10), abs=0.11)
    reader.keys("n", "n", "n")
    assert reader.focused().startswith(site)
    reader.keys(str(wanted))
    assert f"{site}: {grade} → {wanted}" in reader.text(".changes")
    reader.settled_total()
    for _ in range(80):
        reader.keys(TAB)
        if "Reader" in reader.focused():
            break
    reader.keys(*"Dr A. Berg")
    reader.keys(TAB)
    reader.keys(*"squared")
    reader.keys(TAB)
    assert reader.focused() == "Save correction"
    reader.keys(ENTER)
    reader.wait_text(".head", "Revision 2")
    reader.wait_text(".head", "State: delivered.")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/points"
    assert body["reader"] == "Dr A. Berg"
    assert body["comment"] == "squared"
    assert body["grades"] == {site: wanted}
    assert body["points"]["cervical"]["C2/C3"][0] == pytest.approx([x, y], abs=0.06)
    assert "by a reader" in reader.text("[data-region=cervical] .corners")
    assert "Dr A. Berg" in reader.text(".revisions")
    assert "corrected" in reader.text(".head")
    assert "None." in reader.text(".draft")


def test_a_grade_is_set_in_the_table_and_at_its_corner(reader, service):
    reader.open(2)
    reader.one("input[name='grade-L1-inferior'][aria-label^='3,']").find_element("xpath", "..").click()
    assert reader.label("L1-inferior").startswith("L1-inferior: grade 3, bridge, was ")
    reader.drag(reader.place("L5-superior"), 0, 0)
    assert reader.one(".chooser").get_attribute("aria-label") == "Grade of L5-superior"
    reader.one(".chooser button:last-of-type").click()
    assert reader.label("L5-superior").startswith("L5-superior: not graded, was ")
    reader.settled_total()
    assert service.bodies[-1][1]["grades"] == {"L1-inferior": 3, "L5-superior": None}
    assert "1 of 24 corners count" in reader.text(".total")
    reader.drag(reader.place("L5-superior"), 0, 0)
    reader.keys(ESCAPE)
    assert not reader.all(".chooser")
    assert reader.focused().startswith("L5-superior")
    reader.save()
    reader.wait_text(".head", "Revision 2")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/grades"
    assert body == {"revision": 1, "grades": {"L1-inferior": 3, "L5-superior": None}, "reader": "AB", "comment": None}


def test_a_conflict_is_told_and_the_draft_is_kept(reader, service):
    service.allowed = (409,)
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    moved = reader.point(POINT)
    study = service.studies[2]
    study.add(reports.corrected(study.scored.report, {}, {"S1-superior": 3}), "CD", "corrected", None)
    reader.save()
    reader.wait_text("#alerts", "Revision 2 is the newest one")
    assert "your changes are still here" in reader.text("#alerts")
    assert "review-conflict" in reader.text("#alerts")
    reader.press("Load the newest revision with my changes")
    reader.wait_text(".head", "Revision 2")
    assert reader.point(POINT) == moved
    assert reader.label("S1-superior").startswith("S1-superior: grade 3")
    reader.settled_total()
    reader.save()
    reader.wait_text(".head", "Revision 3")
    assert service.bodies[-1][1]["revision"] == 2


def test_a_region_that_cannot_be_read(reader, service):
    reader.open(2)
    reader.one("#reader").send_keys("AB")
    reader.press("Cannot be read…")
    confirm = reader.button("Say that they cannot be read", "dialog")
    assert not confirm.is_enabled()
    reader.one("dialog input[value=lumbar]").click()
    confirm.click()
    reader.wait_text(".head", "Revision 2")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/unreadable"
    assert body == {"revision": 1, "regions": ["lumbar"], "reader": "AB", "comment": None}
    reader.wait_text("[data-region=lumbar]", "Rejected")
    assert "not to be trusted" in reader.text("[data-region=lumbar]")
    assert "no total" in reader.total()
    assert not any(one.is_displayed() for one in reader.all("[data-region=lumbar] .corners"))


def test_accept_is_sent_once_and_shown(reader, service):
    reader.open(2)
    reader.one("#reader").send_keys("AB")
    reader.press("Accept as it is")
    reader.wait_text(".head", "accepted")
    sent = [body for path, body in service.bodies if path.endswith("/accept")]
    assert sent == [{"revision": 1, "reader": "AB", "comment": None}]
    assert "accepted" in reader.text(".revisions")
    assert reader.text(".head").count("Revision 1") == 1


def test_points_of_a_rejected_region_can_be_put_right(driver):
    study = double.Study(1, reports.scored(0))
    study.reports[0] = reports.rejected(study.reports[0], "cervical")
    service = double.Double([study])
    with double.serving(service) as url:
        reader = Reader(driver, url).open(1)
        assert "no-spine" in reader.text("[data-region=cervical]")
        reader.drag(reader.place(POINT), 12, 0)
        reader.settled_total()
        assert list(service.bodies[-1][1]["points"]["cervical"]) == ["C4/C5"]


def test_leaving_with_changes_asks(reader):
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    reader.one("#to-list").click()
    alert = reader.alert()
    assert "not saved" in alert.text
    alert.dismiss()
    reader.wait(lambda: reader.driver.current_url.endswith("#/studies/2"), "the study stays")
    assert "moved" in reader.text(".changes")
    reader.one("#to-list").click()
    reader.alert().accept()
    reader.wait_text("main", "Work list")
