"""Readers' grades from CSV files, as reports that can be compared and tabulated like reports of a bundle.

A long table has a row for each corner (columns `study`, `site`, `grade`), as `spinescore evaluate` reads it and as
`corners.csv` is written. A wide table has a row for each study and a column for each site, as `row.csv` is written. The
column `study` may be called `study_instance_uid`. Optional columns: `patient` or `patient_key`, `study_date`, `reader`,
`p0` .. `p3`, and the bundle's `bundle_sha256`, `bundle` and `bundle_version`. An empty grade means that the corner has
none. Grades may be half points. If the column `reader` names several readers, a corner's grade is the mean of those
that graded it.

A patient's identifier becomes the keyed hash of reports, unless it is such a hash already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from spinescore.runtime.csvfile import csv_rows, read_csv_text
from spinescore.runtime.followup.days import stated_day
from spinescore.runtime.scoring.msasss import MAX_GRADE, RegionScore, score_region, score_study
from spinescore.runtime.scoring.report import (
    BundleInfo,
    CornerReport,
    DeviceInfo,
    DiscReport,
    RegionReport,
    StudyInfo,
    StudyReport,
    TimingsMs,
    TotalReport,
)
from spinescore.runtime.study import ALL_SITES, LEVELS, REGIONS, SITES, Region, sites_of

__all__ = ["GradedStudy", "check_probabilities", "graded_studies", "read_csv"]

_MAX_BYTES = 256_000_000
_SITES = {site.lower(): site for site in ALL_SITES}
_NUMBER = re.compile(r"([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_KEY = re.compile(r"[0-9a-f]{32}")
_NO_TIMES = TimingsMs(None, None, None, None, None)
_PROBABILITIES = ("p0", "p1", "p2", "p3")
_FACTS = ("patient_key", "patient", "study_date", "bundle", "bundle_version", "bundle_sha256")
_CORRECTED = ("grade_from", "corrected_sites")
_READ = frozenset(
    ("study", "site", "grade", "reader_grade", "reader", *_PROBABILITIES, *_FACTS, *_CORRECTED, *ALL_SITES)
)
_SUM_TOLERANCE = 0.05  # of probabilities that were rounded
_DIGITS = 9  # of a mean of readers: sums of them, which are rounded to 3, are those of exact means

Cells = Mapping[str, str]


@dataclass
class GradedStudy:
    """One study in a file, graded by one bundle or by all readers of the file."""

    facts: dict[str, str] = field(default_factory=dict)
    grades: dict[str, dict[str, float | None]] = field(default_factory=dict)  # site -> reader -> grade
    probabilities: dict[str, tuple[float, ...]] = field(default_factory=dict)
    is_corrected: bool = False  # by a reader, as spinescore's own tables say

    def means(self) -> dict[str, float | None]:
        """Return each site's grade: the mean of the readers that graded it."""
        return {site: _mean(readers) for site, readers in self.grades.items()}


def read_csv(path: Path) -> list[StudyReport]:
    """Return the studies of a CSV file, in its order.

    Raises ValueError, which names the line, if the file cannot be read or has no readings.
    """
    studies = graded_studies(read_csv_text(path, "", _MAX_BYTES))
    if not studies:
        raise ValueError("there is no corner in it")
    return [_report(uid, study) for (uid, _), study in studies.items()]


def graded_studies(
    text: str, name: str = "", fault: type[ValueError] = ValueError, step: float | None = None
) -> dict[tuple[str, str], GradedStudy]:
    """Return the studies of a CSV table by study and bundle.

    Grades are multiples of `step` if it is given. Raises `fault`, whose message begins with `name` and has the line.
    """
    place = f"{name}, line" if name else "line"
    rows = csv_rows(text, name, fault)
    header = [_column(column) for column in next(rows)[1]]
    if "study" not in header and "study_instance_uid" in header:
        header[header.index("study_instance_uid")] = "study"
    found = ", ".join(header) or "nothing"
    if "study" not in header or not ({"site", "grade"} <= set(header) or set(ALL_SITES) & set(header)):
        raise fault(f"{place} 1: no columns study, site and grade, nor study and sites; found {found}")
    if twice := [column for column in dict.fromkeys(header) if column in _READ and header.count(column) > 1]:
        raise fault(f"{place} 1: column {', '.join(twice)} is there twice")
    studies: dict[tuple[str, str], GradedStudy] = {}
    for line, row in rows:
        cells = {column: cell for column, cell in zip(header, row, strict=True) if column in _READ}
        try:
            _take(studies, cells, step)
        except ValueError as error:
            raise fault(f"{place} {line}: {error}") from None
    return studies


def _column(name: str) -> str:
    """Return the name of a column in lower case; sites keep theirs."""
    return _SITES.get(name.lower(), name.lower())


def _take(studies: dict[tuple[str, str], GradedStudy], cells: Cells, step: float | None) -> None:
    if odd := next((cell for cell in cells.values() if not cell.isprintable()), None):
        raise ValueError(f"{ascii(odd)[:60]} holds characters that cannot be shown; remove them")
    uid = cells["study"]
    if not uid:
        raise ValueError("the study has no name")
    study = studies.setdefault((uid, cells.get("bundle_sha256", "")), GradedStudy())
    for name in _FACTS:
        value = cells.get(name, "")
        value = stated_day(value) if name == "study_date" else value
        if value and study.facts.setdefault(name, value) != value:
            raise ValueError(f"study {uid} has two values of {name}, {study.facts[name]} and {value}; a study has one")
    graded = cells.get("reader_grade") or cells.get("grade", "")
    grades = {cells["site"]: graded} if "site" in cells else {site: cells[site] for site in ALL_SITES if site in cells}
    for site, grade in grades.items():
        if site not in ALL_SITES:
            raise ValueError(f"{site!r} is no site; sites are C2-inferior .. T1-superior, T12-inferior .. S1-superior")
        readers, reader = study.grades.setdefault(site, {}), cells.get("reader", "")
        if reader in readers:
            raise ValueError(f"{site} of study {uid} is there twice; leave one row, or name the readers")
        readers[reader] = _grade(grade, step)
    texts = [cells.get(name, "") for name in _PROBABILITIES]
    if "site" in cells and any(texts):
        values = check_probabilities([_number(text) for text in texts], texts)
        if study.probabilities.setdefault(cells["site"], values) != values:
            raise ValueError(f"{cells['site']} of study {uid} has other probabilities in an earlier row; leave one")
    study.is_corrected |= cells.get("grade_from") == "reader" or bool(cells.get("corrected_sites"))


def _number(text: str) -> float:
    """Return the number in a cell, NaN if it is none; a decimal comma can only mean one thing below 4."""
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan


def _grade(text: str, step: float | None) -> float | None:
    if not text:
        return None
    grade = _number(text)
    if not 0 <= grade <= MAX_GRADE or (step and grade % step):
        raise ValueError(f"{text!r} is no grade; grades are 0 to 3, half points allowed, or empty for none")
    return grade


def check_probabilities(values: Sequence[float], texts: Sequence[str] = ()) -> tuple[float, ...]:
    """Return the probabilities of the four grades. Raises ValueError, which shows `texts`, if they are wrong."""
    if len(values) != 4 or any(not 0 <= p <= 1 for p in values) or abs(sum(values) - 1) > _SUM_TOLERANCE:
        shown = ", ".join(texts or map(str, values))
        raise ValueError(f"{shown} are not four probabilities from 0 to 1 with the sum 1; give all four or none")
    return tuple(values)


def _report(uid: str, study: GradedStudy) -> StudyReport:
    """Return the readings as a report, whose grades may be half points."""
    means = study.means()
    scores = {}
    for region, sites in SITES.items():
        grades = [means.get(site) for site in sites]
        if any(grade is not None for grade in grades):
            scores[region] = score_region(region, cast(Any, grades), fractional=True)
    total = score_study(scores)
    value = None if total.value is None else round(total.value, 3)
    return StudyReport(
        study=StudyInfo(uid, study.facts.get("study_date"), _patient(study.facts)),
        bundle=_source(study),
        device=DeviceInfo("reader", "", "", ""),
        regions={region: _region(region, means, study.probabilities, scores.get(region)) for region in REGIONS},
        total=TotalReport(value, total.range, total.status, total.imputed_sites),
        timings_ms=_NO_TIMES,
        budget_ms=None,
        within_budget=None,
        warnings=(),
    )


def _mean(readers: Mapping[str, float | None]) -> float | None:
    grades = [grade for grade in readers.values() if grade is not None]
    if not grades:
        return None
    mean = round(sum(grades) / len(grades), _DIGITS)
    return int(mean) if mean == int(mean) else mean


def _region(
    region: Region,
    means: Mapping[str, float | None],
    probabilities: Mapping[str, tuple[float, ...]],
    score: RegionScore | None,
) -> RegionReport:
    if score is None:
        empty = score_region(region, [None] * len(SITES[region]))
        return RegionReport("missing", None, None, (), None, empty.range, empty.missing)
    discs = []
    for level, disc in zip(LEVELS[region], score.discs, strict=True):
        upper, lower = (
            _corner(site, means.get(site), probabilities.get(site), score.imputed.get(site)) for site in sites_of(level)
        )
        discs.append(DiscReport(level, (0.0, 0.0), (0.0, 0.0), 0.0, 0.0, (upper, lower), disc.total, disc.range))
    total = None if score.total is None else round(score.total, 3)
    return RegionReport("scored", None, None, tuple(discs), total, score.range, score.missing)


def _corner(
    site: str, grade: float | None, probabilities: tuple[float, ...] | None, imputed: float | None
) -> CornerReport:
    status: Any = "scored" if grade is not None else "unreadable" if imputed is None else "imputed"
    return CornerReport(site, cast(Any, grade), probabilities, status, None if imputed is None else round(imputed, 3))


def _source(study: GradedStudy) -> BundleInfo:
    facts = study.facts
    if sha256 := facts.get("bundle_sha256"):
        return BundleInfo(facts.get("bundle", "bundle"), facts.get("bundle_version", ""), sha256, "As its rows say.")
    readers = sorted({reader for graded in study.grades.values() for reader in graded} - {""})
    name = f"mean of readers {', '.join(readers)}" if len(readers) > 1 else f"reader {''.join(readers)}".strip()
    return BundleInfo(name, "", "", "Grades of a reader, not of a network.")


def _patient(facts: Mapping[str, str]) -> str | None:
    from spinescore.runtime.reading.facts import patient_key

    patient = facts.get("patient_key") or facts.get("patient")
    return patient if patient is None or _KEY.fullmatch(patient) else patient_key(patient)
