"""Warnings of reports: sentences that also have a code, a region, a source and values as fields.

Code that warns calls `notice(..)` and adds the result to a list of warnings, because a `Notice` is also text. A report
has the sentences in `warnings`, and sentences with fields in `notices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spinescore.runtime.codes import CODES
from spinescore.runtime.study import Finding, Region

__all__ = ["Notice", "as_notice", "findings_of", "notice"]

UNCODED = "other"  # the code of a plain sentence that a program added


class Notice(str):
    """The sentence of a warning, usable as any text, with fields.

    `code` is one of `codes.CODES`; `values` are the numbers and names in the sentence, by the names in `Code.values`.
    Operations on text, such as slices, give plain text without fields; use `saying` to keep them.
    """

    code: str
    region: Region | None
    source: str | None
    values: Mapping[str, Any]

    def __new__(
        cls,
        text: str,
        code: str = UNCODED,
        region: Region | None = None,
        source: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Notice:
        self = super().__new__(cls, text)
        self.code, self.region, self.source, self.values = code, region, source or None, values or {}
        return self

    def saying(self, text: str) -> Notice:
        """Return this warning with another sentence."""
        return Notice(text, self.code, self.region, self.source, self.values)

    def at(self, region: Region | None = None, source: str | None = None) -> Notice:
        """Return this warning with a region and a source, if it has none of its own."""
        return Notice(str(self), self.code, self.region or region, self.source or source, self.values)

    def renamed(self, rename: Callable[[str], str], source: str | None) -> Notice:
        """Return this warning for another source, with `rename` applied to every text in it."""
        values = {name: _renamed(value, rename) for name, value in self.values.items()}
        return Notice(rename(str(self)), self.code, self.region, source, values)


def notice(code: str, text: str, region: Region | None = None, source: str | None = None, **values: Any) -> Notice:
    """Return a warning with a code. Values are text, numbers, None or lists of these.

    Raises `KeyError` if no warning has the code.
    """
    if CODES[code].severity != "warning":
        raise KeyError(f"{code} is not the code of a warning")
    return Notice(text, code, region, source, values)


def as_notice(warning: str, code: str = UNCODED) -> Notice:
    """Return a warning with its fields; plain text gets the given code."""
    return warning if isinstance(warning, Notice) else Notice(warning, code)


def findings_of(warnings: Iterable[str]) -> tuple[Finding, ...]:
    """Return the warnings as findings, in their order, without duplicates."""
    coded = (as_notice(warning) for warning in warnings)
    return tuple(
        dict.fromkeys(Finding(one.code, "warning", str(one), one.region, one.source, one.values) for one in coded)
    )


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, rename) for one in value]
    return rename(value) if isinstance(value, str) else value
