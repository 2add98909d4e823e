"""Strict reading of JSON objects: every field is there, of the right type, in range, and none is left over.

Errors are `ValueError` with the field's dotted name first, so that a reader of the message finds the place at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["Fields"]


class Fields:
    """The fields of one JSON object, each taken once; `done` refuses those that nobody took."""

    def __init__(self, value: object, path: str = "") -> None:
        self.path = path
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{path or 'document'}: expected an object, found {_shown(value)}")
        self._left: dict[str, Any] = dict(value)

    def name(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def take(self, field: str) -> Any:
        if field not in self._left:
            raise ValueError(f"{self.name(field)}: this field is missing")
        return self._left.pop(field)

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
        return value

    def choice(self, field: str, choices: Iterable[Any]) -> Any:
        value, allowed = self.take(field), tuple(choices)
        if not any(value == item and type(value) is type(item) for item in allowed):
            raise ValueError(f"{self.name(field)}: expected one of {_listed(allowed)}, found {_shown(value)}")
        return value

    def integer(self, field: str, low: int, high: int) -> int:
        value = self.take(field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{self.name(field)}: expected a whole number in [{low}, {high}], found {_shown(value)}")
        return value

    def number(self, field: str, low: float, high: float) -> float:
        return _number(self.take(field), self.name(field), low, high)

    def numbers(self, field: str, low: float, high: float, count: int | None = None) -> tuple[float, ...]:
        values = self.array(field)
        if count is not None and len(values) != count:
            raise ValueError(f"{self.name(field)}: expected {count} numbers, found {len(values)}")
        return tuple(_number(value, f"{self.name(field)}[{i}]", low, high) for i, value in enumerate(values))

    def done(self) -> None:
        if self._left:
            raise ValueError(f"{self.name(next(iter(self._left)))}: no such field is known; remove it or correct it")


def _number(value: object, name: str, low: float, high: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and low <= value <= high)
    ):
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], found {_shown(value)}")
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)
