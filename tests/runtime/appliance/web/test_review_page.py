"""The review page in Chromium, with a double of the service: one study, its points and grades, and what is sent."""

from __future__ import annotations

import json

import pytest

from helpers import review_double as double
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
CONTROL, SHIFT, ESCAPE, ENTER, TAB = "\ue009", "\ue008", "\ue00c", "\ue007", "\ue004"
RIGHT, DOWN = "\ue014", "\ue015"
POINT = "C4/C5, anterior point"


@pytest.fixture
def service():
    """A study that was scored, and a prior one of the same patient."""
    new, old = double.scored(1), double.scored(0)
    return double.Double([double.Study(2, new, prior=1), double.Study(1, old, study_date="20240101")])


def value(service, number=2):
    return service.studies[number].scored.report["total"]["value"]


def place_of(label):
    x, y = label.split(", x ")[1].split(" pixels")[0].split(", y ")
    return float(x), float(y)


def save(reader, name="AB"):
    field = reader.one("#reader")
    field.clear()
    field.send_keys(name)
    reader.press("Save correction")


def test_a_study_is_shown_with_its_points_grades_and_total(reader, service):
    reader.open(2)
    report = service.studies[2].scored.report
    assert reader.total() == str(value(service))
    assert "Not a medical device" in reader.text(".notice")
    assert report["bundle"]["intended_use"] in reader.text(".notice")
    discs = [disc for region in report["regions"].values() for disc in region["discs"]]
    labels = reader.labels()
    assert len(labels) == 48
    for disc in discs:
        (x, y), (ax, ay) = disc["centre_px"], disc["anterior_px"]
        assert any(one.startswith(f"{disc['level']}, centre point, x {x:.1f}, y {y:.1f}") for one in labels)
        assert any(one.startswith(f"{disc['level']}, anterior point, x {ax:.1f}, y {ay:.1f}") for one in labels)
        for corner in disc["corners"]:
            assert any(one.startswith(f"{corner['site']}: grade {corner['grade']}, ") for one in labels)
    assert "Keys, mouse and touch" in reader.text("summary")
    marks = reader.driver.execute_script("return performance.getEntriesByType('mark').map((one) => one.name)")
    assert marks == ["study-opened", "study-drawn"]


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_the_picture_is_upright_and_points_stand_on_it(driver, turn_deg):
    """The grey value under each point is that of the file, however the file is turned."""
    study = double.Study(1, double.turned(double.scored(0), turn_deg))
    with double.serving(double.Double([study])) as url:
        reader = Reader(driver, url).open(1)
        upright = double.scored(0).pixels["lumbar"]
        script = """
        const context = document.querySelector('[data-region=lumbar] canvas').getContext('2d');
        return [...document.querySelectorAll('[data-region=lumbar] .mark.point')].map((node) => {
          const { e, f } = node.getCTM();
          const data = context.getImageData(Math.round(e - 0.5), Math.round(f - 0.5), 1, 1).data;
          return data[0];
        });"""
        shown = driver.execute_script(script)
        window, discs = study.scored.window["lumbar"], double.scored(0).report["regions"]["lumbar"]["discs"]
        for at, disc in enumerate(discs):
            for part, name in enumerate(("centre_px", "anterior_px")):
                x, y = (round(one) for one in disc[name])
                around = upright[y - 3 : y + 4, x - 3 : x + 4].astype(float)
                grey = ((around - window["centre"]) / window["width"] + 0.5).clip(0, 1) * 255
                seen = shown[2 * at + part]
                assert grey.min() - 2 <= seen <= grey.max() + 2, (disc["level"], name)
        before = place_of(reader.label("L2/L3, centre point"))
        assert before == pytest.approx(study.scored.report["regions"]["lumbar"]["discs"][2]["centre_px"], abs=0.06)
        reader.driver.execute_script("document.querySelectorAll('[data-region=lumbar] .mark.point')[4].focus()")
        reader.keys(RIGHT)
        right = {0: (1, 0), 90: (0, -1), 180: (-1, 0), 270: (0, 1)}[turn_deg]
        moved = place_of(reader.label("L2/L3, centre point"))
        assert (moved[0] - before[0], moved[1] - before[1]) == pytest.approx(right, abs=0.11)


def test_a_dragged_point_changes_the_total_and_is_a_draft(reader, service):
    reader.open(2)
    before = place_of(reader.label(POINT))
    scale = float(reader.text("[data-region=cervical] .reading").split(" %")[0]) / 100
    reader.drag(reader.place(POINT), 20, 10)
    after = place_of(reader.label(POINT))
    assert after[0] - before[0] == pytest.approx(20 / scale, rel=0.1)
    assert after[1] - before[1] == pytest.approx(10 / scale, rel=0.1)
    assert reader.settled_total().startswith(f"{value(service)} becomes →")
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
    assert place_of(reader.label(POINT)) == before
    assert reader.total() == str(value(service))
    reader.press("Redo")
    assert place_of(reader.label(POINT)) == after
    reader.settled_total()
    reader.press("Discard all")
    assert place_of(reader.label(POINT)) == before
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
    before = place_of(reader.focused())
    reader.keys(RIGHT)
    reader.chord(SHIFT, DOWN)
    x, y = place_of(reader.label("C2/C3, centre"))
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
    save(reader)
    reader.wait_text(".head", "Revision 2")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/2/grades"
    assert body == {"revision": 1, "grades": {"L1-inferior": 3, "L5-superior": None}, "reader": "AB", "comment": None}


def test_a_conflict_is_told_and_the_draft_is_kept(reader, service):
    service.allowed = (409,)
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    moved = place_of(reader.label(POINT))
    study = service.studies[2]
    study.add(double.corrected(study.scored.report, {}, {"S1-superior": 3}), "CD", "corrected", None)
    save(reader)
    reader.wait_text("#alerts", "Revision 2 is the newest one")
    assert "your changes are still here" in reader.text("#alerts")
    assert "review-conflict" in reader.text("#alerts")
    reader.press("Load the newest revision with my changes")
    reader.wait_text(".head", "Revision 2")
    assert place_of(reader.label(POINT)) == moved
    assert reader.label("S1-superior").startswith("S1-superior: grade 3")
    reader.settled_total()
    save(reader)
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


def test_the_prior_study_stands_beside_it_with_what_changed(reader, service):
    reader.open(2)
    reader.wait_text(".prior", "corners differ")
    before = {c["site"]: c["grade"] for r in service.studies[1].reports[0]["regions"].values() for d in r["discs"]
              for c in d["corners"]}  # fmt: skip
    after = {c["site"]: c["grade"] for r in service.studies[2].reports[0]["regions"].values() for d in r["discs"]
             for c in d["corners"]}  # fmt: skip
    changed = {site for site, grade in after.items() if before[site] != grade}
    assert changed
    lines = [one.text.split(":")[0] for one in reader.all(".differences li")]
    assert set(lines) == changed
    reader.one(".toggle input").click()
    reader.wait(lambda: len(reader.all(".of-prior .mark")) == 48, "the prior marks")
    for site in changed:
        notes = reader.driver.execute_script(
            "return [...document.querySelectorAll('.mark.changed')].filter((one) => one.getAttribute('aria-label')"
            ".startsWith(arguments[0] + ':')).map((one) => one.querySelector('.note').textContent)", site)  # fmt: skip
        assert sorted(notes) == sorted([f"prior {before[site]} {'▲' if after[site] > before[site] else '▼'}",
                                        f"now {after[site]}"])  # fmt: skip
    prior = [(method, path) for method, path, _ in service.asked if path.startswith("/v1/studies/1")]
    assert ("GET", "/v1/studies/1/views/cervical") in prior


def test_zoom_pan_and_window_by_wheel_drag_and_keys(reader):
    reader.open(2)
    surface = reader.one("[data-region=cervical] .surface")
    box = surface.rect
    middle = (box["x"] + 40, box["y"] + 60)

    def reading():
        zoom, window = reader.text("[data-region=cervical] .reading").split(" %, window ")
        return int(zoom), tuple(int(one) for one in window.split(" / "))

    first = reading()
    at = reader.place(POINT)
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    actions = ActionBuilder(reader.driver)
    actions.wheel_action.scroll(round(at[0]), round(at[1]), 0, -400)
    actions.perform()
    reader.wait(lambda: reading()[0] > first[0] * 1.5, "it zooms in")
    assert reader.place(POINT) == pytest.approx(at, abs=1.5), "the place under the pointer stays"
    reader.drag(middle, 30, 20)
    reader.wait(lambda: reader.place(POINT) == pytest.approx((at[0] + 30, at[1] + 20), abs=2.5), "it moves")
    zoomed = reading()
    reader.drag(middle, 40, 30, button=2)
    reader.wait(lambda: reading()[1] != zoomed[1], "the right button changes the window")
    reader.press("Reset", "[data-region=cervical]")
    reader.wait(lambda: reading() == first, "it is as at the beginning")
    reader.one("input[name=tool][value=window]").click()
    reader.drag(reader.place(POINT), 50, 0)
    reader.wait(lambda: reading()[1][1] > first[1][1], "a drag changes the window")
    assert "None." in reader.text(".draft"), "the point did not move"
    reader.driver.execute_script("arguments[0].focus()", surface)
    reader.keys("0")
    reader.wait(lambda: reading() == first, "0 shows all")
    reader.keys("+", "+", "-")
    reader.wait(lambda: reading()[0] > first[0], "plus zooms")
    reader.keys(DOWN)
    reader.wait(lambda: reading()[1][0] > first[1][0], "arrows change the window")


def test_points_of_a_rejected_region_can_be_put_right(driver):
    study = double.Study(1, double.scored(0))
    study.reports[0] = double.rejected(study.reports[0], "cervical")
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


def test_a_page_that_was_left_holds_no_connection(reader, service):
    """The browser keeps pages for "back", and has six connections for all of them: the seventh page would hang."""
    for _ in range(8):
        reader.open(2)
        reader.wait(lambda: service.listeners == 1, "this page alone listens")
        reader.driver.get("about:blank")
    reader.driver.back()
    reader.wait_drawn()
    reader.wait_text("#live", "Live")
    service.studies[2].state = "parked"
    service.say(service.studies[2])
    reader.wait_text(".study", "parked")


def test_what_is_asked_is_small(reader, service):
    """Opening a study asks once for each thing, and both views at once; its state again when the stream has opened."""
    reader.open(2)
    reader.wait_text("#live", "Live")
    asked = [path for method, path, _ in service.asked if path.startswith("/v1/studies/2")]
    assert sorted(set(asked)) == sorted(asked)[sorted(asked).count("/v1/studies/2") - 1 :]
    assert sorted(asked).count("/v1/studies/2") <= 2
    assert json.dumps(asked).count("/views/") == 2
