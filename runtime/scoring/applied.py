"""The corrections by readers that a report holds: each change with its place, the value before and the value after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from spinescore.runtime.fields import OPTIONAL, Length, OneOf, Within, dotted, shown
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.study import ALL_LEVELS, ALL_SITES, LEVELS, Region

__all__ = [
    "AppliedCorrection",
    "Comment",
    "DiscPoints",
    "Grade",
    "GradeChange",
    "PointsChange",
    "Reader",
    "Regions",
    "check_words",
    "unread_regions",
]

_MOST_PX = 100_000.0  # more than the sides of any radiograph; points may lie outside it

Reader = Annotated[str, Length(1, 64)]
Comment = Annotated[str, Length(1, 1000)]
Grade = Annotated[int, Within(0, MAX_GRADE)]
Regions = Annotated[tuple[Annotated[Region, OneOf(*LEVELS)], ...], Length(0, len(LEVELS))]
_Number = Annotated[float, Within(-_MOST_PX, _MOST_PX)]
DiscPoints = tuple[tuple[_Number, _Number], tuple[_Number, _Number]]  # centre and anterior point, x and y

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?\+00:00", re.ASCII)


@dataclass(frozen=True)
class GradeChange:
    """A reader's grade of the site `where`. None: the corner had no grade before, or cannot be read."""

    where: Annotated[str, OneOf(*ALL_SITES)]
    before: Grade | None
    after: Grade | None


@dataclass(frozen=True)
class PointsChange:
    """A reader's points of the level `where`: centre and anterior point in source pixels.

    `before` is None if there were none, or if they are not known.
    """

    where: Annotated[str, OneOf(*ALL_LEVELS)]
    before: DiscPoints | None
    after: DiscPoints


@dataclass(frozen=True)
class AppliedCorrection:
    """The changes that a reader made at one time. Its `repr` shows neither the reader nor the comment.

    `at` is in UTC, for example 2026-11-29T15:04:05+00:00. `unreadable` are the regions that the reader took out, and
    `readable` those that an earlier correction took out and this reader can read.
    """

    reader: Reader = field(repr=False)
    at: Annotated[str, Length(1, 64)]
    comment: Comment | None = field(repr=False)
    grades: tuple[GradeChange, ...]
    points: tuple[PointsChange, ...]
    unreadable: Regions
    readable: Annotated[Regions, OPTIONAL] = ()

    def _check_fields(self, path: str) -> None:
        check_words(path, self.reader, self.at, self.comment)


def unread_regions(corrections: Iterable[AppliedCorrection]) -> set[Region]:
    """Return the regions that these corrections leave out: for each, the last one that speaks of it counts."""
    out: set[Region] = set()
    for one in corrections:
        out = out.union(one.unreadable).difference(one.readable)
    return out


def check_words(path: str, reader: str, at: str, comment: str | None) -> None:
    """Raise `ValueError` if a name or a comment cannot be printed, or a time is not one in UTC."""
    if not reader.isprintable() or not reader.strip():
        name = dotted(path, "reader")
        raise ValueError(f"{name}: expected printable characters, found {shown(reader)}; give a name or initials")
    try:
        valid = _UTC.fullmatch(at) is not None and datetime.fromisoformat(at) is not None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            f"{dotted(path, 'at')}: expected a time in UTC such as 2026-11-29T15:04:05+00:00, found {shown(at)}"
        )
    if comment is not None and not (comment.strip() and all(line.isprintable() for line in comment.splitlines())):
        raise ValueError(f"{dotted(path, 'comment')}: expected printable text or null, found {shown(comment)}")
