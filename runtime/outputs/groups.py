"""The structured report's measurement groups (TID 1501 and TID 1410): corners, discs, regions, the study.

A corner's group is a planar ROI at its disc's anterior point in the radiograph; a disc's is the line from its centre
to its anterior point. Coordinates are those of PS3.3 C.18.6.1.2, where 0.0\\0.0 is the outer corner of the first pixel
and not its centre: half a pixel more than the report's. A corner without a grade has a qualitative evaluation in the
grade's place and no number; an imputed or an unreadable one (114006, DCM, "Measurement failure") has no probabilities
either. What was not localized has no ROI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.errors import OutputError
from spinescore.runtime.expected import Expected
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.common import highdicom
from spinescore.runtime.outputs.uids import stable_uid
from spinescore.runtime.report import CornerReport, DiscReport, RegionReport, StudyReport
from spinescore.runtime.study import Region

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["HALF_PIXEL", "concept", "measurement_groups"]

HALF_PIXEL = 0.5  # from our coordinates, with integers at pixel centres, to those of DICOM

_FAILURE: codes.Triple = ("114006", "DCM", "Measurement failure")
_MODIFIER: codes.Triple = ("106233006", "SCT", "Topographical modifier")
_COUNT: codes.Triple = ("1", "UCUM", "no units")
_DEGREES: codes.Triple = ("deg", "UCUM", "degree")
_FRACTION = codes.scale(1)

_REGION_SCALE, _STUDY_SCALE, _DISC_SCALE, _CORNER_SCALE = (codes.scale(most) for most in (36, 72, 6, 3))


def concept(triple: codes.Triple) -> Any:
    value, scheme, meaning = triple
    return highdicom().sr.CodedConcept(value, scheme, meaning)


def measurement_groups(report: StudyReport, sources: Mapping[Region, Dataset], algorithm: Any) -> list[Any]:
    """All groups of one report: the study's, then region by region its own, its discs' and their corners'.

    `sources` are the datasets of the radiographs that were scored. Raises OutputError where one is not there.
    """
    made = _Groups(algorithm, report.study.study_instance_uid or "")
    groups = [made.study(report)]
    for name, region in report.regions.items():
        groups.append(made.region(name, region))
        if region.discs and name not in sources:
            raise OutputError(
                f"the radiograph of the {name} region is not in the study; give the study that the report was made of"
            )
        for disc in region.discs:
            groups.append(made.disc(disc, sources[name]))
            groups.extend(made.corner(corner, disc, sources[name]) for corner in disc.corners)
    return groups


class _Groups:
    """Makes the groups of one study; `algorithm` (TID 4019) stands in each."""

    def __init__(self, algorithm: Any, study_uid: str) -> None:
        self._algorithm = algorithm
        self._study_uid = study_uid
        self._sr = highdicom().sr

    def study(self, report: StudyReport) -> Any:
        total = report.total
        numbers = [_number("MSASSS", total.value, _STUDY_SCALE)] if total.value is not None else []
        numbers += _bounds(total.range, _STUDY_SCALE) + _expected(total.expected, _STUDY_SCALE)
        status = _evaluation(codes.private("TOTAL-STATUS"), codes.private(total.status.upper()))
        return self._group("mSASSS", [_site(codes.SPINE)], numbers, [status])

    def region(self, name: Region, region: RegionReport) -> Any:
        numbers = [_number("REGION-TOTAL", region.total, _REGION_SCALE)] if region.total is not None else []
        numbers += _bounds(region.range, _REGION_SCALE) + _expected(region.expected, _REGION_SCALE)
        numbers.append(_number("UNSCORED", region.missing, _COUNT))
        evaluations = [_evaluation(codes.private("REGION-STATUS"), codes.private(region.status.upper()))]
        if region.status == "scored":
            imputed = any(corner.status == "imputed" for disc in region.discs for corner in disc.corners)
            total = "INCOMPLETE" if region.total is None else "IMPUTED" if imputed else "COMPLETE"
            evaluations.append(_evaluation(codes.private("TOTAL-STATUS"), codes.private(total)))
        if region.reject is not None:
            evaluations.append(_evaluation(codes.private("REJECT"), codes.reject_code(region.reject.code)))
        return self._group(name, [_site(codes.REGION_SITES[name])], numbers, evaluations)

    def disc(self, disc: DiscReport, source: Dataset) -> Any:
        numbers = [
            _number("CONFIDENCE", disc.confidence, _FRACTION),
            _number("ROTATION", disc.rotation_deg, _DEGREES),
        ]
        if disc.total is not None:
            numbers.append(_number("DISC-TOTAL", disc.total, _DISC_SCALE))
        line = (disc.centre_px, disc.anterior_px) if disc.confidence > 0 else ()
        return self._group(disc.level, [_site(codes.DISCS[disc.level])], numbers, [], "DISC", line, source)

    def corner(self, corner: CornerReport, disc: DiscReport, source: Dataset) -> Any:
        numbers, evaluations = [], []
        if corner.grade is not None:
            numbers.append(_number("GRADE", corner.grade, _CORNER_SCALE))
        else:
            value = _FAILURE if corner.status == "unreadable" else codes.private(corner.status.upper())
            evaluations.append(_evaluation(codes.private("GRADE"), value))
        if corner.probabilities is not None and corner.status in ("scored", "abstained"):
            numbers += [_number(f"P{grade}", p, _FRACTION) for grade, p in enumerate(corner.probabilities)]
        vertebra, endplate = codes.corner_site(corner.site)
        site = _site(vertebra, endplate, codes.ANTERIOR)
        point = (disc.anterior_px,) if disc.confidence > 0 else ()
        return self._group(corner.site, [site], numbers, evaluations, "CORNER", point, source)

    def _group(
        self,
        name: str,
        sites: list[Any],
        numbers: list[Any],
        evaluations: list[Any],
        finding: str | None = None,
        points_px: Sequence[tuple[float, float]] = (),
        source: Dataset | None = None,
    ) -> Any:
        """A group, as a planar ROI where there are points. Its tracking UID is the same in each report of a study."""
        content = {
            "tracking_identifier": self._sr.TrackingIdentifier(stable_uid("tracking", self._study_uid, name), name),
            "finding_type": concept(codes.private(finding)) if finding is not None else None,
            "method": concept(codes.private("MSASSS")),
            "algorithm_id": self._algorithm,
            "finding_sites": sites,
            "measurements": numbers or None,
            "qualitative_evaluations": evaluations or None,
        }
        if source is None or not len(points_px):
            return self._sr.MeasurementsAndQualitativeEvaluations(**content)
        image = self._sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID)
        kind = "POINT" if len(points_px) == 1 else "POLYLINE"
        region = self._sr.ImageRegion(kind, np.array(points_px, np.float64) + HALF_PIXEL, image)
        return self._sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **content)


def _number(name: str, value: float, unit: codes.Triple) -> Any:
    return highdicom().sr.Measurement(concept(codes.private(name)), value, concept(unit))


def _evaluation(name: codes.Triple, value: codes.Triple) -> Any:
    return highdicom().sr.QualitativeEvaluation(concept(name), concept(value))


def _bounds(bounds: tuple[int, int], unit: codes.Triple) -> list[Any]:
    return [_number(name, bound, unit) for name, bound in zip(("LOWEST", "HIGHEST"), bounds, strict=True)]


def _expected(expected: Expected | None, unit: codes.Triple) -> list[Any]:
    if expected is None:
        return []
    low, high = expected.interval
    values = (("EXPECTED", expected.mean), ("EXPECTED-LOW", low), ("EXPECTED-HIGH", high))
    return [_number(name, value, unit) for name, value in values]


def _site(place: codes.Triple, *modifiers: codes.Triple) -> Any:
    """A finding site with topographical modifiers: highdicom takes one, a corner has two."""
    sr = highdicom().sr
    site = sr.FindingSite(concept(place), topographical_modifier=concept(modifiers[0]) if modifiers else None)
    for modifier in modifiers[1:]:
        site.ContentSequence.append(sr.CodeContentItem(concept(_MODIFIER), concept(modifier), "HAS CONCEPT MOD"))
    return site
