"""Reports from files, checked: a report that others wrote may say anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spinescore.runtime.documents import parse_json
from spinescore.runtime.files import read_bytes
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import CornerReport, RegionReport, StudyReport
from spinescore.runtime.study import LEVELS, REGIONS, Region, sites_of

__all__ = ["SUFFIXES", "read_reports"]

SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})

_MAX_BYTES = 256 << 20  # of some 8,000 reports


def read_reports(path: Path) -> Iterator[tuple[str, StudyReport | ValueError]]:
    """The reports of a JSON or JSON Lines file with where each stands (`:3` for the third line of several), or what is
    wrong with it. Raises OSError where the file cannot be read."""
    data = read_bytes(path, _MAX_BYTES)
    try:
        text = data.decode(json.detect_encoding(data))  # UTF-16 is what PowerShell's `>` writes
    except UnicodeDecodeError:
        yield "", ValueError("the file is no text")
        return
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) < 2 or not _is_json(lines[0][1]):
        yield "", _read(text)
        return
    yield from ((f":{number}", _read(line)) for number, line in lines)


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _read(text: str) -> StudyReport | ValueError:
    try:
        report = StudyReport.from_json(text)
        _check(report)
    except ValueError as error:
        return error
    except RecursionError:
        return ValueError("it is nested too deeply to be a report")
    except (AttributeError, KeyError, TypeError) as error:  # a value of a kind that cannot even be looked into
        return ValueError(f"the report is damaged ({error}); validate it with its schema")
    return report


def _check(report: StudyReport) -> None:
    """Raises ValueError where something that is counted or shown is not what `report.schema.json` says."""
    study, bundle = report.study, report.bundle
    known = (study.study_instance_uid, study.study_date, study.patient_key)
    _demand(all(value is None or _is_text(value) for value in known), "study")
    _demand(all(map(_is_text, (bundle.name, bundle.version, bundle.sha256, bundle.intended_use))), "bundle")
    _demand(bundle.localizer is None or _is_text(bundle.localizer), "bundle.localizer")
    _demand(set(report.regions) == set(REGIONS), "regions")
    for region in REGIONS:
        _check_region(region, report.regions[region])
    total = report.total
    _demand(_is_amount(total.value) and _is_range(total.range), "total")
    _demand(total.status in ("complete", "imputed", "incomplete"), "total.status")
    sites: Any = total.imputed_sites
    _demand(isinstance(sites, tuple) and all(map(_is_text, sites)), "total.imputed_sites")
    _check_expected(report.total.expected)


def _check_region(name: Region, region: RegionReport) -> None:
    _demand(region.status in ("scored", "rejected", "missing"), f"{name}.status")
    _demand(_is_amount(region.total) and _is_range(region.range) and _is_grade(region.missing, 12), f"{name}.total")
    _demand(region.reject is None or _is_text(region.reject.code), f"{name}.reject")
    levels = tuple(disc.level for disc in region.discs)
    _demand(levels == (LEVELS[name] if region.status == "scored" else ()), f"{name}.discs")
    _check_expected(region.expected)
    for disc in region.discs:
        _demand(_is_amount(disc.confidence), f"{disc.level}.confidence")
        _demand(tuple(corner.site for corner in disc.corners) == sites_of(disc.level), f"{disc.level}.corners")
        for corner in disc.corners:
            _check_corner(corner)


def _check_corner(corner: CornerReport) -> None:
    p: Any = corner.probabilities
    _demand(corner.status in ("scored", "abstained", "unreadable", "imputed"), f"{corner.site}.status")
    scored = _is_grade(corner.grade, MAX_GRADE) if corner.status == "scored" else corner.grade is None
    _demand(scored and _is_amount(corner.imputed), f"{corner.site}.grade")
    known = p is None or (isinstance(p, tuple) and len(p) == 4 and None not in p and all(map(_is_amount, p)))
    _demand(known, f"{corner.site}.probabilities")


def _check_expected(expected: Any) -> None:
    if expected is not None:
        numbers = None not in (expected.mean, expected.sd) and _is_amount(expected.mean) and _is_amount(expected.sd)
        _demand(numbers and _is_range(expected.interval), "expected")


def _demand(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"the report is damaged: {what} is not what report.schema.json says")


def _is_text(value: Any) -> bool:
    """Text that can be written: JSON can say half of a character."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_amount(value: Any) -> bool:
    """None, or a number as a score may be (no comparison with a NaN holds)."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 72)


def _is_grade(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_range(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_grade(end, 72) for end in value)
