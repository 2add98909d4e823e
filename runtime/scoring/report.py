"""What a study's scoring gives, as frozen dataclasses, to JSON and back (`spinescore.report/1`).

The published JSON Schema stands beside this file (`report.schema.json`). Fields may be added, never changed; reading
ignores fields that this version does not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from spinescore.runtime.documents import read
from spinescore.runtime.fields import CHECKED, Length, Within, shown
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.scoring.budget import Skippable
from spinescore.runtime.scoring.expected import Expected, Score, Span
from spinescore.runtime.scoring.grading import CornerStatus
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.study import LEVELS, Facing, Finding, Region, Turn, sites_of

__all__ = [
    "SCHEMA",
    "BundleInfo",
    "BundleRules",
    "CornerReport",
    "DeviceInfo",
    "DiscReport",
    "PointsOrigin",
    "RadiographInfo",
    "RegionReport",
    "RejectInfo",
    "StudyInfo",
    "StudyReport",
    "TimingsMs",
    "TotalReport",
    "UntrustedPoints",
    "report_schema",
]

SCHEMA = "spinescore.report/1"

RegionStatus = Literal["scored", "rejected", "missing"]
PointsOrigin = Literal["given", "found"]

_ROUNDING = 0.02  # of a total whose imputed grades have three decimals each
_Text = Annotated[str, Length(0, math.inf)]


@dataclass(frozen=True, repr=False)
class StudyInfo:
    """Which study it is; its `repr` does not say that."""

    study_instance_uid: _Text | None
    study_date: _Text | None  # YYYYMMDD
    patient_key: _Text | None  # keyed hash, never the patient's ID

    def __repr__(self) -> str:
        stated = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"<StudyInfo: {', '.join(stated) or 'nothing'} stated>"


@dataclass(frozen=True)
class BundleRules:
    """The rules of a bundle that its results show, as its manifest states them.

    A crop is a square of `crop_px` pixels whose side is `crop_extent` times the unit; the anterior end of the disc lies
    on its side `crop_anterior`.
    """

    bridge_threshold: float
    abstain_below: float
    min_confidence: float
    crop_unit: Literal["anterior-distance", "disc-spacing"]
    crop_extent: float
    crop_anterior: Facing
    crop_px: int


@dataclass(frozen=True)
class BundleInfo:
    """`sha256` is of the canonical manifest without engines; `localizer` an alternative that was used, by its name.

    `rules` is None in older reports; results of these show no crops.
    """

    name: _Text
    version: _Text
    sha256: _Text
    intended_use: _Text
    localizer: _Text | None = None
    smallest_detectable_change: float | None = None  # of the total, in units, if the bundle states it
    rules: BundleRules | None = None


@dataclass(frozen=True)
class DeviceInfo:
    kind: str
    name: str
    engine: str
    precision: str


@dataclass(frozen=True)
class RejectInfo:
    """`code` is one of `codes.CODES`; `source` names the file and `region` the region where there is one."""

    code: _Text
    message: str
    source: str | None = None
    region: Region | None = None


@dataclass(frozen=True)
class RadiographInfo:
    sop_instance_uid: str | None = field(repr=False)
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None  # between rows, between columns
    facing: Facing | None
    decoder: str
    source: str = field(default="", repr=False)
    turn_deg: Turn = 0  # clockwise, that brings the stored picture upright; `facing` is that of the upright picture
    pixels_digest: str | None = field(default=None, repr=False)  # of `pixelidentity`; None in older reports


@dataclass(frozen=True)
class CornerReport:
    """One site. `grade` is None unless `status` is scored; `imputed` is what a missing corner counts in the total."""

    site: _Text
    grade: Annotated[int, Within(0, MAX_GRADE)] | None
    probabilities: Annotated[tuple[Score, ...], Length(MAX_GRADE + 1, MAX_GRADE + 1)] | None  # p0 .. p3
    status: Annotated[CornerStatus, CHECKED]
    imputed: Score | None = None


@dataclass(frozen=True)
class DiscReport:
    """One disc. Points are x, y in source pixels.

    `confidence` is the smaller peak of its two heatmaps, within [0, 1]. `rotation_deg` is the angle of the line from
    centre to anterior point against the horizontal, positive where the anterior end lies lower in the upright image; it
    is the same for a radiograph and its mirror image. `total` and `range` are those of its two corners. `points` says
    whether a reader gave the two points or the localizer found them. These three are None in older reports.
    """

    level: _Text
    centre_px: tuple[float, float]
    anterior_px: tuple[float, float]
    confidence: Score
    rotation_deg: float
    corners: tuple[CornerReport, CornerReport]
    total: Score | None = None
    range: tuple[int, int] | None = None
    points: PointsOrigin | None = None


@dataclass(frozen=True)
class UntrustedPoints:
    """The points of one disc of a region that was rejected, to see why. They are not to be trusted, nor measured."""

    level: _Text
    centre_px: tuple[float, float]
    anterior_px: tuple[float, float]
    confidence: float
    points: PointsOrigin


@dataclass(frozen=True)
class RegionReport:
    """One region. `discs` is empty unless `status` is scored; `range` is what the total can be.

    `expected` is what the probabilities expect the total to be; None unless `status` is scored. `untrusted_points` are
    the points that a rejected region had, as far as there were any.
    """

    status: Annotated[RegionStatus, CHECKED]
    reject: RejectInfo | None
    radiograph: RadiographInfo | None
    discs: tuple[DiscReport, ...]
    total: Score | None
    range: Span
    missing: Annotated[int, Within(0, 12)]
    expected: Expected | None = None
    untrusted_points: tuple[UntrustedPoints, ...] = ()


@dataclass(frozen=True)
class TotalReport:
    """The study's total. `expected` is there where both regions were scored."""

    value: Score | None
    range: Span
    status: Annotated[Literal["complete", "imputed", "incomplete"], CHECKED]
    imputed_sites: tuple[_Text, ...]
    expected: Expected | None = None


@dataclass(frozen=True)
class TimingsMs:
    """Milliseconds; a stage that was not measured is None. `total` is from files (or arrays) to report."""

    read: float | None
    localize: float | None
    crop: float | None
    grade: float | None
    total: float | None


@dataclass(frozen=True, repr=False)
class StudyReport:
    """The result of one study.

    As DICOM objects, a page or files it is given, with the study, by `structured_report`, `secondary_captures`,
    `presentation_states`, `html` and `write_results` of `spinescore.runtime`. The same input, bundle and device give
    the same report, `timings_ms` aside, where the same was `skipped`. Its `repr` names no study, patient or file.
    """

    study: StudyInfo
    bundle: BundleInfo
    device: DeviceInfo
    regions: Mapping[Region, RegionReport]
    total: TotalReport
    timings_ms: TimingsMs
    budget_ms: float | None
    within_budget: bool | None
    warnings: tuple[str, ...]  # the sentences of `notices`, each once
    rejects: tuple[RejectInfo, ...] = ()  # every reject once: of files, of radiographs, of regions
    findings: tuple[Finding, ...] = ()  # all that was seen of the radiographs' quality, rejects among it
    skipped: tuple[Skippable, ...] = ()  # what there was no time for, or a plan leaves out
    schema: str = SCHEMA
    notices: tuple[Finding, ...] = ()  # every warning with code, region, source and values; none in older reports
    software_version: str | None = None  # of spinescore; None in older reports

    def __repr__(self) -> str:
        found = [
            f"{name} {region.status}" + ("" if region.total is None else f" {region.total:g}")
            for name, region in self.regions.items()
        ]
        total = "none" if self.total.value is None else f"{self.total.value:g}"
        return f"<StudyReport: {', '.join(found)}; mSASSS {total} ({self.total.status}); bundle {self.bundle.name}>"

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        return {"schema": document.pop("schema"), **document}

    def to_json(self, indent: int | None = 2) -> str:
        """The report as JSON text (one line where `indent` is None); equal reports give equal text.

        What is no text (names of files may hold lone surrogates) becomes a question mark, so that it can be written.
        """
        text = json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")

    @classmethod
    def from_json(cls, text: str | bytes) -> StudyReport:
        """Read what `to_json` wrote. Raises `ValueError` where the text is no such report."""
        try:
            document = parse_json(text)
        except ValueError as error:
            raise ValueError(f"this is no report of the schema {SCHEMA}: {error}") from None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(
                f"this is no report of the schema {SCHEMA}; write it again with this version of spinescore"
            )
        try:
            return read(cls, document, later_versions=True)
        except ValueError as error:
            raise ValueError(f"the report is damaged: {error}; score the study again") from None

    def _check_fields(self, path: str) -> None:
        """Check that levels, sites and grades belong together, and that the totals are those of the grades."""
        for name, region in self.regions.items():
            _check_region(f"regions.{name}", LEVELS[name], region)
        totals = [region.total for region in self.regions.values()]
        if self.total.value is not None and None in totals:
            raise ValueError(f"total.value: it is {self.total.value:g}, but a region has no total")
        _check_sum("total.value", self.total.value, totals, "the regions' totals")


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
    """Check a total whose parts are all stated; in older reports imputed grades are not."""
    stated = [part for part in parts if part is not None]
    if total is not None and len(stated) == len(parts) and abs(total - sum(stated)) > _ROUNDING:
        raise ValueError(f"{name}: it is {total:g}, but {of} add up to {sum(stated):g}")


def report_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of reports."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
    return schema
