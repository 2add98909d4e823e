"""The report of a study as frozen dataclasses, to JSON and back (`spinescore.report/1`).

The published JSON Schema lies beside this file (`report.schema.json`). Fields may be added, never changed; reading
ignores fields that this version does not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from spinescore.runtime.arguments import check_whole, shown
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.fields import CHECKED, Length, Within
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.scoring.applied import AppliedCorrection
from spinescore.runtime.scoring.budget import Skippable
from spinescore.runtime.scoring.consistency import check_consistency
from spinescore.runtime.scoring.expected import Expected, Score, Span
from spinescore.runtime.scoring.grading import CornerStatus, MissingBecause
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.study import Facing, Finding, Region, Turn

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
PointsOrigin = Annotated[Literal["given", "found"], CHECKED]

_Text = Annotated[str, Length(0, math.inf)]
_Share = Annotated[float, Within(0.0, 1.0)]
_Place = Annotated[float, Within(-1e9, 1e9)]
_Point = tuple[_Place, _Place]  # x, y
_Pixels = Annotated[int, Within(1, 1 << 31)]


@dataclass(frozen=True, repr=False)
class StudyInfo:
    """The identity of the study, which its `repr` does not show. Empty text becomes None."""

    study_instance_uid: _Text | None
    study_date: _Text | None  # YYYYMMDD
    patient_key: _Text | None  # keyed hash, never the patient's ID

    def __post_init__(self) -> None:
        for one in fields(self):  # a header may state empty text, which identifies nothing
            if getattr(self, one.name) == "":
                object.__setattr__(self, one.name, None)

    def __repr__(self) -> str:
        stated = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"<StudyInfo: {', '.join(stated) or 'nothing'} stated>"


@dataclass(frozen=True)
class BundleRules:
    """The rules of a bundle that its results show, from its manifest.

    A crop is a square of `crop_px` pixels; its side is `crop_extent` times the unit. The anterior end of the disc lies
    on the crop's side `crop_anterior`.
    """

    bridge_threshold: float
    abstain_below: float
    min_confidence: float
    crop_unit: Annotated[Literal["anterior-distance", "disc-spacing"], CHECKED]
    crop_extent: float
    crop_anterior: Annotated[Facing, CHECKED]
    crop_px: _Pixels


@dataclass(frozen=True)
class BundleInfo:
    """The identity and the rules of the bundle.

    `sha256` is of the canonical manifest without engines. `localizer` names the alternative that was used, if any.
    `rules` is None in older reports, and their results show no crops.
    """

    name: _Text
    version: _Text
    sha256: _Text
    intended_use: _Text
    localizer: _Text | None = None
    smallest_detectable_change: float | None = None  # of the total, in mSASSS units, if the bundle states it
    rules: BundleRules | None = None


@dataclass(frozen=True)
class DeviceInfo:
    """The device, and the engine with its version that ran the networks."""

    kind: str
    name: str
    engine: str
    precision: str


@dataclass(frozen=True)
class RejectInfo:
    """The reason of a reject. `code` is one of `codes.CODES`; `source` names the file, if there is one."""

    code: _Text
    message: str
    source: str | None = None
    region: Region | None = None


@dataclass(frozen=True)
class RadiographInfo:
    """The radiograph of a region. `facing` is that of the upright picture."""

    sop_instance_uid: str | None = field(repr=False)
    rows: _Pixels
    columns: _Pixels
    pixel_spacing_mm: tuple[float, float] | None  # between rows, between columns
    facing: Annotated[Facing, CHECKED] | None
    decoder: str
    source: str = field(default="", repr=False)
    turn_deg: Annotated[Turn, CHECKED] = 0  # clockwise; it brings the stored picture upright
    pixels_digest: str | None = field(default=None, repr=False)  # by `pixelidentity`; None in older reports


@dataclass(frozen=True)
class CornerReport:
    """One site. `grade` is None unless `status` is scored; `imputed` is the value of a missing corner in the total.

    `probabilities` are the network's, also if a reader set the grade or said that the corner cannot be read; then
    `grade_from` is reader. `missing_because` says why a corner has no grade, also if it is imputed. The last two are
    None in older reports.
    """

    site: _Text
    grade: Annotated[int, Within(0, MAX_GRADE)] | None
    probabilities: Annotated[tuple[_Share, ...], Length(MAX_GRADE + 1, MAX_GRADE + 1)] | None  # p0 .. p3
    status: Annotated[CornerStatus, CHECKED]
    imputed: Score | None = None
    grade_from: Annotated[Literal["network", "reader"], CHECKED] | None = None
    missing_because: Annotated[MissingBecause, CHECKED] | None = None


@dataclass(frozen=True)
class DiscReport:
    """One disc. Points are x, y in source pixels.

    `confidence` is the smaller peak of its two heatmaps, within [0, 1]. `rotation_deg` is the angle of the line from
    centre to anterior point against the horizontal; it is positive if the anterior end lies lower in the upright image,
    and the same for a radiograph and its mirror image. `total` and `range` are those of its two corners. `points` says
    whether a reader gave the two points or the localizer found them. These three are None in older reports.
    """

    level: _Text
    centre_px: _Point
    anterior_px: _Point
    confidence: _Share
    rotation_deg: Annotated[float, Within(-180.0, 180.0)]
    corners: tuple[CornerReport, CornerReport]
    total: Score | None = None
    range: Span | None = None
    points: PointsOrigin | None = None


@dataclass(frozen=True)
class UntrustedPoints:
    """The points of one disc of a rejected region, to see the reason of the reject. Do not measure with them."""

    level: _Text
    centre_px: _Point
    anterior_px: _Point
    confidence: _Share
    points: PointsOrigin


@dataclass(frozen=True)
class RegionReport:
    """One region. `range` has the least and the greatest possible total.

    `discs` is empty and `expected`, the expected total by the probabilities, is None unless `status` is scored.
    `untrusted_points` are the points of a rejected region, if it had any.
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
    """The study's total. `expected` is None unless both regions were scored."""

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

    `structured_report`, `secondary_captures`, `presentation_states`, `html` and `write_results` of `spinescore.runtime`
    turn the report and its study into DICOM objects, a page and files. The same input, bundle and device give the same
    report, except for `timings_ms`, if the same steps were `skipped`. Its `repr` names no study, patient or file.
    """

    study: StudyInfo
    bundle: BundleInfo
    device: DeviceInfo
    regions: Mapping[Region, RegionReport]
    total: TotalReport
    timings_ms: TimingsMs
    budget_ms: float | None
    within_budget: Annotated[bool, CHECKED] | None
    warnings: tuple[str, ...]  # the sentences of `notices`, each once
    rejects: tuple[RejectInfo, ...] = ()  # each once: of files, radiographs and regions
    findings: tuple[Finding, ...] = ()  # on the radiographs' quality, rejects included
    skipped: tuple[Skippable, ...] = ()  # steps for which there was no time, or which a plan leaves out
    schema: str = SCHEMA
    notices: tuple[Finding, ...] = ()  # every warning with code, region, source and values; none in older reports
    software_version: str | None = None  # of spinescore; None in older reports
    max_imputed_per_region: Annotated[int, Within(0, 12)] | None = None  # of the scorer; None in older reports
    corrections: tuple[AppliedCorrection, ...] = ()  # by readers, in the order in which they were applied

    def __repr__(self) -> str:
        regions = ", ".join(
            f"{name} {region.status}" + ("" if region.total is None else f" {region.total:g}")
            for name, region in self.regions.items()
        )
        total = "none" if self.total.value is None else f"{self.total.value:g}"
        status = f"{self.total.status}, corrected by a reader" if self.corrections else self.total.status
        return f"<StudyReport: {regions}; mSASSS {total} ({status}); bundle {self.bundle.name}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a document of plain dictionaries, its `schema` first."""
        document = asdict(self) | {"corrections": document_of(self.corrections)}
        return {"schema": document.pop("schema"), **document}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON text, on one line if `indent` is None. Equal reports give equal text.

        Lone surrogates, which names of files may hold, become question marks, so that the text can be written.
        Raises `TypeError` if `indent` is neither a whole number nor None, `ValueError` if it is below 0.
        """
        if indent is not None:
            check_whole("indent", indent, 0)
        text = json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")

    @classmethod
    def from_json(cls, text: str | bytes) -> StudyReport:
        """Return the report that `to_json` wrote. Raises `TypeError` for no text, `ValueError` for no valid report."""
        if not isinstance(text, (str, bytes)):
            raise TypeError(
                f"text must be the JSON text of a report, got {shown(text)}; call from_json(report.to_json())"
            )
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
        check_consistency(self)


def report_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of reports."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
    return schema
