"""Reports from files, checked, because a file of another program may hold anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from spinescore.runtime.files import read_bytes
from spinescore.runtime.jsonfile import json_lines
from spinescore.runtime.scoring.report import StudyReport

__all__ = ["SUFFIXES", "read_reports"]

SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})

_MAX_BYTES = 256 << 20  # of some 8,000 reports


def read_reports(path: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    """Yield each report of a JSON or JSON Lines file with its place, or the error that it cannot be read.

    A place is `:3` for the third of several lines, else empty. Raises OSError if the file cannot be read.
    """
    data = read_bytes(path, _MAX_BYTES)
    try:
        text = data.decode(json.detect_encoding(data))  # UTF-16 is what PowerShell's `>` writes
    except UnicodeDecodeError:
        yield "", ValueError("the file is no text")
        return
    lines = {f":{number}": line for number, line in json_lines(text)}
    yield from ((place, _read(part)) for place, part in (lines or {"": text}).items())


def _read(text: str) -> StudyReport | ValueError:
    try:
        return StudyReport.from_json(text)
    except ValueError as error:
        return error
