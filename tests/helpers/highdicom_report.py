"""The structured report as highdicom builds it: what the package's own must equal, element by element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset

from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.dicomobjects import MANUFACTURER, contributing, equipment, finished
from spinescore.runtime.outputs.groups import HALF_PIXEL
from spinescore.runtime.outputs.source import check_references, radiograph_of, source_of
from spinescore.runtime.outputs.uids import content_name, stable_uid
from spinescore.runtime.outputs.words import NOTICE
from spinescore.runtime.scoring.expected import Expected
from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport, StudyReport
from spinescore.runtime.study import Region, Study
from spinescore.runtime.warned import caught_warnings


def highdicom_report(study: Study, report: StudyReport, created: datetime) -> Dataset:
    """As `structured_report`, with the thresholds of the report."""
    check_references(report)
    with caught_warnings():  # of values that the source's header has
        sources = _sources(study, report)
        evidence = list({ds.SOPInstanceUID: ds for ds in sources.values()}.values()) or [
            source_of(study.radiographs[0])
        ]
        name = content_name(report)
        document = sr.Comprehensive3DSR(
            evidence=evidence,
            content=_content(report, sources, evidence)[0],
            series_instance_uid=stable_uid("sr", "series", name),
            series_number=9101,
            sop_instance_uid=stable_uid("sr", "instance", name),
            instance_number=1,
            is_complete=True,
            series_description="mSASSS (not a medical device)",
            contributing_equipment=contributing(report),
            coding_schemes=[_coding_scheme()],
            specific_character_set=None,  # `finished` sets it
            **equipment(report),
        )
        return finished(document, evidence[0], created)


def _sources(study: Study, report: StudyReport) -> dict[Region, Dataset]:
    """The radiographs that the regions' reports speak of."""
    sources = {}
    for name, region in report.regions.items():
        radiograph = radiograph_of(region, study)
        if radiograph is not None and region.radiograph is not None:
            sources[name] = source_of(radiograph, region.radiograph)
    return sources


def _coding_scheme() -> Any:
    return CodingSchemeIdentificationItem(
        designator=codes.PRIVATE_SCHEME,
        name="spinescore's codes for the mSASSS",
        version=software_version(),
        responsible_organization=MANUFACTURER,
    )


def _content(report: StudyReport, sources: dict[Region, Dataset], evidence: list[Dataset]) -> Any:
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=stable_uid("device", report.bundle.sha256, software_version()),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=report.bundle.name,
        serial_number=report.bundle.sha256,
    )
    device = sr.ObserverContext(concept(("121007", "DCM", "Device")), observer)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=concept(("168537006", "SCT", "Plain radiography")),
        imaging_measurements=measurement_groups(report, sources, _algorithm(report)),
        referenced_images=[ds for ds in evidence if "ImagerPixelSpacing" in ds and ds.PatientOrientation] or None,
    )
    note = f"{NOTICE} {report.bundle.intended_use}".strip()
    comment = sr.TextContentItem(concept(("121106", "DCM", "Comment")), note, "CONTAINS")
    content[0].ContentSequence.append(comment)
    return content


def _algorithm(report: StudyReport) -> Any:
    """TID 4019. The bundle is the algorithm; the parameters say which one, what ran it and how it decides."""
    device, rules = report.device, report.bundle.rules
    return sr.AlgorithmIdentification(
        name=report.bundle.name,
        version=report.bundle.version,
        parameters=[
            f"bundle_sha256={report.bundle.sha256}",
            *([f"localizer={report.bundle.localizer}"] if report.bundle.localizer else []),
            f"software=spinescore {software_version()}",
            f"device={device.kind} {device.name}",
            f"engine={device.engine} {device.precision}",
            f"bridge_threshold={rules.bridge_threshold:g}",
            f"abstain_below={rules.abstain_below:g}",
        ],
    )


_FAILURE: codes.Triple = ("114006", "DCM", "Measurement failure")
_MODIFIER: codes.Triple = ("106233006", "SCT", "Topographical modifier")
_COUNT: codes.Triple = ("1", "UCUM", "no units")
_DEGREES: codes.Triple = ("deg", "UCUM", "degree")
_FRACTION = codes.scale(1)

_REGION_SCALE, _STUDY_SCALE, _DISC_SCALE, _CORNER_SCALE = (codes.scale(most) for most in (36, 72, 6, 3))


def concept(triple: codes.Triple) -> Any:
    value, scheme, meaning = triple
    return sr.CodedConcept(value, scheme, meaning)


def measurement_groups(report: StudyReport, sources: Mapping[Region, Dataset], algorithm: Any) -> list[Any]:
    """All groups of one report: the study's, then region by region its own, its discs' and their corners'.

    `sources` are the datasets of the radiographs that were scored. Raises OutputError where one is not there.
    """
    made = _Groups(algorithm, report.study.study_instance_uid or "")
    groups = [made.study(report)]
    for name, region in report.regions.items():
        groups.append(made.region(name, region))
        for disc in region.discs:
            groups.append(made.disc(disc, sources[name]))
            groups.extend(made.corner(corner, disc, sources[name]) for corner in disc.corners)
    return groups


class _Groups:
    """Makes the groups of one study; `algorithm` (TID 4019) stands in each."""

    def __init__(self, algorithm: Any, study_uid: str) -> None:
        self._algorithm = algorithm
        self._study_uid = study_uid

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
            "tracking_identifier": sr.TrackingIdentifier(stable_uid("tracking", self._study_uid, name), name),
            "finding_type": concept(codes.private(finding)) if finding is not None else None,
            "method": concept(codes.private("MSASSS")),
            "algorithm_id": self._algorithm,
            "finding_sites": sites,
            "measurements": numbers or None,
            "qualitative_evaluations": evaluations or None,
        }
        if source is None or not len(points_px):
            return sr.MeasurementsAndQualitativeEvaluations(**content)
        image = sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID)
        kind = "POINT" if len(points_px) == 1 else "POLYLINE"
        region = sr.ImageRegion(kind, np.array(points_px, np.float64) + HALF_PIXEL, image)
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **content)


def _number(name: str, value: float, unit: codes.Triple) -> Any:
    return sr.Measurement(concept(codes.private(name)), value, concept(unit))


def _evaluation(name: codes.Triple, value: codes.Triple) -> Any:
    return sr.QualitativeEvaluation(concept(name), concept(value))


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
    site = sr.FindingSite(concept(place), topographical_modifier=concept(modifiers[0]) if modifiers else None)
    for modifier in modifiers[1:]:
        site.ContentSequence.append(sr.CodeContentItem(concept(_MODIFIER), concept(modifier), "HAS CONCEPT MOD"))
    return site
