"""The review page in Chromium, with a double of the service: one study, its points and grades, and what is sent."""

from __future__ import annotations

import json

import pytest

from helpers import review_double as double
from helpers import review_reports as reports
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
RIGHT, DOWN = "\ue014", "\ue015"
POINT = "C4/C5, anterior point"


@pytest.fixture
def service():
    return double.with_prior()


def test_a_study_is_shown_with_its_points_grades_and_total(reader, service):
    reader.open(2)
    report = service.studies[2].scored.report
    assert reader.total() == str(service.studies[2].total)
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
    study = double.Study(1, reports.turned(reports.scored(0), turn_deg))
    with double.serving(double.Double([study])) as url:
        reader = Reader(driver, url).open(1)
        upright = reports.scored(0).pixels["lumbar"]
        script = """
        const context = document.querySelector('[data-region=lumbar] canvas').getContext('2d');
        return [...document.querySelectorAll('[data-region=lumbar] .mark.point')].map((node) => {
          const { e, f } = node.getCTM();
          const data = context.getImageData(Math.round(e - 0.5), Math.round(f - 0.5), 1, 1).data;
          return data[0];
        });"""
        shown = driver.execute_script(script)
        window, discs = study.scored.window["lumbar"], reports.scored(0).report["regions"]["lumbar"]["discs"]
        for at, disc in enumerate(discs):
            for part, name in enumerate(("centre_px", "anterior_px")):
                x, y = (round(one) for one in disc[name])
                around = upright[y - 3 : y + 4, x - 3 : x + 4].astype(float)
                grey = ((around - window["centre"]) / window["width"] + 0.5).clip(0, 1) * 255
                seen = shown[2 * at + part]
                assert grey.min() - 2 <= seen <= grey.max() + 2, (disc["level"], name)
        before = reader.point("L2/L3, centre point")
        assert before == pytest.approx(study.scored.report["regions"]["lumbar"]["discs"][2]["centre_px"], abs=0.06)
        reader.driver.execute_script("document.querySelectorAll('[data-region=lumbar] .mark.point')[4].focus()")
        reader.keys(RIGHT)
        right = {0: (1, 0), 90: (0, -1), 180: (-1, 0), 270: (0, 1)}[turn_deg]
        moved = reader.point("L2/L3, centre point")
        assert (moved[0] - before[0], moved[1] - before[1]) == pytest.approx(right, abs=0.11)


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
