"""Results as text for a terminal (ASCII, so that every console shows them)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.output import table
from spinescore.runtime.report import CornerReport, RegionReport, StudyReport

__all__ = ["bundle_summary", "study_summary"]

_REGION_MAX = 36
_STUDY_MAX = 72


def study_summary(report: StudyReport, truth: Mapping[str, int] | None = None) -> str:
    """The 24 sites with their grades, the totals, and what was rejected. `truth`: site -> grade, shown beside."""
    rows = [_row(corner, truth) for corner in _corners(report)]
    parts = []
    if rows:
        header = ["site", "grade", *(["truth"] if truth is not None else []), "probability", "status"]
        parts.append(table(rows, header))
    parts.append("\n".join(_totals(report, truth)))
    parts.append(f"Bundle {report.bundle.name} {report.bundle.version}: {report.bundle.intended_use}")
    return "\n\n".join(parts)


def _corners(report: StudyReport) -> Iterator[CornerReport]:
    for region in report.regions.values():
        for disc in region.discs:
            yield from disc.corners


def _row(corner: CornerReport, truth: Mapping[str, int] | None) -> list[object]:
    grade: object = "-" if corner.grade is None else corner.grade
    if corner.grade is None or corner.probabilities is None:
        probability = ""
    else:
        probability = f"{corner.probabilities[corner.grade]:.2f}"
    known = [] if truth is None else [truth.get(corner.site, "-")]
    return [corner.site, grade, *known, probability, corner.status]


def _totals(report: StudyReport, truth: Mapping[str, int] | None) -> Iterator[str]:
    for name, region in report.regions.items():
        yield f"{name:<9} {_region(region)}"
    total = report.total
    known = "" if truth is None else f" (truth {sum(truth.values())})"
    yield f"{'mSASSS':<9} {_amount(total.value, total.range, _STUDY_MAX)}{known}"
    if total.imputed_sites:
        yield f"{'':<9} with the region's mean for {', '.join(total.imputed_sites)}"
    if truth is not None:
        pairs = [(corner.grade, truth[corner.site]) for corner in _corners(report) if corner.site in truth]
        yield f"{'':<9} {sum(grade == true for grade, true in pairs)} of {len(truth)} corners agree with the truth"
    if report.within_budget is not None:
        kept = "kept" if report.within_budget else "not kept"
        yield f"{'time':<9} {report.timings_ms.total or 0:.0f} ms, budget {report.budget_ms:g} ms {kept}"
    elif report.timings_ms.total is not None:
        yield f"{'time':<9} {report.timings_ms.total:.0f} ms"


def _region(region: RegionReport) -> str:
    if region.status == "scored":
        return _amount(region.total, region.range, _REGION_MAX)
    if region.reject is not None:
        return f"rejected ({region.reject.code}): {region.reject.message}"
    return "missing: the study holds no radiograph of it"


def _amount(value: float | None, bounds: tuple[int, int], most: int) -> str:
    if value is None:
        return f"no total; between {bounds[0]} and {bounds[1]} of {most}"
    return f"{value:g} of {most}" if bounds[0] == bounds[1] else f"{value:.1f} of {most}, range {bounds[0]}-{bounds[1]}"


def bundle_summary(bundle: Bundle) -> str:
    """What a bundle is and what it holds."""
    manifest = bundle.manifest
    facts: list[tuple[str, Any]] = [
        ("name", f"{manifest.name} {manifest.version}"),
        ("intended use", manifest.intended_use),
        ("folder", bundle.folder),
        ("sha256", bundle.sha256),
        ("localizer", _input(manifest.localizer.input) + f", {manifest.localizer.passes} pass(es), "
         f"decode {manifest.localizer.decode}, align {manifest.localizer.align}"),
        ("grader", _input(manifest.grader.input) + f", head {manifest.grader.head}, "
         f"crop {manifest.grader.crop.extent:g} x {manifest.grader.crop.unit}"),
    ]  # fmt: skip
    lines = "\n".join(f"{name:<13} {value}" for name, value in facts)
    files = [[path, entry.precision or "-", entry.bytes, entry.sha256[:16]] for path, entry in manifest.files.items()]
    return f"{lines}\n\n{table(files, ['file', 'precision', 'bytes', 'sha256'])}"


def _input(network: Any) -> str:
    return f"{network.height}x{network.width}x{network.channels}"
