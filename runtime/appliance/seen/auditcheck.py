"""The check of an audit log: which record was the first that somebody edited, removed, inserted or cut off.

The chain of hashes shows changes within the log, and the head in the index shows that its end is missing. Records may
follow the head: a process wrote them and was killed, or is about to move the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spinescore.runtime.appliance.seen.audit import FIRST, FOLDER, Head, files_of, record_of

__all__ = ["Flaw", "Summary", "check"]

Kind = Literal["edited", "removed", "inserted", "truncated", "torn"]


@dataclass(frozen=True)
class Flaw:
    """The first bad place of a log."""

    file: str
    line: int
    kind: Kind
    message: str


@dataclass(frozen=True)
class Summary:
    """A log without flaws. `repaired` counts the lines that a later record explains."""

    records: int
    files: int
    repaired: int
    first: str
    last: str


@dataclass(frozen=True)
class _Line:
    file: str
    number: int
    sha256: str
    bytes: int
    is_ended: bool
    record: dict[str, Any] | None

    def follows(self, number: int, sha256: str) -> bool:
        return self.record is not None and (self.record["n"], self.record["previous"]) == (number + 1, sha256)

    def flaw(self, kind: Kind, message: str) -> Flaw:
        return Flaw(self.file, self.number, kind, message)


def check(spool: Path, head: Head | None) -> Flaw | Summary:
    """Return the first flaw of the log in a spool, or a summary if it has none. `head` is the one in the index.

    Read the head before, so that the log cannot be shorter than it says.
    """
    folder = spool / FOLDER
    return _Chain(head).check(_lines(folder), len(files_of(folder)))


def _lines(folder: Path) -> Iterator[_Line]:
    for path in files_of(folder):
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                line = text.removesuffix(b"\n")
                digest = hashlib.sha256(line).hexdigest()
                yield _Line(path.name, number, digest, len(line), text != line, record_of(line))


class _Chain:
    """The records up to a place, which are good."""

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self._count, self._sha256, self._before_sha256 = 0, FIRST, ""
        self._last: _Line | None = None
        self._torn: list[_Line] = []  # lines since the last record that are none
        self._repaired, self._first, self._at = 0, "", ""

    def check(self, lines: Iterator[_Line], files: int) -> Flaw | Summary:
        line = next(lines, None)
        while line is not None:
            following = next(lines, None)
            flaw = self._take(line, following)
            if flaw is not None:
                return flaw
            line = following
        return self._end() or Summary(self._count, files, self._repaired, self._first, self._at)

    def _take(self, line: _Line, following: _Line | None) -> Flaw | None:
        record = line.record
        if record is None:
            self._torn.append(line)
            return None
        if not line.follows(self._count, self._sha256):
            return self._break(line, record, following)
        if self._torn:
            torn = [{"sha256": one.sha256, "bytes": one.bytes} for one in self._torn]
            if record.get("event") != "repaired" or record.get("torn") != torn:
                return self._torn[0].flaw("inserted", "the line is no record, and no later record explains it")
            self._repaired += len(self._torn)
            self._torn = []
        self._count, self._before_sha256, self._sha256, self._last = record["n"], self._sha256, line.sha256, line
        self._at = str(record.get("at"))
        self._first = self._first or self._at
        goes_on = following is not None and following.record is not None and following.record["n"] <= self._count
        if self._head and self._head.n == self._count and self._head.sha256 != self._sha256 and not goes_on:
            return line.flaw("edited", f"record {self._count} is not the one whose hash the index has")
        return None

    def _break(self, line: _Line, record: dict[str, Any], following: _Line | None) -> Flaw:
        number, due = record["n"], self._count + 1
        if following is not None and following.follows(self._count, self._sha256):
            return line.flaw("inserted", "the record belongs to no chain, and the next one goes on without it")
        if self._torn:
            if number == due + len(self._torn):
                return self._torn[0].flaw("edited", f"record {due} was made unreadable")
            return self._torn[0].flaw("torn", f"the line is incomplete, and the next record is {number}, not {due}")
        if number > due:
            many = f"records {due} to {number - 1} are" if number - due > 1 else f"record {due} is"
            return line.flaw("removed", f"{many} missing before record {number}")
        if self._last is not None and record["previous"] == self._before_sha256:
            return self._last.flaw("inserted", f"record {number} goes on without it")
        if number < due:
            return line.flaw("inserted", f"record {number} stands behind record {self._count}")
        after = _previous(following) or (self._head.sha256 if self._head and self._head.n == number else None)
        if self._last is None or (after is not None and after != line.sha256):
            return line.flaw("edited", f"record {number} was changed after it was written")
        return self._last.flaw("edited", f"record {self._count} was changed after it was written")

    def _end(self) -> Flaw | None:
        if self._head is not None and self._head.n > self._count:
            place = self._torn[0] if self._torn else self._last
            file, number = (place.file, place.number + (not self._torn)) if place else (self._head.file, 1)
            many = f"records {self._count + 1} to {self._head.n} are missing"
            if self._torn and self._torn[0].is_ended:
                return Flaw(file, number, "edited", f"the line is no record; {many}")
            return Flaw(file, number, "truncated", f"{many}: the index says that record {self._head.n} was the last")
        if self._torn:
            text = "the line is incomplete: its process was killed; the next record of the service explains it"
            return self._torn[0].flaw("torn", text)
        return None


def _previous(line: _Line | None) -> str | None:
    return None if line is None or line.record is None else str(line.record["previous"])
