"""Warnings of reports: each is a sentence that also has a code, a region, a source and values as fields.

What warns makes a `Notice` with `notice(..)` and passes it on as the text that it is, in any list of warnings. A report
has the sentences in `warnings`, and all of each in `notices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spinescore.runtime.codes import CODES
from spinescore.runtime.study import Finding, Region

__all__ = ["Notice", "as_notice", "findings_of", "notice"]

UNCODED = "other"  # the code of a sentence that a caller of the library added


class Notice(str):
    """The sentence of a warning. As text it is like any other, and its fields go with it.

    `code` is one of `codes.CODES`, `values` what the sentence states in numbers and names, by the names of
    `Code.values`. Operations on text, as slices, give plain text without fields: see `saying`.
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
        made = super().__new__(cls, text)
        made.code, made.region, made.source, made.values = code, region, source or None, values or {}
        return made

    def saying(self, text: str) -> Notice:
        """The same warning with another sentence."""
        return Notice(text, self.code, self.region, self.source, self.values)

    def at(self, region: Region | None = None, source: str | None = None) -> Notice:
        """The same warning of this region and source, if it has none of its own."""
        return Notice(str(self), self.code, self.region or region, self.source or source, self.values)

    def renamed(self, rename: Callable[[str], str], source: str | None) -> Notice:
        """The same warning of another source, with every text in it changed."""
        values = {name: _renamed(value, rename) for name, value in self.values.items()}
        return Notice(rename(str(self)), self.code, self.region, source, values)


def notice(code: str, text: str, region: Region | None = None, source: str | None = None, **values: Any) -> Notice:
    """A warning of that code. Values are text, numbers, None or lists of these. Raises `KeyError` for no such code."""
    if CODES[code].severity != "warning":
        raise KeyError(f"{code} is not the code of a warning")
    return Notice(text, code, region, source, values)


def as_notice(warning: str, code: str = UNCODED) -> Notice:
    """A warning with its fields; one of plain text gets that code."""
    return warning if isinstance(warning, Notice) else Notice(warning, code)


def findings_of(warnings: Iterable[str]) -> tuple[Finding, ...]:
    """The warnings as findings, each once, in their order."""
    found = (as_notice(warning) for warning in warnings)
    return tuple(
        dict.fromkeys(Finding(one.code, "warning", str(one), one.region, one.source, one.values) for one in found)
    )


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, rename) for one in value]
    return rename(value) if isinstance(value, str) else value
