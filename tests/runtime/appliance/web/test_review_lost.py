"""The review page in Chromium: discs that were not found are shown, placed, or said to be unreadable."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers import review_reports as reports
from helpers.browser import browsing, need_browser
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
CENTRE, ANTERIOR = "L2/L3, centre point", "L2/L3, anterior point"
ENTER, RIGHT = "\ue007", "\ue014"


@pytest.fixture
def service():
    """A study whose disc L2/L3 was not found, and one with two discs left in a rejected region."""
    one = reports.scored(0)
    few = one.report
    for level in ("T12/L1", "L2/L3", "L4/L5", "L5/S1"):
        few = reports.without_disc(few, level)
    return double.Double([
        double.Study(1, reports.Scored(reports.without_disc(one.report, "L2/L3"), one.pixels, one.window)),
        double.Study(2, reports.Scored(reports.rejected(few, "lumbar", "low-confidence"), one.pixels, one.window)),
    ])  # fmt: skip


def truth(level="L2/L3"):
    discs = reports.scored(0).report["regions"]["lumbar"]["discs"]
    return next(disc for disc in discs if disc["level"] == level)


def named_lost(reader):
    script = "return [...document.querySelectorAll('.marks .level')].map((one) => one.textContent)"
    return [text for text in reader.driver.execute_script(script) if "not found" in text]


def test_a_disc_that_was_not_found_is_shown_at_a_guess(reader):
    reader.open(1)
    assert len(reader.labels()) == 48
    disc = truth()
    length = ((disc["centre_px"][0] - disc["anterior_px"][0]) ** 2
              + (disc["centre_px"][1] - disc["anterior_px"][1]) ** 2) ** 0.5  # fmt: skip
    for name, point in ((CENTRE, "centre_px"), (ANTERIOR, "anterior_px")):
        assert "not found, this place is a guess" in reader.label(name)
        assert reader.point(name) == pytest.approx(disc[point], abs=length)
    assert "L2/L3 not found" in reader.text("[data-region=lumbar] .lost")
    assert not reader.one("[data-region=cervical] .lost").is_displayed()
    assert named_lost(reader) == ["not found"]
    dashes = "return getComputedStyle(document.querySelector('.mark.point.guess .dot')).strokeDasharray"
    assert reader.driver.execute_script(dashes) != "none"


def test_its_points_are_dragged_and_saved_when_both_are_placed(reader, service):
    reader.open(1)
    reader.one("#reader").send_keys("AB")
    reader.drag(reader.place(CENTRE), 9, 6)
    assert "placed, not saved" in reader.label(CENTRE)
    assert "not found" in reader.label(ANTERIOR)
    assert "place the anterior point, too" in reader.text(".lost")
    assert "place the anterior point of L2/L3" in reader.text("#finish-hint")
    assert not reader.button("Save correction").is_enabled()
    assert service.bodies == [], "half a disc is not asked for"
    reader.drag(reader.place(ANTERIOR), -8, 5)
    assert "both points are placed" in reader.text(".lost")
    assert named_lost(reader) == []
    reader.settled_total()
    assert "L2/L3, centre point: placed" in reader.text(".changes")
    placed = [reader.point(name) for name in (CENTRE, ANTERIOR)]
    reader.press("Save correction")
    reader.wait_text(".head", "State: delivered.")
    path, body = service.bodies[-1]
    assert path == "/v1/studies/1/points"
    for point, place in zip(body["points"]["lumbar"]["L2/L3"], placed, strict=True):
        assert point == pytest.approx(place, abs=0.06)
    assert not reader.one("[data-region=lumbar] .lost").is_displayed()


def test_the_keyboard_places_it_and_takes_it_back(reader, service):
    reader.open(1)
    guess = reader.point(CENTRE)
    reader.button("Place", "[data-region=lumbar] .lost").send_keys(ENTER)
    assert reader.focused().startswith(CENTRE)
    reader.keys(ENTER)
    assert reader.point(CENTRE) == guess
    assert "placed, not saved" in reader.focused()
    reader.button("Place", "[data-region=lumbar] .lost").send_keys(ENTER)
    assert reader.focused().startswith(ANTERIOR)
    before = reader.point(reader.focused())
    reader.keys(RIGHT)
    assert reader.point(reader.focused())[0] == pytest.approx(before[0] + 1, abs=0.11)
    reader.settled_total()
    assert list(service.bodies[-1][1]["points"]["lumbar"]) == ["L2/L3"]
    for _ in range(2):
        reader.press("Undo")
    assert "not found" in reader.label(CENTRE)
    assert "None." in reader.text(".draft")


def test_a_disc_that_cannot_be_read(reader, service):
    reader.open(1)
    reader.drag(reader.place(CENTRE), 9, 6)
    reader.press("Cannot be read", "[data-region=lumbar] .lost")
    assert "L2/L3 not found, cannot be read" in reader.text(".lost")
    assert reader.one("input[name='grade-L2-inferior'][aria-label^='x,']").is_selected()
    reader.settled_total()
    assert service.bodies[-1][1] == {"revision": 1, "grades": {"L2-inferior": None, "L3-superior": None}}
    reader.save()
    reader.wait_text(".head", "Revision 2")
    assert service.bodies[-1][0] == "/v1/studies/1/grades"
    assert "cannot be read" in reader.text(".lost")
    assert not reader.button("Cannot be read", "[data-region=lumbar] .lost").is_enabled()


def test_the_discs_of_a_rejected_region_are_placed_one_by_one(reader, service):
    reader.open(2)
    lost = reader.text("[data-region=lumbar] .lost")
    assert [level for level in ("T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1") if level in lost] == [
        "T12/L1", "L2/L3", "L4/L5", "L5/S1"]  # fmt: skip
    heights = [reader.place(f"{level}, centre")[1] for level in ("T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5")]
    assert heights == sorted(heights)
    assert "Cannot be read" not in lost, "it has no grades"
    for name in ("L4/L5, centre", "L4/L5, anterior"):
        reader.drag(reader.place(name), 5, 5)
    reader.settled_total()
    assert list(service.bodies[-1][1]["points"]["lumbar"]) == ["L4/L5"]


def test_a_region_that_a_reader_could_not_read_takes_no_points(reader, service):
    study = service.studies[2]
    study.reports[-1] = reports.rejected(reports.scored(0).report, "lumbar", "reader-unreadable")
    reader.open(2)
    assert "Put them right" not in reader.text("[data-region=lumbar]")
    reader.drag(reader.place(CENTRE), 9, 6)
    assert (
        reader.text("#said")
        == "A reader could not read this region. To move its points, say first that it can be read."
    )
    assert "None." in reader.text(".draft")


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_without_any_disc_the_guesses_stand_upright_in_the_picture(driver, turn_deg):
    """Each disc lies below the one above, its anterior point in front, however the file is turned."""
    one = reports.turned(reports.scored(0), turn_deg)
    report = one.report
    for level in ("T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"):
        report = reports.without_disc(report, level)
    report["regions"]["lumbar"]["radiograph"]["facing"] = "right"
    with double.serving(double.Double([double.Study(1, reports.Scored(report, one.pixels, one.window))])) as url:
        reader = Reader(driver, url).open(1)
        places = [reader.place(f"{level}, centre") for level in ("T12/L1", "L1/L2", "L5/S1")]
        assert places[0][1] < places[1][1] < places[2][1]
        assert places[0][0] == pytest.approx(places[2][0], abs=1)
        assert reader.place("L1/L2, anterior")[0] > places[1][0] + 3


def test_a_finger_places_it():
    need_browser()
    one = reports.scored(0)
    study = double.Study(1, reports.Scored(reports.without_disc(one.report, "C4/C5"), one.pixels, one.window))
    with double.serving(double.Double([study])) as url, browsing(768, 1024, touch=True, scale=2) as driver:
        reader = Reader(driver, url).open(1)
        reader.press("Place", "[data-region=cervical] .lost")
        for name in ("C4/C5, centre", "C4/C5, anterior"):
            reader.drag(reader.place(name), 12, 8, kind="touch")
        reader.settled_total()
        assert "both points are placed" in reader.text(".lost")
        assert reader.problems() == []
