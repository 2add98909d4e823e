"""The DICOM structured report: Comprehensive 3D SR by TID 1500, Measurement Report (PS3.16 Annex A).

The document says which software, bundle and device made it, that it is not a medical device, which radiographs it is
of, and what was found, in the measurement groups of `groups` with the codes of `codes`. It is complete, preliminary
and unverified: no person has looked at it.
"""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import OutputError
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.common import MANUFACTURER, NOTICE, contributing, equipment, finished, highdicom
from spinescore.runtime.outputs.groups import concept, measurement_groups
from spinescore.runtime.outputs.source import check_references, radiograph_of, source_of
from spinescore.runtime.outputs.uids import content_name, software_version, stable_uid
from spinescore.runtime.report import StudyReport
from spinescore.runtime.study import Region, Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["structured_report"]

_SERIES_NUMBER = 9101


def structured_report(
    study: Study, report: StudyReport, bundle: Bundle, created: datetime | None = None
) -> list[Dataset]:
    """The structured report of one study, as a list of one dataset that is ready to be written.

    It goes into the radiographs' study as a series of its own, and refers to them. `created` is now where it is None.
    Raises OutputError where no radiograph has a DICOM header to refer to, or where highdicom is missing.
    """
    hd = highdicom()
    check_references(report)
    with caught_warnings():  # of values that the source's header has
        sources = _sources(study, report)
        evidence = list({ds.SOPInstanceUID: ds for ds in sources.values()}.values()) or [_any_source(study)]
        name = content_name(report)
        document = hd.sr.Comprehensive3DSR(
            evidence=evidence,
            content=_content(report, bundle, sources, evidence)[0],
            series_instance_uid=stable_uid("sr", "series", name),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=stable_uid("sr", "instance", name),
            instance_number=1,
            is_complete=True,
            series_description="mSASSS (not a medical device)",
            contributing_equipment=contributing(report),
            coding_schemes=[_coding_scheme()],
            specific_character_set=None,  # `finished` sets it
            **equipment(report),
        )
        return [finished(document, evidence[0], created)]


def _sources(study: Study, report: StudyReport) -> dict[Region, Dataset]:
    """The radiographs that the regions' reports speak of."""
    sources = {}
    for name, region in report.regions.items():
        radiograph = radiograph_of(region, study)
        if radiograph is not None and region.radiograph is not None:
            sources[name] = source_of(radiograph, region.radiograph)
    return sources


def _any_source(study: Study) -> Dataset:
    if not study.radiographs:
        raise OutputError(
            "the study holds no radiograph that a structured report could refer to; give its DICOM files, or choose "
            "another format"
        )
    return source_of(study.radiographs[0])


def _coding_scheme() -> Any:
    return import_module("highdicom.coding_schemes").CodingSchemeIdentificationItem(
        designator=codes.PRIVATE_SCHEME,
        name="spinescore's codes for the mSASSS",
        version=software_version(),
        responsible_organization=MANUFACTURER,
    )


def _content(report: StudyReport, bundle: Bundle, sources: dict[Region, Dataset], evidence: list[Dataset]) -> Any:
    sr = highdicom().sr
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
        imaging_measurements=measurement_groups(report, sources, _algorithm(report, bundle)),
        referenced_images=[ds for ds in evidence if "ImagerPixelSpacing" in ds and ds.PatientOrientation] or None,
    )
    note = f"{NOTICE} {report.bundle.intended_use}".strip()
    comment = sr.TextContentItem(concept(("121106", "DCM", "Comment")), note, "CONTAINS")
    content[0].ContentSequence.append(comment)
    return content


def _algorithm(report: StudyReport, bundle: Bundle) -> Any:
    """TID 4019. The bundle is the algorithm; the parameters say which one, what ran it and how it decides."""
    device, grader = report.device, bundle.manifest.grader
    return highdicom().sr.AlgorithmIdentification(
        name=report.bundle.name,
        version=report.bundle.version,
        parameters=[
            f"bundle_sha256={report.bundle.sha256}",
            *([f"localizer={report.bundle.localizer}"] if report.bundle.localizer else []),
            f"software=spinescore {software_version()}",
            f"device={device.kind} {device.name}",
            f"engine={device.engine} {device.precision}",
            f"bridge_threshold={grader.bridge_threshold:g}",
            f"abstain_below={grader.abstain_below:g}",
        ],
    )
