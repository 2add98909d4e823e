"""Strict reading of JSON objects: every field is there, of the right type, in range, and none is left over.

Errors are `ValueError` with the field's dotted name first, so that a reader of the message finds the place at once.
A name that nearly fits is named beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["Fields", "near_name"]

_LONGEST = 4096  # characters of a text


def near_name(name: str, known: Iterable[str]) -> str:
    """`; did you mean ..?` with the most similar of the `known` names; empty if none is similar."""
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


class Fields:
    """The fields of one JSON object, each taken once; `done` refuses those that nobody took."""

    def __init__(self, value: object, path: str = "") -> None:
        self.path = path
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{path or 'document'}: expected an object, found {_shown(value)}")
        self._left: dict[str, Any] = dict(value)
        self._asked: dict[str, None] = {}  # the fields that there may be, in the order in which they were asked for

    def name(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def take(self, field: str) -> Any:
        if not self.has(field):
            near = get_close_matches(field, self._left, 1)
            instead = f"; is {self.name(near[0])} meant to be it?" if near else ""
            raise ValueError(f"{self.name(field)}: this field is missing{instead}")
        return self._left.pop(field)

    def has(self, field: str) -> bool:
        """Whether a field that may be left out is there and nobody has taken it yet."""
        self._asked[field] = None
        return field in self._left

    def remaining(self) -> tuple[str, ...]:
        """The fields that nobody has taken yet."""
        return tuple(self._left)

    def object(self, field: str) -> Fields:
        return Fields(self.take(field), self.name(field))

    def objects(self, field: str) -> list[Fields]:
        return [Fields(item, f"{self.name(field)}[{i}]") for i, item in enumerate(self.array(field))]

    def array(self, field: str) -> list[Any]:
        value = self.take(field)
        if not isinstance(value, list):
            raise ValueError(f"{self.name(field)}: expected an array, found {_shown(value)}")
        return value

    def text(self, field: str) -> str:
        value = self.take(field)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{self.name(field)}: expected text that is not empty, found {_shown(value)}")
        if len(value) > _LONGEST:
            raise ValueError(f"{self.name(field)}: expected at most {_LONGEST} characters, found {len(value)}")
        return value

    def choice(self, field: str, choices: Iterable[Any]) -> Any:
        value, allowed = self.take(field), tuple(choices)
        if not any(value == item and type(value) is type(item) for item in allowed):
            near = near_name(value, (item for item in allowed if isinstance(item, str))) if _is_short(value) else ""
            raise ValueError(f"{self.name(field)}: expected one of {_listed(allowed)}, found {_shown(value)}{near}")
        return value

    def integer(self, field: str, low: int, high: int) -> int:
        value = self.take(field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{self.name(field)}: expected a whole number in [{low}, {high}], found {_shown(value)}")
        return value

    def number(self, field: str, low: float, high: float, hint: Callable[[float], str] = lambda value: "") -> float:
        """`hint` gives the end of the message for a number that is out of range."""
        return _number(self.take(field), self.name(field), low, high, hint)

    def numbers(self, field: str, low: float, high: float, count: int | None = None) -> tuple[float, ...]:
        values = self.array(field)
        if count is not None and len(values) != count:
            raise ValueError(f"{self.name(field)}: expected {count} numbers, found {len(values)}")
        return tuple(_number(value, f"{self.name(field)}[{i}]", low, high) for i, value in enumerate(values))

    def done(self) -> None:
        if self._left:
            wrong = next(iter(self._left))
            near = near_name(wrong, self._asked) or "; remove it or correct it"
            raise ValueError(f"{self.name(wrong)}: no such field is known{near}")


def _number(
    value: object, name: str, low: float, high: float, hint: Callable[[float], str] = lambda value: ""
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        end = hint(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], found {_shown(value)}{end}")
    return float(value)


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 60


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)
