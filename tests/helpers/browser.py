"""Chromium without a window, driven by selenium: a well-kept client of WebDriver, whose actions are real input events.

Debian's `chromium-driver` has the driver. A test without one of the three skips and says so.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
WAIT_S = 60


def need_browser() -> None:
    pytest.importorskip("selenium")
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver is installed (Debian: chromium, chromium-driver)")


@contextmanager
def browsing(width: int = 1280, height: int = 900, *, touch: bool = False, scale: float = 1, zoom: float = 1):
    """Yield a driver whose page is `width` x `height` pixels; `zoom` is that of the reader, `scale` the screen's."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-gpu"):  # fmt: skip
        options.add_argument(flag)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_page_load_timeout(WAIT_S)
        driver.set_script_timeout(WAIT_S)
        size = {"width": round(width / zoom), "height": round(height / zoom), "deviceScaleFactor": scale * zoom,
                "mobile": touch}  # fmt: skip
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        if touch:
            driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
        yield driver
    finally:
        driver.quit()


def wait_for(driver, condition, what: str, seconds: float = WAIT_S):
    """Return what `condition(driver)` gives as soon as it is true; a test fails with `what` if it never is."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, seconds, 0.05, [StaleElementReferenceException]).until(condition, what)
