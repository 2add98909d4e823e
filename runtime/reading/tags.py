"""The elements of a header as Python values. No hostile value raises an exception here."""

from __future__ import annotations

import math
import re
from collections.abc import MutableSequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from spinescore.runtime.notices import notice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

__all__ = ["ignored", "is_stated", "items", "number", "raw_element", "text", "value", "whole"]

_MAX_BYTES = 1 << 16  # of an element: pydicom takes microseconds and some 100 bytes for each of its values
_MAX_ITEMS = 16  # of a sequence

# Numbers with commas; in DS only a point is allowed (PS3.5 6.2).
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_ONE_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_GROUPS_AND_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+,[0-9]+")
_GROUPS_AND_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+\.[0-9]+|[+-]?[1-9][0-9]{0,2}(,[0-9]{3}){2,}")


@cache
def _tag(keyword: str) -> BaseTag:
    """Return the tag of a keyword. pydicom would look it up at each access, which takes longer than the access."""
    from pydicom.tag import Tag

    return Tag(keyword)


def value(ds: Dataset, keyword: str, max_bytes: int = _MAX_BYTES) -> Any:
    """Return an element's value; None if it is absent, empty, longer than `max_bytes` or cannot be converted."""
    tag = _tag(keyword)
    try:
        if tag not in ds:
            return None
        raw = ds.get_item(tag)
        if isinstance(raw.value, bytes) and len(raw.value) > max_bytes:
            return None
        converted = ds[tag].value
    except Exception:  # pydicom converts on access, and a bad value can raise anything
        return None
    return None if converted is None or (isinstance(converted, str) and not converted.strip()) else converted


def text(ds: Dataset, keyword: str, index: int = 0) -> str | None:
    """Return one value of an element as stripped text: the first, or the one at `index`."""
    stated = value(ds, keyword)
    if stated is not None and not isinstance(stated, str) and hasattr(stated, "__iter__"):
        stated = next(islice(stated, index, None), None)
    elif index:
        stated = None
    stripped = "" if stated is None else str(stated).strip(" \0")
    return stripped or None


def whole(ds: Dataset, keyword: str) -> str | None:
    """Return all of an element that has one value by the standard, as stripped text.

    A backslash separates values (PS3.5 6.2), so pydicom reads a name or an ID with one in it as several.
    """
    stated = value(ds, keyword)
    if stated is None or isinstance(stated, str) or not isinstance(stated, MutableSequence):
        return text(ds, keyword)
    return "\\".join(str(part) for part in stated).strip(" \0").strip("\\") or None


def number(ds: Dataset, keyword: str, index: int = 0) -> float | None:
    """Return one value of an element as a finite number; a comma counts as decimal if it can mean nothing else."""
    words = text(ds, keyword, index) or "nan"
    try:
        stated = float(words)
    except ValueError:
        stated = float(_with_point(words) or "nan")
    return stated if math.isfinite(stated) else None


def _with_point(words: str) -> str | None:
    """Return a number that is written with commas in the form of PS3.5 6.2; None if it has two meanings or none."""
    if _GROUPS_AND_COMMA.fullmatch(words):  # 1.024,5
        return words.replace(".", "").replace(",", ".")
    if _GROUPS_AND_POINT.fullmatch(words):  # 1,024.5 and 1,024,000
        return words.replace(",", "")
    if _COMMA.fullmatch(words) and not _ONE_GROUP.fullmatch(words):  # 1,024 can be a thousand or one
        return words.replace(",", ".")
    return None


def raw_element(ds: Dataset, keyword: str) -> Any:
    """Return an element as it was read, unconverted if its value was never accessed; None if it is absent."""
    tag = _tag(keyword)
    try:
        return ds.get_item(tag) if tag in ds else None
    except Exception:
        return None


def is_stated(ds: Dataset, keyword: str) -> bool:
    """Return whether an element is present and not empty, even if its value cannot be understood."""
    stated = getattr(raw_element(ds, keyword), "value", None)
    if isinstance(stated, (bytes, bytearray)):
        return bool(bytes(stated).strip(b" \0\\"))
    return stated is not None and bool(str(stated).strip())


def ignored(notes: list[str], keyword: str, sentence: str) -> None:
    """Add the warning that an element which shapes the grey scale was ignored."""
    notes.append(notice("greyscale-ignored", sentence, tag=keyword))


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Return the first items of a sequence; none if it is absent or cannot be read."""
    try:
        return list(value(ds, keyword)[:_MAX_ITEMS])
    except Exception:
        return []
