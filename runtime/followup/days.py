"""Days of studies, as reports and readers' tables state them."""

from __future__ import annotations

import re
from datetime import date

__all__ = ["day_of", "stated_day"]

_DAY = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")


def day_of(text: str) -> date | None:
    """Return the day of a text YYYYMMDD, None if there is no such day."""
    parts = _DAY.fullmatch(text)
    try:
        return None if parts is None else date(*map(int, parts.groups()))
    except ValueError:
        return None


def stated_day(cell: str) -> str:
    """Return the date in a cell as YYYYMMDD, empty for an empty cell. Raises `ValueError` for no date."""
    plain = cell.replace("-", "")
    if cell and (not re.fullmatch(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}", cell) or day_of(plain) is None):
        raise ValueError(f"{cell!r} is no date; write YYYYMMDD or YYYY-MM-DD")
    return plain
