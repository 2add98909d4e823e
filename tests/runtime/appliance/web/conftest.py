"""A reader in Chromium, for the tests of the review page; the browser opens once for each file of tests."""

from __future__ import annotations

import pytest

from helpers import review_double as double
from helpers.browser import browsing, need_browser
from helpers.review_reader import Reader


@pytest.fixture(scope="module")
def driver():
    need_browser()
    with browsing() as driver:
        yield driver


@pytest.fixture
def reader(driver, service):
    """A reader of the studies of the file's own fixture `service`."""
    with double.serving(service) as url:
        reader = Reader(driver, url)
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get_log("performance")
        yield reader
        assert reader.problems(getattr(service, "allowed", ())) == []
