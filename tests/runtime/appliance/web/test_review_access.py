"""The review page in Chromium: the work list, tokens, a service that fails, tablets, and what all readers can use."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers.browser import browsing, need_browser
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
POINT = "C4/C5, anterior point"
STATES = ("due", "parked", "delivered", "scoring")

# Everything that can have the focus has a name, and none has a tabindex above 0, which would change the order.
NAMELESS = """
const referred = (e) => (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id));
const named = (e) => (e.getAttribute("aria-label") || referred(e).map((one) => one?.textContent).join("")
  || e.labels?.[0]?.textContent || e.textContent || "").trim();
return [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex], [role]")]
  .filter((e) => e.checkVisibility() && e.getAttribute("aria-hidden") !== "true" && e.getAttribute("role") !== "status"
    && e.getAttribute("role") !== "alert" && e.id !== "main")
  .filter((e) => !named(e) || e.tabIndex > 0).map((e) => e.outerHTML.slice(0, 200));
"""
# The contrast of each visible text with the nearest ground behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("svg, .unseen, option, script")) continue;
  const [high, low] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
  found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data.trim().slice(0, 60)]);
}
return found;
"""
# The sides of what can be pressed outside running text, but for marks, whose grades and points the table has, too.
TARGETS = """
return [...document.querySelectorAll("button, select, input:not([type=radio], [type=checkbox]), summary,"
  + ".choices label, .choice label, .toggle, .worklist a, #to-list, .files a")].filter((e) => e.checkVisibility())
  .map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 99)]).map(([box, html]) => [box.width, box.height, html])
  .filter(([width, height]) => width < 43.5 || height < 43.5);
"""
# The name of the element that has the focus, and whether an outline or a mark's ring shows it; None after the last one.
FOCUS = """
const e = document.activeElement;
if (e === document.body) return null;
const parts = [e, e.closest("label"), e.nextElementSibling].filter(Boolean);
const ring = e.querySelector(":scope > .ring");
return [e.getAttribute("aria-label") || e.textContent || e.labels?.[0].textContent,
  parts.some((one) => getComputedStyle(one).outlineStyle !== "none"), ring && getComputedStyle(ring).stroke !== "none"];
"""
WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def many():
    """A scored study, and 30 that wait, were parked or have no files any more."""
    rows = [double.Study(n, None, state=STATES[n % 4], code="no-spine" if n % 4 == 1 else None,
                         received_at=f"2026-11-{n % 28 + 1:02}T08:00:00+00:00") for n in range(1, 31)]  # fmt: skip
    return [double.Study(40, double.scored(1), prior=39), double.Study(39, double.scored(0)), *rows]


@pytest.fixture
def service():
    return double.Double(many(), page_size=20)


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
    study.add(double.corrected(study.reports[0], {}, {"L1-inferior": 3}), "CD", "corrected", None)
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


def test_a_token_is_asked_for_kept_and_refused(driver):
    service = double.Double(many(), {double.READER: "reader", double.CONSOLE: "console"})
    with double.serving(service) as url:
        reader = Reader(driver, url).open()
        for token, text in (
            ("wrong", "no token that this service knows"),
            (double.CONSOLE, "The role console may not"),
        ):
            reader.wait_text("main", "Sign in")
            assert reader.focused() == "Token"
            assert reader.one("#token").get_attribute("type") == "password"
            reader.keys(*token, "\ue007")
            reader.wait_text("#token-problem", text)
        reader.keys(*double.READER, "\ue007")
        reader.wait_text("main", "32 studies shown.")
        assert driver.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
        reader.open(40)
        link = reader.one(".files a")
        assert link.get_attribute("download") == "study-40-report.html"
        driver.refresh()
        reader.wait_drawn()
        reader.press("Sign out")
        reader.wait_text("main", "Sign in")
        assert driver.execute_script("return sessionStorage.getItem('spinescore-token')") is None
    assert not [path for _, path, _ in service.asked if double.READER in path]
    driver.get("about:blank")
    driver.get_log("browser")


def test_the_service_is_gone_in_the_middle(reader, service):
    service.allowed = (0,)
    reader.open(40)
    reader.drag(reader.place(POINT), 15, 0)
    reader.settled_total()
    service.stop()
    reader.drag(reader.place(POINT), 5, 0)
    reader.wait_text(".total", "The service does not answer")
    reader.wait_text(".live", "Not live")
    reader.one("#reader").send_keys("AB")
    reader.press("Save correction")
    reader.wait_text("#alerts", "It is not known whether it was saved; your changes are still here. The service")
    assert "moved" in reader.text(".changes")
    reader.press("Close this message")
    assert reader.text("#alerts") == ""


def test_a_radiograph_that_cannot_be_had_is_told(reader, service):
    service.allowed = (409,)
    problem = {"code": "view-removed", "detail": "the radiograph was removed", "next_step": "send the study again"}
    service.faults["GET", "/views/lumbar"] = (409, problem)
    reader.driver.get(f"{reader.url}/review#/studies/40")
    text = "The radiograph was not loaded. The radiograph was removed. Send the study again."
    reader.wait_text("[data-region=lumbar]", text)
    service.faults.clear()
    reader.press("Load it again")
    reader.wait_drawn()


def test_a_missing_name_is_asked_for(reader, service):
    service.allowed = (400,)
    text = "reader: this field is missing; give your name or initials"
    service.faults["POST", "/accept"] = (400, {"code": "http-request", "detail": text, "next_step": "correct it"})
    reader.open(40)
    reader.press("Accept as it is")
    reader.wait_text("#finish-hint", "Write your name or initials")
    assert "Reader" in reader.focused()
    assert reader.one("#reader").get_attribute("aria-invalid") == "true"


def test_a_study_without_a_result_says_so(reader):
    reader.driver.get(f"{reader.url}/review#/studies/28")
    reader.wait_text("main", "There is no result of this study yet")
    reader.driver.get(f"{reader.url}/review#/studies/29")
    reader.wait_text("main", "This study has no result")


@pytest.mark.parametrize("study", [None, 40])
def test_controls_have_names_and_text_has_contrast(reader, service, study):
    service.allowed = ()
    reader.open(study)
    reader.wait_text("main", "20 studies" if study is None else "corners differ")
    if study:
        reader.drag(reader.place(POINT), 12, 0)
        reader.settled_total()
        reader.one("summary").click()
    assert reader.driver.execute_script(NAMELESS) == []
    contrasts = reader.driver.execute_script(CONTRASTS)
    assert len(contrasts) > 60
    assert [one for one in contrasts if one[0] < 4.5] == []
    assert reader.driver.execute_script("return document.documentElement.lang + document.title") >= "en"
    order = reader.driver.execute_script("return [...document.querySelectorAll('h1, h2')].map((e) => e.tagName)")
    assert order[0] == "H1"
    assert order.count("H1") == 1


def test_the_focus_is_seen_wherever_it_is(reader):
    reader.open(40)
    reader.keys("\ue004")
    seen = set()
    while (state := reader.driver.execute_script(FOCUS)) and len(seen) < 100:
        name, is_outlined, is_ringed = state
        assert is_outlined or is_ringed, name
        seen.add(name)
        reader.keys("\ue004")
    assert len(seen) >= 30


@pytest.mark.parametrize(("width", "height"), [(768, 1024), (1024, 768)])
def test_a_tablet_is_used_with_fingers(width, height):
    need_browser()
    service = double.Double(many(), page_size=20)
    with double.serving(service) as url, browsing(width, height, touch=True, scale=2) as driver:
        reader = Reader(driver, url).open()
        reader.wait_text("main", "20 studies shown")
        assert driver.execute_script(WIDE) <= 0
        assert driver.execute_script(TARGETS) == []
        reader.open(40)
        assert driver.execute_script(WIDE) <= 0
        reader.drag(reader.place(POINT), 14, 6, kind="touch")
        reader.settled_total()
        assert "moved" in reader.text(".changes")
        assert driver.execute_script(TARGETS) == []
        driver.execute_script(
            "document.querySelector('[data-region=lumbar] .surface').scrollIntoView({block: 'center'})"
        )
        reader.drag(reader.place("L5-superior"), 0, 0, kind="touch")
        reader.wait(lambda: reader.all(".chooser"), "the grades")
        assert driver.execute_script(TARGETS) == []
        reader.one(".chooser button:nth-of-type(4)").click()
        reader.settled_total()
        assert "L5-superior" in reader.text(".changes")
        assert driver.execute_script("return scrollX") == 0
        assert reader.problems() == []


def test_two_fingers_zoom():
    need_browser()
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    with double.serving(double.Double(many())) as url, browsing(1024, 768, touch=True) as driver:
        reader = Reader(driver, url).open(40)

        def zoom():
            return float(reader.text("[data-region=cervical] .reading").split(" %")[0])

        before = zoom()
        box = reader.one("[data-region=cervical] .surface").rect
        x, y = box["x"] + box["width"] / 2, box["y"] + 120
        actions = ActionBuilder(driver, duration=30)
        actions.devices.clear()
        for name, side in (("one", -1), ("two", 1)):
            finger = PointerInput("touch", name)
            actions.devices.append(finger)
            finger.create_pointer_move(30, round(x + 30 * side), round(y))
            finger.create_pointer_down(button=0)
            finger.create_pointer_move(30, round(x + 60 * side), round(y))
            finger.create_pointer_move(30, round(x + 90 * side), round(y))
            finger.create_pointer_up(0)
        actions.perform()
        reader.wait(lambda: zoom() / before == pytest.approx(3, rel=0.2), "three times as large")
        assert "None." in reader.text(".draft")


def test_at_200_percent_nothing_is_lost_and_motion_is_not_needed():
    need_browser()
    with double.serving(double.Double(many(), page_size=20)) as url, browsing(1280, 900, zoom=2) as driver:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                               {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})  # fmt: skip
        reader = Reader(driver, url).open()
        reader.wait_text("main", "20 studies shown")
        assert driver.execute_script(WIDE) <= 0
        reader.open(40)
        assert driver.execute_script(WIDE) <= 0
        moving = (
            "return [...document.querySelectorAll('*')].some((e) => getComputedStyle(e).transitionDuration !== '0s')"
        )
        assert not driver.execute_script(moving)
        for selector in (".total .value", "#reader", ".corners", ".revisions", "[data-region=lumbar] canvas"):
            assert reader.one(selector).is_displayed()
