"""The review page in Chromium: the work list, tokens, a service that fails, tablets, and what all readers can use."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers.browser import browsing, need_browser
from helpers.review_reader import Reader

pytestmark = pytest.mark.slow
POINT = "C4/C5, anterior point"

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


@pytest.fixture
def service():
    return double.Double(double.many(), page_size=20)


def test_a_token_is_asked_for_kept_and_refused(driver):
    service = double.Double(double.many(), {double.READER: "reader", double.CONSOLE: "console"})
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
    service = double.Double(double.many(), page_size=20)
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

    with double.serving(double.Double(double.many())) as url, browsing(1024, 768, touch=True) as driver:
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
    with double.serving(double.Double(double.many(), page_size=20)) as url, browsing(1280, 900, zoom=2) as driver:
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
