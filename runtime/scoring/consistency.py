"""Check that the parts of a report that was read fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spinescore.runtime.fields import shown
from spinescore.runtime.study import LEVELS, sites_of

if TYPE_CHECKING:
    from spinescore.runtime.scoring.report import DiscReport, RegionReport, StudyReport

__all__ = ["check_consistency"]

_ROUNDING = 0.02  # of a total; its imputed grades have three decimals each


def check_consistency(report: StudyReport) -> None:
    """Raise `ValueError` if levels, sites and grades do not fit each other, or a total is not that of the grades."""
    for name, region in report.regions.items():
        _check_region(f"regions.{name}", LEVELS[name], region)
    totals = [region.total for region in report.regions.values()]
    if report.total.value is not None and None in totals:
        raise ValueError(f"total.value: it is {report.total.value:g}, but a region has no total")
    _check_sum("total.value", report.total.value, totals, "the regions' totals")


def _check_region(place: str, levels: tuple[str, ...], region: RegionReport) -> None:
    present = tuple(disc.level for disc in region.discs)
    if present != (levels if region.status == "scored" else ()):
        raise ValueError(f"{place}.discs: the region is {region.status}, but its levels are {shown(present)}")
    for number, disc in enumerate(region.discs):
        for side, site in enumerate(sites_of(disc.level)):
            corner, path = disc.corners[side], f"{place}.discs[{number}].corners[{side}]"
            if corner.site != site:
                raise ValueError(f"{path}.site: expected {site}, found {shown(corner.site)}")
            if (corner.grade is None) != (corner.status != "scored"):
                raise ValueError(f"{path}.grade: {site} is {corner.status}, but its grade is {corner.grade}")
        _check_sum(f"{place}.discs[{number}].total", disc.total, _counts(disc), "the grades")
    if region.total is not None and not region.discs:
        raise ValueError(f"{place}.total: it is {region.total:g}, but the region is {region.status}")
    counts = [count for disc in region.discs for count in _counts(disc)]
    _check_sum(f"{place}.total", region.total, counts, "the grades")


def _counts(disc: DiscReport) -> list[float | None]:
    return [corner.imputed if corner.grade is None else corner.grade for corner in disc.corners]


def _check_sum(name: str, total: float | None, parts: Sequence[float | None], of: str) -> None:
    """Check a total if all its parts are stated; in older reports imputed grades are not."""
    stated = [part for part in parts if part is not None]
    if total is not None and len(stated) == len(parts) and abs(total - sum(stated)) > _ROUNDING:
        raise ValueError(f"{name}: it is {total:g}, but {of} add up to {sum(stated):g}")
