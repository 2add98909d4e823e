"""Reports as a CSV table: a header, and one row for each study (RFC 4180).

An empty cell is something that is not known: a corner without a grade, a total that cannot be given. Nothing is ever
filled in with 0. Imputed corners have no grade either; they are named in `imputed_sites`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TypeVar

from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import REGIONS, SITES

__all__ = ["COLUMNS", "Row", "csv_text", "guarded", "row"]

_REGION = ("_total", "_low", "_high", "_status", "_reject")

COLUMNS: tuple[str, ...] = (
    "study_instance_uid",
    "study_date",  # YYYYMMDD
    "patient_key",
    "total",
    "total_low",
    "total_high",
    "total_status",
    *(f"{region}{what}" for region in REGIONS for what in _REGION),
    *(site for region in REGIONS for site in SITES[region]),
    "imputed_sites",  # separated by spaces
    "given_points",  # levels whose points are a reader's, separated by spaces
    "bundle",
    "bundle_version",
    "bundle_sha256",
)

# A spreadsheet takes text that begins with one of these for a formula, and what is in a file's header is anybody's.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are wide

T = TypeVar("T")
Cell = str | int | float | None
Row = dict[str, Cell]


def row(report: StudyReport) -> Row:
    """One study's cells by `COLUMNS`."""
    study, total, bundle = report.study, report.total, report.bundle
    cells: dict[str, Cell] = dict.fromkeys(COLUMNS)
    cells.update(study_instance_uid=study.study_instance_uid, study_date=study.study_date)
    cells.update(patient_key=study.patient_key, imputed_sites=" ".join(total.imputed_sites))
    cells.update(total=total.value, total_low=total.range[0], total_high=total.range[1], total_status=total.status)
    cells.update(bundle=bundle.name, bundle_version=bundle.version, bundle_sha256=bundle.sha256)
    discs = [disc for region in report.regions.values() for disc in region.discs]
    cells.update(given_points=" ".join(disc.level for disc in discs if disc.points == "given"))
    for name, region in report.regions.items():
        reject = None if region.reject is None else region.reject.code
        facts = (region.total, *region.range, region.status, reject)
        cells.update({name + what: fact for what, fact in zip(_REGION, facts, strict=True)})
        cells.update({corner.site: corner.grade for disc in region.discs for corner in disc.corners})
    return cells


def csv_text(studies: Iterable[StudyReport | Row]) -> str:
    """The table of reports, or of their rows, in their order."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = (row(study) if isinstance(study, StudyReport) else study for study in studies)
    writer.writerows([guarded(cells[name]) for name in COLUMNS] for cells in rows)
    return table.getvalue()


def guarded(cell: T) -> T | str:
    """Text that a spreadsheet would run gets an apostrophe in front, which shows it as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
