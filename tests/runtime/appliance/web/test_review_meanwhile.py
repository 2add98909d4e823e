"""The review page in Chromium: changes of a study and of the service while a reader is at work."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from helpers import review_double as double
from helpers import review_reports as reports
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
POINT = "C4/C5, anterior point"
SITE = "L1-inferior"
CONTROL, ESCAPE, ENTER = "\ue009", "\ue00c", "\ue007"


@pytest.fixture
def service():
    return double.Double([double.Study(2, reports.scored(1), prior=1), double.Study(1, reports.scored(0))])


@contextmanager
def held(service, method, end):
    """Hold answers back until the end of the block."""
    hold = service.holds[method, end] = threading.Event()
    try:
        yield
    finally:
        del service.holds[method, end]
        hold.set()


def choose(reader, site, grade):
    reader.driver.execute_script(
        "document.querySelector(`input[name='grade-${arguments[0]}'][aria-label^='${arguments[1]},']`).click()",
        site, grade)  # fmt: skip


def other_grade(service, site=SITE, number=2):
    regions = service.studies[number].reports[-1]["regions"].values()
    corners = (corner for one in regions for disc in one["discs"] for corner in disc["corners"])
    return (next(one["grade"] for one in corners if one["site"] == site) + 1) % 4


def sign_in(reader, token):
    field = reader.one("#token")
    field.clear()
    field.send_keys(token, ENTER)


def sent(service, kind):
    return [body for path, body in service.bodies if path.endswith(f"/{kind}")]


def test_a_study_that_is_scored_while_it_is_open_gets_its_radiographs(reader, service):
    study = service.studies[3] = double.Study(3, None, state="due")
    reader.driver.get(f"{reader.url}/review#/studies/3")
    reader.wait_text("main", "There is no result of this study yet")
    study.scored, study.state = reports.scored(0), "delivered"
    study.add(study.scored.report, "spinescore", None, None)
    service.say(study)
    reader.wait_drawn()
    assert len(reader.labels()) == 48
    assert not reader.all(".absent")


def test_another_radiograph_takes_the_place_of_the_picture_and_changes_on_the_first_are_left_out(reader, service):
    reader.open(2)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    study = service.studies[2]
    study.scored = reports.scored(0)
    study.add(study.scored.report, "spinescore", None, None)
    service.say(study)
    reader.wait_text("#alerts", "The study has changed meanwhile")
    reader.press("Load the newest revision with my changes")
    reader.wait_text("#alerts", "were left out. C4/C5.")
    asked = [path for _, path, _ in service.asked]
    assert asked.count("/v1/studies/2/views/cervical") == 2
    reader.wait(lambda: not reader.all(".surface .waiting"), "the new radiographs")
    assert len(reader.all(".surface canvas")) == 2
    assert "None." in reader.text(".draft")


def test_a_change_while_a_newer_revision_loads_is_kept(reader, service):
    service.allowed = (409,)
    reader.open(2)
    study = service.studies[2]
    with held(service, "GET", "/report.json"):
        study.add(reports.corrected(study.reports[0], {}, {"S1-superior": 3}), "CD", "corrected", None)
        service.say(study)
        reader.wait(lambda: ("GET", study.url(2)) in [one[:2] for one in service.asked], "the newer report")
        choose(reader, SITE, other_grade(service))
    reader.wait_text("#alerts", "Revision 2 is the newest one")  # the preview's conflict
    assert f"{SITE}:" in reader.text(".changes")
    reader.press("Load the newest revision with my changes")
    reader.wait(lambda: reader.label("S1-superior").startswith("S1-superior: grade 3"), "the newest revision")
    assert f"{SITE}:" in reader.text(".changes")


def test_nothing_can_be_changed_while_a_correction_is_sent(reader, service):
    """A change at that time would miss the correction, and the next revision would drop it."""
    reader.open(2)
    choose(reader, SITE, other_grade(service))
    reader.settled_total()
    reader.one("#reader").send_keys("AB")
    with held(service, "POST", "/grades"):
        reader.press("Save correction")
        reader.wait_text(".lock", "is being sent")
        assert not reader.one("input[name='grade-C3-superior']").is_enabled()
        assert not reader.button("Save correction").is_enabled()
    reader.wait_text(".head", "Revision 2")
    assert len(sent(service, "grades")) == 1


def test_a_correction_that_is_saved_at_once_asks_for_no_total_and_is_no_conflict(reader, service):
    reader.open(2)
    reader.one("#reader").send_keys("AB")
    choose(reader, SITE, other_grade(service))
    reader.driver.execute_script("arguments[0].click()", reader.button("Save correction"))
    reader.wait_text(".head", "Revision 2")
    assert reader.text("#alerts") == ""
    assert sent(service, "preview") == []


def test_a_double_click_accepts_once(reader, service):
    reader.open(2)
    reader.one("#reader").send_keys("AB")
    reader.press("Accept as it is")
    reader.wait_text(".head", "accepted")
    reader.wait(lambda: not reader.button("Accept as it is").is_enabled(), "it cannot be accepted again")
    assert len(sent(service, "accept")) == 1
    assert "You have accepted this revision" in reader.text("#finish-hint")


def test_a_token_that_ends_is_asked_for_above_the_changes(driver):
    service = double.Double([double.Study(2, reports.scored(1))], {double.READER: "reader"})
    with double.serving(service) as url:
        reader = Reader(driver, url).open()
        reader.wait_text("main", "Sign in")
        sign_in(reader, "a\u2013token")
        reader.wait_text("#token-problem", "A token has letters, digits")
        sign_in(reader, double.READER)
        reader.wait_text(".worklist", "delivered")
        reader.open(2)
        reader.one("#reader").send_keys("AB")
        choose(reader, SITE, other_grade(service))
        reader.settled_total()
        service.tokens = {"another-token": "reader"}
        reader.press("Save correction")
        reader.wait_text("dialog", "Sign in again")
        sign_in(reader, "wrong")
        reader.wait_text("dialog #token-problem", "no token that this service knows")
        sign_in(reader, "another-token")
        reader.wait(lambda: not reader.all("dialog"), "the reader is signed in")
        assert f"{SITE}:" in reader.text(".changes")
        reader.wait_text("#live", "Live")
        reader.press("Save correction")
        reader.wait_text(".head", "Revision 2")
        reader.press("Sign out")
        reader.wait_text("main", "Sign in")
        sign_in(reader, "another-token")
        reader.wait_drawn()
        assert reader.one("#reader").get_attribute("value") == "", "the next reader has another name"
    driver.get("about:blank")
    driver.get_log("browser")


def test_a_decision_that_fails_after_the_study_was_left_names_it(reader, service):
    service.allowed = (503,)
    full = {"code": "no-space", "detail": "the disk is full", "next_step": "free space"}
    reader.open(2)
    reader.one("#reader").send_keys("AB")
    service.faults["POST", "/accept"] = (503, full)
    with held(service, "POST", "/accept"):
        reader.press("Accept as it is")
        reader.wait_text(".lock", "is being sent")
        reader.one("#to-list").click()
        reader.wait_text("main", "2 studies shown")
    reader.wait_text("#alerts", "Your decision on study 2: it was not saved. The disk is full.")
    reader.press("Open study 2")
    reader.wait_drawn()


def test_a_comment_is_not_lost_without_a_question(reader):
    reader.open(2)
    reader.one("#comment").send_keys("a bridge?")
    reader.one("#to-list").click()
    reader.alert().accept()
    reader.wait_text("main", "Work list")


def test_the_page_before_ends_the_question_which_region_cannot_be_read(reader):
    reader.open()
    reader.wait_text("main", "2 studies shown")
    reader.one("a[href='#/studies/2']").click()
    reader.wait_drawn()
    reader.press("Cannot be read…")
    assert reader.all("dialog")
    reader.driver.back()
    reader.wait_text("main", "Work list")
    assert not reader.all("dialog")


def test_each_radiograph_that_fails_has_its_own_button(reader, service):
    service.allowed = (409,)
    for region in ("cervical", "lumbar"):
        service.faults["GET", f"/views/{region}"] = (409, {"code": "object-missing", "detail": "it was removed"})
    reader.driver.get(f"{reader.url}/review#/studies/2")
    reader.wait(lambda: len(reader.all(".surface .refused button")) == 2, "a button for each")
    service.faults.clear()
    for region in ("cervical", "lumbar"):
        reader.press("Load it again", f"[data-region={region}]")
    reader.wait_drawn()


def test_a_pointer_that_the_browser_takes_away_leaves_its_point_where_it_was(reader):
    reader.open(2)
    x, y = reader.place(POINT)
    events = [["pointerdown", x, y], ["pointermove", x + 10, y], ["pointermove", x + 20, y], ["pointercancel", 0, 0]]
    reader.driver.execute_script("""
    const surface = document.querySelector('[data-region=cervical] .surface');
    surface.setPointerCapture = () => {};
    for (const [kind, clientX, clientY] of arguments[0]) {
      surface.dispatchEvent(new PointerEvent(kind, { clientX, clientY, pointerId: 9, pointerType: 'pen', button: 0,
        bubbles: true, cancelable: true }));
    }""", events)  # fmt: skip
    reader.wait(lambda: reader.place(POINT) == pytest.approx((x + 20, y), abs=1), "the point at its last place")
    reader.settled_total()


def test_keys_of_the_browser_set_no_grade_and_taking_back_keeps_the_focus(reader, service):
    reader.open(2)
    reader.drag(reader.place(SITE), 0, 0)
    reader.wait(lambda: reader.all(".chooser"), "the grades")
    reader.chord(CONTROL, str(other_grade(service)))
    assert "None." in reader.text(".draft")
    reader.keys(ESCAPE)
    for site in (SITE, "C3-superior"):
        choose(reader, site, other_grade(service, site))
    reader.settled_total()
    for focused in ("Take back: L1-inferior", "Undo"):
        reader.driver.execute_script("document.querySelector('.changes button').focus()")
        reader.keys(ENTER)
        assert reader.focused() == focused


def test_the_prior_study_that_is_shown_and_hidden_quickly_is_there_once(reader, service):
    reader.open(2)
    reader.wait_text(".prior", "corners differ")
    with held(service, "GET", "/v1/studies/1"):
        for _ in range(3):
            reader.driver.execute_script("document.querySelector('.toggle input').click()")
    reader.wait(lambda: len(reader.all(".of-prior .mark")) == 48, "the prior marks")
    assert len(reader.all(".of-prior canvas")) == 2


def test_text_of_others_is_text(reader, service):
    text = "<img src=x onerror=\"document.title='injected'\"><b id=injected>&amp;"
    study = service.studies[2]
    study.reports[0] = reports.rejected(study.reports[0], "lumbar")
    study.reports[0]["regions"]["lumbar"]["reject"] |= {"code": text, "message": text}
    study.reports[0]["bundle"] = {**study.reports[0]["bundle"], "intended_use": text}
    study.reports[0]["findings"] = [{"code": text}]
    study.code, study.state, study.reviewed, study.study_date = text, "parked", text, text
    study.revisions[0] |= {"by": text, "verdict": text, "comment": text, "reader": "אבג"}
    reader.open(2)
    assert reader.text(".revisions").count(text) == 3
    for place in (".notice", ".head", ".refusal"):
        assert text in reader.text(place), place
    reader.one("#to-list").click()
    reader.wait_text(".worklist", text)
    assert not reader.all("#injected, main img")


def test_studies_that_were_left_are_forgotten(reader, service):
    """Elements and listeners of studies that were closed do not stay in memory."""

    def counts():
        reader.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        found = reader.driver.execute_cdp_cmd("Memory.getDOMCounters", {})
        return found["nodes"], found["jsEventListeners"]

    def visit():
        for number in (2, 1):
            reader.driver.execute_script("location.hash = arguments[0]", f"#/studies/{number}")
            reader.wait(lambda number=number: reader.text("#study-title") == f"Study {number}", "the study")
            reader.wait_drawn()

    reader.open(2)
    visit()
    nodes, listeners = counts()
    for _ in range(3):
        visit()
    after = counts()
    assert after[0] < nodes * 1.3
    assert after[1] < listeners * 1.3
