"""The review page in Chromium: the work list, its search, and what changes in it by itself."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers import review_reports as reports

pytestmark = pytest.mark.slow


@pytest.fixture
def service():
    return double.Double(double.many(), page_size=20)


def numbers(reader):
    return [int(one.text) for one in reader.all(".worklist tbody th")]


def choose(reader, field, value):
    reader.driver.execute_script("const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
                                 "e.dispatchEvent(new Event('change'))", f"search-{field}", value)  # fmt: skip


def test_the_list_is_searched_and_goes_on(reader, service):
    reader.open()
    reader.wait_text("main", "20 studies shown; there are more.")
    assert numbers(reader) == [40, 39, *range(30, 12, -1)]
    first = reader.text(".worklist tbody tr:first-child")
    for text in (str(service.studies[40].reports[0]["total"]["value"]), "Jan 1, 2026", "delivered", "not yet", "yes"):
        assert text in first
    reader.press("Show more")
    reader.wait_text("main", "32 studies shown.")
    assert reader.focused() == "Open study 12"
    reader.one("a[href='#/studies/5']").click()
    reader.wait_text("main", "Study 5")
    reader.driver.back()
    reader.wait_text("main", "32 studies shown.")
    assert reader.focused() == "Open study 5"
    choose(reader, "state", "parked")
    reader.wait_text("main", "8 studies shown.")
    assert "no-spine" in reader.text(".worklist tbody tr:first-child")
    choose(reader, "since", "2026-11-10")
    choose(reader, "until", "2026-11-20")
    reader.wait_text("main", "3 studies shown.")
    assert numbers(reader) == [17, 13, 9]
    choose(reader, "since", "2027-01-01")
    reader.wait_text("main", "No study fits.")
    reader.press("Show all")
    reader.wait_text("main", "20 studies shown")


def test_the_list_and_the_study_are_live(reader, service):
    reader.open()
    reader.wait_text(".live", "Live")
    reader.wait_text("main", "20 studies shown")
    due = service.studies[28]
    assert "due" in reader.text("tr:has(a[href='#/studies/28'])")
    due.state = "scoring"
    service.say(due)
    reader.wait_text("tr:has(a[href='#/studies/28'])", "scoring")
    service.studies[41] = double.Study(41, None, state="collecting")
    service.say(service.studies[41])
    reader.wait(lambda: numbers(reader)[0] == 41, "the new study is first")
    service.studies[41].state = "delivered"
    reader.open(39)
    study = service.studies[39]
    study.add(reports.corrected(study.reports[0], {}, {"L1-inferior": 3}), "CD", "corrected", None)
    service.say(study)
    reader.wait_text(".head", "Revision 2")
    assert reader.label("L1-inferior").startswith("L1-inferior: grade 3")


def test_a_list_that_is_shown_again_is_where_it_was(reader, service):
    """The stream ends when the page is hidden, and what happened meanwhile is read when it opens again."""
    reader.driver.execute_cdp_cmd("Page.enable", {})
    script = {"source": "Object.defineProperty(document, 'hidden', { get: () => window.isHidden ?? true });"}
    added = reader.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        reader.open()
        reader.wait_text("main", "20 studies shown")
        assert service.listeners == 0, "a page that was opened in the background holds no connection"
    finally:
        reader.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    reader.press("Show more")
    reader.wait_text("main", "32 studies shown.")
    reader.one("a[href='#/studies/5']").send_keys("")
    service.studies[5].state = "delivering"
    reader.driver.execute_script(
        "window.isHidden = false; document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
    )
    reader.wait_text("tr:has(a[href='#/studies/5'])", "delivering")
    assert len(numbers(reader)) == 32
    assert reader.focused() == "Open study 5"


def test_studies_come_into_a_searched_list_in_their_order_and_many_changes_are_read_at_once(reader, service):
    reader.open()
    reader.wait_text(".live", "Live")
    choose(reader, "state", "parked")
    reader.wait_text("main", "8 studies shown.")
    service.studies[18].state = "parked"
    service.say(service.studies[18])
    reader.wait(lambda: numbers(reader) == [29, 25, 21, 18, 17, 13, 9, 5, 1], "the study in its place")
    before = len(service.asked)
    for number in range(1, 31):
        service.studies[number].state = "parked"
    with service.changed:
        service.events += [{"study": number, "state": "parked", "revision": 1} for number in range(1, 31)]
        service.changed.notify_all()
    reader.wait_text("main", "30 studies shown.")
    assert len(service.asked) - before < 6


def test_days_are_those_of_the_reader(reader, service):
    reader.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Pacific/Auckland"})
    try:
        service.studies[40].received_at = "2026-11-30T20:00:00+00:00"  # it is 1 December in Auckland
        reader.open()
        reader.wait_text("main", "20 studies shown")
        for day, shown in (("2026-12-01", [40]), ("2026-11-30", [])):
            choose(reader, "since", day)
            choose(reader, "until", day)
            reader.wait(lambda shown=shown: numbers(reader) == shown, day)
    finally:
        reader.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_a_stream_without_a_sign_of_life_is_not_called_live(reader, service):
    """A network that is gone does not close a connection."""
    reader.open()
    states = reader.driver.execute_async_script("""
    const [done, ending, states] = [arguments[0], new AbortController(), []];
    import("/review/service.js").then(({ listen }) => listen(() => {}, (problem) => {
      states.push(problem && problem.detail);
      if (states.length === 2) {
        ending.abort();
        done(states);
      }
    }, ending.signal, 200));""")  # fmt: skip
    assert states == [None, "the service does not answer"]
