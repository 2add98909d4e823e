"""Chromium for the tests of the review page, open once for each file of tests."""

from __future__ import annotations

import pytest

from helpers.browser import browsing, need_browser


@pytest.fixture(scope="module")
def driver():
    need_browser()
    with browsing() as driver:
        yield driver
