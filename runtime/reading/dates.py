"""Dates and times of DICOM headers. An impossible date, such as 19550000 for a year alone, counts as unknown."""

from __future__ import annotations

import re
from datetime import date

__all__ = ["calendar_date", "time_of_day"]

_TIME = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(\.[0-9]{1,6})?)?)?")  # PS3.5 6.2, TM
_MOST = (23, 59, 60)  # 60 is a leap second


def calendar_date(text: str) -> str | None:
    """Return the date as YYYYMMDD, or None; separators are dropped, as in the ACR-NEMA form (PS3.5 6.2, DA)."""
    digits = re.sub(r"[.\-/]", "", text.strip())
    if re.fullmatch(r"[0-9]{8}", digits):
        try:
            date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        except ValueError:
            return None
        return digits
    return None


def time_of_day(text: str) -> str | None:
    """Return the time as HHMMSS.FFFFFF or its first parts, or None if it is invalid (PS3.5 6.2, TM)."""
    digits = text.strip()
    parts = _TIME.fullmatch(digits)
    if parts is None:
        return None
    numbers = [int(part) for part in parts.groups()[:3] if part is not None]
    return digits if all(number <= most for number, most in zip(numbers, _MOST, strict=False)) else None
