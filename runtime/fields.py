"""The rules for the fields of documents, which stand in the annotations of dataclasses, and the messages of a fault.

    name: str                                            # text of 1 to 4096 characters, unless `Length` says otherwise
    low: Annotated[float, Within(0.0, 100.0)]            # a number with bounds; likewise for `int`
    passes: Annotated[int, OneOf(1, 2)]                  # one of these values; likewise `Literal[..]` and `bool`
    files: Annotated[Mapping[str, str], Keys("a", "b")]  # an object with these fields; without `Keys`, with any fields
    sizes: tuple[tuple[int, int], ...]                   # arrays, of any length and of two entries
    gpu: str | None                                      # may be null
    over: Annotated[Literal["left", "right"], OPTIONAL] = "left"  # may be left out, but must not be null

A dataclass may have a method `_check_fields(path)`, which raises `ValueError` for values that do not fit each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

__all__ = [
    "CHECKED",
    "INLINE",
    "OPTIONAL",
    "Keys",
    "Length",
    "OneOf",
    "Within",
    "Without",
    "check_choice",
    "check_keys",
    "check_known",
    "dotted",
    "missing",
    "near_name",
    "shown",
]

CHECKED = "checked"  # the mark of a field that is checked in documents of other versions too
INLINE = "inline"  # the mark of a dataclass whose fields stand in the object around it
OPTIONAL = "optional"  # the mark of a field that may be left out; it is not written if it has its default value

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Within:
    """The bounds of a number. `hint` returns the end of the message for a number outside them."""

    low: float = -math.inf
    high: float = math.inf
    hint: Callable[[float], str] = lambda value: ""

    def __str__(self) -> str:
        if (self.low, self.high) == (-math.inf, math.inf):
            return ""
        ends: tuple[Any, Any] = (self.low, self.high)  # an int is shown with all its digits
        low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in ends)
        return f"of at least {low}" if self.high == math.inf else f"in [{low}, {high}]"


@dataclass(frozen=True)
class Length:
    """The least and the greatest number of a text's characters or an array's entries."""

    least: int = 1
    most: float = 4096


class OneOf:
    """The values that a field may have. `1`, `1.0` and `True` are different values."""

    def __init__(self, *values: Any) -> None:
        self.values = values


class Keys:
    """The fields of an object that is read as a mapping: all are needed, or with `least` only that many."""

    def __init__(self, *names: str, least: int | None = None) -> None:
        self.names, self.least = names, len(names) if least is None else least


class Without:
    """Fields of a dataclass that are not in the document, with the values that they take."""

    def __init__(self, **values: Any) -> None:
        self.values = values


def dotted(path: str, name: str) -> str:
    """Return the dotted name of the field `name` in the object `path`, which is empty for the whole document."""
    return f"{path}.{name}" if path else name


def near_name(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean ..?` with the most similar of `names`; empty if none is similar."""
    near = get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""


def check_choice(value: object, choices: Iterable[Any], path: str) -> None:
    """Raise `ValueError` if the value is none of the choices."""
    allowed = tuple(choices)
    if any(value == choice and type(value) is type(choice) for choice in allowed):
        return
    words = [choice for choice in allowed if isinstance(choice, str)]
    near = near_name(value, words) if isinstance(value, str) and len(value) <= _SHOWN else ""
    listed = ", ".join("null" if choice is None else str(choice) for choice in allowed)
    raise ValueError(f"{path}: expected one of {listed}, found {shown(value)}{near}")


def check_keys(members: Mapping[str, Any], names: Iterable[str], path: str) -> None:
    """Raise `ValueError` if one of the fields is missing, or if there is another one."""
    expected = tuple(names)
    others = [name for name in members if name not in expected]
    for name in expected:
        if name not in members:
            raise missing(name, others, path)
    check_known(others, expected, path)


def check_known(others: Iterable[str], names: Iterable[str], path: str) -> None:
    """Raise `ValueError` for the first of the fields that remain when those with `names` have been read."""
    for other in others:
        near = near_name(other, names) or "; remove it or correct it"
        raise ValueError(f"{dotted(path, other)}: no such field is known{near}")


def missing(name: str, others: Iterable[str], path: str) -> ValueError:
    """Return the error for a missing field, which suggests the most similar of the `others` that are there."""
    near = get_close_matches(name, list(others), 1)
    suggestion = f"; is {dotted(path, near[0])} meant to be it?" if near else ""
    return ValueError(f"{dotted(path, name)}: this field is missing{suggestion}")


def shown(value: object) -> str:
    """Return the value as a message shows it: on one line of bounded length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
