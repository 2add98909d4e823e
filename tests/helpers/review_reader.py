"""A reader at the review page: what it shows, and real input events on it."""

from __future__ import annotations

import json

from helpers.browser import wait_for

# The middle of a mark on the screen, by the beginning of its name.
_PLACE = """
const name = arguments[0];
const node = [...document.querySelectorAll(".mark")].find((one) => one.getAttribute("aria-label").startsWith(name));
const { e, f } = node.getCTM();
const box = node.ownerSVGElement.getBoundingClientRect();
return [box.left + e, box.top + f];
"""
_DRAWN = "return document.querySelector('.study')?.dataset.drawn === 'yes'"


class Reader:
    def __init__(self, driver, url) -> None:
        self.driver, self.url = driver, url

    def open(self, study: int | None = None) -> Reader:
        self.driver.get(f"{self.url}/review" + ("" if study is None else f"#/studies/{study}"))
        if study is not None:
            self.wait_drawn()
        return self

    def wait_drawn(self) -> None:
        self.wait(lambda: self.driver.execute_script(_DRAWN), "both radiographs are drawn")

    def wait(self, condition, what: str):
        return wait_for(self.driver, lambda _: condition(), what)

    def wait_text(self, selector: str, text: str) -> None:
        self.wait(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def all(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """The text of all elements with single spaces; it is empty if there is no element."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText).join(' ')"
        return " ".join(self.driver.execute_script(script, selector).split())

    def button(self, text: str, inside: str = "body"):
        xpath = f".//button[normalize-space()='{text}']"
        return self.one(inside).find_element("xpath", xpath)

    def press(self, text: str, inside: str = "body") -> None:
        self.button(text, inside).click()

    def alert(self):
        """The question that the browser asks, which comes a moment after its cause."""
        from selenium.webdriver.support.expected_conditions import alert_is_present

        return wait_for(self.driver, alert_is_present(), "the browser's question")

    def keys(self, *keys: str) -> None:
        """Press keys at the element that has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver, duration=0)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def chord(self, modifier: str, key: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver, duration=0).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def place(self, mark: str) -> tuple[float, float]:
        x, y = self.driver.execute_script(_PLACE, mark)
        return x, y

    def label(self, mark: str) -> str:
        """The whole name of a mark, by its beginning."""
        return next(name for name in self.labels() if name.startswith(mark))

    def point(self, mark: str) -> tuple[float, float]:
        """The place of a point in pixels of the file, as the beginning of its name, or the whole of it, says."""
        x, y = self.label(mark).split(", x ")[1].split(" pixels")[0].split(", y ")
        return float(x), float(y)

    def save(self, name: str = "AB") -> None:
        field = self.one("#reader")
        field.clear()
        field.send_keys(name)
        self.press("Save correction")

    def labels(self) -> list[str]:
        return self.driver.execute_script("return [...document.querySelectorAll('.region .mark')].map((one) => "
                                          "one.getAttribute('aria-label'))")  # fmt: skip

    def focused(self) -> str:
        """The name of the element with the focus."""
        return self.driver.execute_script("const e = document.activeElement; return e.getAttribute('aria-label') || "
                                          "e.labels?.[0]?.textContent || e.textContent")  # fmt: skip

    def drag(self, start, right: float, down: float, *, kind: str = "mouse", steps: int = 4, button: int = 0) -> None:
        """Press at a place, move, and let go; without a move it is a click or a tap."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=0)
        pointer = actions.pointer_action
        pointer.move_to_location(round(start[0]), round(start[1]))
        pointer.pointer_down(button)
        for step in range(1, steps + 1) if right or down else ():
            pointer.move_to_location(round(start[0] + right * step / steps), round(start[1] + down * step / steps))
        pointer.pointer_up(button)
        actions.perform()

    def total(self) -> str:
        """The total as it is shown, with that before it if there is a draft: `21`, or `21 becomes → 23`."""
        return " ".join(self.text(".total .value").replace("of 72", "").split())

    def settled_total(self) -> str:
        """The total when it is no longer being computed."""
        self.wait(lambda: self.one(".total").get_attribute("aria-busy") == "false", "the total is computed")
        return self.total()

    def problems(self, allowed: tuple[int, ...] = ()) -> list[str]:
        """Errors of the console but for answers with a status in `allowed`, and requests to another host."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        found = [one for one in found if not any(f"status of {status}" in one for status in allowed)]
        if 0 in allowed:
            found = [one for one in found if "net::ERR_" not in one]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            url = message["params"].get("request", {}).get("url", "")
            if message["method"] == "Network.requestWillBeSent" and not url.startswith((self.url, "blob:", "data:")):
                found.append(f"a request to {url}")
        return found
