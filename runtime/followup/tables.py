"""Tidy tables of a cohort: rows of studies, vertebral units, corners and changes; to CSV and to Parquet.

`columns.csv` beside this file fixes the names, order and types of the columns, and goes with every export. Columns may
be added at the end, never changed. CSV: UTF-8, comma, one header line, an empty field if there is no value, `true` and
`false`, dates as YYYY-MM-DD. Every study has 12 units and 24 corners; those of a region that was not scored have no
grades.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from spinescore.runtime.arguments import check_kind
from spinescore.runtime.followup.archivefiles import parquet_table
from spinescore.runtime.followup.archivetables import expected_cells
from spinescore.runtime.followup.change import SYNDESMOPHYTE, is_bridge, study_date, unit_score
from spinescore.runtime.followup.changerows import change_row, corner_change_rows, left_out_row, unit_change_rows
from spinescore.runtime.followup.cohort import Cohort, Entry
from spinescore.runtime.followup.comparison import Rules
from spinescore.runtime.outputs.rows import guarded, table_text
from spinescore.runtime.scoring.report import DiscReport, StudyReport
from spinescore.runtime.study import LEVELS, REGIONS, sites_of

__all__ = ["TABLES", "Row", "columns_of", "csv_text", "dictionary", "parquet_bytes", "tables_of"]

TABLES = (
    "studies",
    "units",
    "corners",
    "changes",
    "patients",
    "unit_changes",
    "corner_changes",
    "repeats",
    "left_out",
)

Row = dict[str, Any]


@cache
def dictionary() -> str:
    """Return the text of `columns.csv`: for each column its tables, name, type and meaning.

    Types are text, integer, number, boolean and date.
    """
    return (Path(__file__).parent / "columns.csv").read_text(encoding="utf-8")


@cache
def columns_of(table: str) -> dict[str, str]:
    """Return the columns of a table in their order, with their types."""
    rows = csv.DictReader(io.StringIO(dictionary()))
    return {row["column"]: row["type"] for row in rows if table in row["tables"].split()}


def tables_of(cohort: Cohort, rules: Rules | None = None) -> dict[str, list[Row]]:
    """Return the rows of each of `TABLES`. Dates are `datetime.date`; a missing value is None.

    Text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    check_kind("cohort", cohort, Cohort, "tables_of(read_cohort(path))")
    check_kind("rules", rules, Rules, optional=True)
    changes = cohort.consecutive_changes(rules)
    tables = {
        "studies": [_study_row(entry) for entry in cohort.entries],
        "units": [row for entry in cohort.entries for row in _unit_rows(entry)],
        "corners": [row for entry in cohort.entries for row in _corner_rows(entry)],
        "changes": [change_row(change) for change in changes],
        "patients": [change_row(change) for change in cohort.whole_changes(rules)],
        "unit_changes": [row for change in changes for row in unit_change_rows(change)],
        "corner_changes": [row for change in changes for row in corner_change_rows(change)],
        "repeats": [change_row(change) for change in cohort.repeats(rules)],
        "left_out": [left_out_row(left) for left in cohort.left_out(rules)],
    }
    return {
        table: [{name: guarded(value) for name, value in row.items()} for row in rows] for table, rows in tables.items()
    }


def csv_text(table: str, rows: Iterable[Row]) -> str:
    """Return a table as CSV."""
    return table_text(list(columns_of(table)), rows, _cell)


def parquet_bytes(table: str, rows: Sequence[Row]) -> bytes:
    """Return a table as a Parquet file. Raises ModuleNotFoundError without pyarrow."""
    return parquet_table(columns_of(table), rows, "int64")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return value.isoformat()
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _key(entry: Entry) -> Row:
    study = entry.report.study
    return {
        "report": entry.name,
        "patient_key": study.patient_key,
        "study_instance_uid": study.study_instance_uid,
        "study_date": study_date(entry.report),
    }


def _study_row(entry: Entry) -> Row:
    report, total = entry.report, entry.report.total
    discs = [disc for region in report.regions.values() for disc in region.discs]
    grades = [corner.grade for disc in discs for corner in disc.corners if corner.grade is not None]
    row = {
        **_key(entry),
        "bundle_name": report.bundle.name,
        "bundle_version": report.bundle.version or None,
        "bundle_sha256": report.bundle.sha256 or None,
        "total": total.value,
        "total_low": math.floor(total.range[0]),  # readers' half points are rounded outwards
        "total_high": math.ceil(total.range[1]),
        "total_status": total.status,
        "imputed_corners": len(total.imputed_sites),
        **expected_cells(total.expected),
    }
    for name in REGIONS:
        region = report.regions[name]
        row |= {
            f"{name}_status": region.status,
            f"{name}_reject": region.reject.code if region.reject else None,
            f"{name}_total": region.total,
            f"{name}_low": math.floor(region.range[0]),
            f"{name}_high": math.ceil(region.range[1]),
            f"{name}_missing": region.missing,
        }
    row["graded_corners"] = len(grades)
    row["syndesmophyte_corners"] = sum(grade >= SYNDESMOPHYTE for grade in grades)
    row["bridged_units"] = sum(_is_bridge(disc) is True for disc in discs)
    return row


def _unit_rows(entry: Entry) -> Iterator[Row]:
    for region, level, disc in _units(entry.report):
        total, (low, high) = unit_score(("", "") if disc is None else disc.corners)
        yield {
            **_key(entry),
            "region": region,
            "level": level,
            "region_status": entry.report.regions[region].status,
            "total": total,
            "low": math.floor(low),
            "high": math.ceil(high),
            "bridge": None if disc is None else _is_bridge(disc),
            "confidence": None if disc is None or entry.is_reading else disc.confidence,
            "bundle_sha256": entry.report.bundle.sha256 or None,
            "points": None if disc is None else disc.points,
        }


def _corner_rows(entry: Entry) -> Iterator[Row]:
    for region, level, disc in _units(entry.report):
        corners = (None, None) if disc is None else disc.corners
        for site, corner in zip(sites_of(level), corners, strict=True):
            p = (corner.probabilities if corner else None) or (None,) * 4
            yield {
                **_key(entry),
                "region": region,
                "level": level,
                "site": site,
                "region_status": entry.report.regions[region].status,
                "status": corner.status if corner else None,
                "grade": corner.grade if corner and isinstance(corner.grade, int) else None,
                "imputed": corner.imputed if corner else None,
                **dict(zip(("p0", "p1", "p2", "p3"), p, strict=True)),
                "bundle_sha256": entry.report.bundle.sha256 or None,
                "reader_grade": corner.grade if corner and entry.is_reading else None,
                "grade_from": corner.grade_from if corner else None,
            }


def _units(report: StudyReport) -> Iterator[tuple[Any, str, DiscReport | None]]:
    for region in REGIONS:
        discs = report.regions[region].discs or (None,) * len(LEVELS[region])
        yield from ((region, level, disc) for level, disc in zip(LEVELS[region], discs, strict=True))


def _is_bridge(disc: DiscReport) -> bool | None:
    return is_bridge([corner.grade for corner in disc.corners])
