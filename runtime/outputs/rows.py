"""Reports as a CSV table: a header, and one row for each study (RFC 4180).

An empty cell is a value that is not known: a corner without a grade, a total that cannot be given. No cell is filled
in with 0. Imputed corners have no grade either; `imputed_sites` names them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from spinescore.runtime.outputs.corrections import corrected_sites, readers
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import REGIONS, SITES

__all__ = ["COLUMNS", "Row", "csv_text", "guarded", "row", "table_text"]

_REGION = ("_total", "_low", "_high", "_status", "_reject")

COLUMNS: tuple[str, ...] = (
    "study_instance_uid",
    "study_date",  # YYYYMMDD
    "patient_key",
    "total",
    "total_low",
    "total_high",
    "total_status",
    *(f"{region}{end}" for region in REGIONS for end in _REGION),
    *(site for region in REGIONS for site in SITES[region]),
    "imputed_sites",  # separated by spaces
    "given_points",  # levels whose points a reader gave, separated by spaces
    "bundle",
    "bundle_version",
    "bundle_sha256",
    "corrected_sites",  # by readers, separated by spaces
    "readers",  # that corrected the report, separated by commas
)

# A spreadsheet takes text that begins with one of these for a formula, and anybody may have written a file's header. If
# its separator is the semicolon or the tab, another cell begins behind one in our text. Four of the letters are wide.
_OPERATORS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"^(?=[\t\r\n]|{_OPERATORS})|(?<=[;\t\r\n])(?=[ \"']*{_OPERATORS})")

T = TypeVar("T")
Cell = str | int | float | None
Row = dict[str, Cell]


def row(report: StudyReport) -> Row:
    """Return one study's cells by `COLUMNS`."""
    study, total, bundle = report.study, report.total, report.bundle
    cells: dict[str, Cell] = dict.fromkeys(COLUMNS)
    cells.update(study_instance_uid=study.study_instance_uid, study_date=study.study_date)
    cells.update(patient_key=study.patient_key, imputed_sites=" ".join(total.imputed_sites))
    cells.update(total=total.value, total_low=total.range[0], total_high=total.range[1], total_status=total.status)
    cells.update(bundle=bundle.name, bundle_version=bundle.version, bundle_sha256=bundle.sha256)
    cells.update(corrected_sites=" ".join(corrected_sites(report)), readers=", ".join(readers(report)))
    discs = [disc for region in report.regions.values() for disc in region.discs]
    cells.update(given_points=" ".join(disc.level for disc in discs if disc.points == "given"))
    for name, region in report.regions.items():
        reject = None if region.reject is None else region.reject.code
        values = (region.total, *region.range, region.status, reject)
        cells.update({name + end: value for end, value in zip(_REGION, values, strict=True)})
        cells.update({corner.site: corner.grade for disc in region.discs for corner in disc.corners})
    return cells


def csv_text(studies: Iterable[StudyReport | Row]) -> str:
    """Return the table of reports, or of their rows, in the same order."""
    return table_text(COLUMNS, (row(study) if isinstance(study, StudyReport) else study for study in studies))


def guarded(cell: T) -> T | str:
    """Return a cell; an apostrophe in front of each formula in it makes a spreadsheet show it as text."""
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


def table_text(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], cell: Callable[[Any], object] = guarded
) -> str:
    """Return a CSV table: a header, then each row's values of these columns, as `cell` writes them."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(map(guarded, columns))
    writer.writerows([cell(values[name]) for name in columns] for values in rows)
    return table.getvalue()
