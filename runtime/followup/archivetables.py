"""The rows that `spinescore archive` writes for a study, and the report that such rows make.

`archivecolumns.csv` beside this file fixes the columns, and for each kind of row its columns; the others are empty. The
rows of a file of tables are sorted by study. A study has a row `study`, two rows `region` and, for each region that was
scored, twelve rows `corner`; or else one row `not-scored`. The report has all that `cohort`, `compare` and `evaluate`
read; the device, times, messages and files of the original are gone.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, cast

from spinescore.runtime.codes import CODES
from spinescore.runtime.followup.change import study_date
from spinescore.runtime.scoring.expected import Expected
from spinescore.runtime.scoring.msasss import score_region
from spinescore.runtime.scoring.report import (
    BundleInfo,
    CornerReport,
    DeviceInfo,
    DiscReport,
    RadiographInfo,
    RegionReport,
    RejectInfo,
    StudyInfo,
    StudyReport,
    TimingsMs,
    TotalReport,
)
from spinescore.runtime.study import LEVELS, REGIONS, SITES, Region

__all__ = ["Row", "archive_columns", "archive_dictionary", "bundle_cells", "expected_cells", "report_of", "rows_of"]

Row = dict[str, Any]  # the cells that are not empty

_PROBABILITIES = ("p0", "p1", "p2", "p3")
_USE = "The intended use is that which the bundle states."
_OF_THE_MACHINE = re.compile(r"(engine|record|plan)-|scored-on-cpu|cache-not-writable|networks-unchecked")
_EXPECTED = ("expected_mean", "expected_sd", "expected_low", "expected_high")


@cache
def archive_dictionary() -> str:
    """Return the text of `archivecolumns.csv`: for each column its kinds of rows, name, type and meaning."""
    return (Path(__file__).parent / "archivecolumns.csv").read_text(encoding="utf-8")


@cache
def archive_columns() -> dict[str, str]:
    """Return the columns in their order, with their types."""
    return {row["column"]: row["type"] for row in csv.DictReader(io.StringIO(archive_dictionary()))}


# ---- a report to rows


def rows_of(report: StudyReport) -> list[Row]:
    """Return the rows of a report of which at least one region was scored."""
    total = report.total
    shared = {
        "study_instance_uid": report.study.study_instance_uid,
        "patient_key": report.study.patient_key,
        "study_date": study_date(report),
        **bundle_cells(report.bundle),
    }
    study = {
        "notices": " ".join(dict.fromkeys(one.code for one in report.notices if not _OF_THE_MACHINE.match(one.code))),
        "status": total.status,
        **_total(total.value, total.range, total.expected),
    }
    rows = [{"row": "study", **shared, **study}]
    for name in REGIONS:
        rows.append({"row": "region", **shared, "region": name, **_region_cells(report.regions[name])})
        corners = (_corner_cells(disc, corner) for disc in report.regions[name].discs for corner in disc.corners)
        rows += [{"row": "corner", **shared, "region": name, **cells} for cells in corners]
    return [{column: cell for column, cell in row.items() if cell is not None} for row in rows]


def bundle_cells(bundle: BundleInfo) -> Row:
    """Return the cells about the bundle, which all rows have."""
    return {
        "bundle_name": bundle.name,
        "bundle_version": bundle.version,
        "bundle_sha256": bundle.sha256,
        "localizer": bundle.localizer,
        "smallest_detectable_change": bundle.smallest_detectable_change,
    }


def expected_cells(expected: Expected | None) -> Row:
    """Return the cells about an expected total; they are None without one."""
    numbers = (None,) * 4 if expected is None else (expected.mean, expected.sd, *expected.interval)
    return dict(zip(_EXPECTED, numbers, strict=True))


def _total(value: float | None, span: tuple[float, float], expected: Expected | None) -> Row:
    return {"total": value, "low": span[0], "high": span[1], **expected_cells(expected)}


def _region_cells(region: RegionReport) -> Row:
    cells: Row = {"status": region.status, **_total(region.total, region.range, region.expected)}
    cells |= {"missing": region.missing, "code": region.reject.code if region.reject else None}
    if (image := region.radiograph) is not None:
        row_mm, column_mm = image.pixel_spacing_mm or (None, None)
        cells |= {
            "image_rows": image.rows, "image_columns": image.columns, "row_spacing_mm": row_mm,
            "column_spacing_mm": column_mm, "facing": image.facing, "turn_deg": image.turn_deg,
        }  # fmt: skip
    return cells


def _corner_cells(disc: DiscReport, corner: CornerReport) -> Row:
    return {
        "level": disc.level,
        "site": corner.site,
        "status": corner.status,
        "grade": corner.grade,
        "imputed": corner.imputed,
        **dict(zip(_PROBABILITIES, corner.probabilities or (None,) * 4, strict=True)),
        "confidence": disc.confidence,
        "centre_x_px": disc.centre_px[0],
        "centre_y_px": disc.centre_px[1],
        "anterior_x_px": disc.anterior_px[0],
        "anterior_y_px": disc.anterior_px[1],
        "rotation_deg": disc.rotation_deg,
    }


# ---- rows to a report


def report_of(rows: Sequence[Mapping[str, Any]]) -> StudyReport | None:
    """Return the report of one study's rows; None for a file that belongs to no study."""
    first = rows[0]
    if first.get("study_instance_uid") is None:
        return None
    day: date | None = first.get("study_date")
    if first["row"] == "not-scored":
        regions = {region: _unscored(region, "rejected", first["code"]) for region in REGIONS}
        total = TotalReport(None, (0, 72), "incomplete", ())
    else:
        regions = {region: _region(region, [row for row in rows if row.get("region") == region]) for region in REGIONS}
        corners = [corner for region in regions.values() for disc in region.discs for corner in disc.corners]
        imputed = tuple(corner.site for corner in corners if corner.imputed is not None)
        span = (first["low"], first["high"])
        total = TotalReport(first.get("total"), span, first["status"], imputed, _expected(first))
    return StudyReport(
        study=StudyInfo(first["study_instance_uid"], f"{day:%Y%m%d}" if day else None, first.get("patient_key")),
        bundle=_bundle(first),
        device=DeviceInfo("archive", "", "", ""),
        regions=regions,
        total=total,
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
    )


def _bundle(row: Mapping[str, Any]) -> BundleInfo:
    name, version, sha256 = (str(row.get(f"bundle_{part}") or "") for part in ("name", "version", "sha256"))
    return BundleInfo(name, version, sha256, _USE, row.get("localizer"), row.get("smallest_detectable_change"))


def _region(region: Region, rows: Sequence[Mapping[str, Any]]) -> RegionReport:
    head, *corners = rows
    if head["status"] != "scored":
        return _unscored(region, head["status"], head.get("code"))
    scored = score_region(region, [row.get("grade") for row in corners])
    pairs = zip(LEVELS[region], zip(corners[::2], corners[1::2], strict=True), scored.discs, strict=True)
    discs = tuple(_disc(level, pair, disc.total, disc.range) for level, pair, disc in pairs)
    total = (head.get("total"), (head["low"], head["high"]), head["missing"], _expected(head))
    return RegionReport("scored", None, _radiograph(head), discs, *total)


def _unscored(region: Region, status: Any, code: str | None) -> RegionReport:
    reject = None if code is None else RejectInfo(code, CODES[code].meaning if code in CODES else code)
    empty = score_region(region, [None] * len(SITES[region]))
    return RegionReport(status, reject, None, (), None, empty.range, empty.missing)


def _radiograph(row: Mapping[str, Any]) -> RadiographInfo | None:
    if row.get("image_rows") is None:
        return None
    spacing = (row.get("row_spacing_mm"), row.get("column_spacing_mm"))
    spacing_mm = None if None in spacing else cast("tuple[float, float]", spacing)
    size = (row["image_rows"], row["image_columns"])
    return RadiographInfo(None, *size, spacing_mm, row.get("facing"), "", turn_deg=row.get("turn_deg") or 0)


def _disc(level: str, pair: Sequence[Mapping[str, Any]], total: float | None, span: tuple[int, int]) -> DiscReport:
    first, (upper, lower) = pair[0], map(_corner, pair)
    centre, anterior = ((first[f"{name}_x_px"], first[f"{name}_y_px"]) for name in ("centre", "anterior"))
    about = (level, centre, anterior, first["confidence"], first["rotation_deg"])
    return DiscReport(*about, (upper, lower), None if total is None else round(total, 3), span, "found")


def _corner(row: Mapping[str, Any]) -> CornerReport:
    probabilities = None if row.get("p0") is None else tuple(row[name] for name in _PROBABILITIES)
    return CornerReport(row["site"], row.get("grade"), probabilities, row["status"], row.get("imputed"))


def _expected(row: Mapping[str, Any]) -> Expected | None:
    if row.get("expected_mean") is None:
        return None
    return Expected(row["expected_mean"], row["expected_sd"], (row["expected_low"], row["expected_high"]))
