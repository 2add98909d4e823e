"""The options of a console's call: its part `request`, or the query of a call that is one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from spinescore.runtime.appliance.work.consolejob import View
from spinescore.runtime.documents import read
from spinescore.runtime.fields import OPTIONAL, Length, Within
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.outputs.formats import ResultFormat

__all__ = ["MOST_FILES", "ScoreRequest", "read_query", "read_request"]

MOST_FILES = 4
_MOST_BUDGET_MS = 3_600_000.0
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class ScoreRequest:
    """The options of a call. Without `views` its files are DICOM."""

    budget_ms: Annotated[float | None, OPTIONAL, Within(1.0, _MOST_BUDGET_MS)] = None
    strict: Annotated[bool, OPTIONAL] = False
    formats: Annotated[tuple[ResultFormat, ...], OPTIONAL, Length(0, len(get_args(ResultFormat)))] = ()
    views: Annotated[tuple[View, ...], OPTIONAL, Length(0, MOST_FILES)] = ()

    def _check_fields(self, path: str) -> None:
        names = [view.part for view in self.views]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"views[{place}].part: {name!r} is the part of an earlier view; give another")


def read_request(text: bytes) -> ScoreRequest:
    """Return the options in JSON text. Raises `ValueError` that begins with the name of the field."""
    return read(ScoreRequest, _without_nulls(parse_json(text)), "")


def read_query(query: Mapping[str, str]) -> ScoreRequest:
    """Return the options in a query: `budget_ms`, `strict` and `formats`, with commas. Raises `ValueError`."""
    document: dict[str, Any] = {}
    for name, text in query.items():
        if name == "budget_ms":
            document[name] = _number(text)
        elif name == "strict":
            document[name] = _FLAGS.get(text.lower(), text)
        elif name == "formats":
            document[name] = [word.strip() for word in text.split(",") if word.strip()]
        else:
            raise ValueError(f"{name[:60]}: there is no such option; the options are budget_ms, strict and formats")
    return read(ScoreRequest, document)


def _number(text: str) -> float | str:
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def _without_nulls(value: Any) -> Any:
    """Return a document without the fields that are null, which mean the same as missing ones."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
