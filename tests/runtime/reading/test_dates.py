"""Dates and times are read only if they exist in the calendar and on the clock."""

from __future__ import annotations

import pytest

from spinescore.runtime.reading.dates import calendar_date, time_of_day


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20240229", "20240229"),
        (" 2024.02.29 ", "20240229"),
        ("2024-02-29", "20240229"),
        ("20250229", None),
        ("19550000", None),
        ("00000000", None),
        ("00010101", "00010101"),
        ("20241301", None),
        ("20240101-20241231", None),
        ("2024", None),
        ("\u0662\u0660\u0662\u0664\u0660\u0661\u0660\u0661", None),
        ("20240101\n", "20240101"),
        ("", None),
    ],
)
def test_dates(text, date):
    assert calendar_date(text) == date


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("12", "12"),
        ("1230", "1230"),
        ("235960.999999", "235960.999999"),
        ("240000", None),
        ("250000", None),
        ("126000", None),
        ("120061", None),
        ("1", None),
        ("10:15", None),
        ("123000.1234567", None),
        ("12 30", None),
        ("", None),
    ],
)
def test_times(text, time):
    assert time_of_day(text) == time
