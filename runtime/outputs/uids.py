"""Stable UIDs: the same input, bundle and device give the same UIDs, on every machine and in every run.

A UID is `2.25.` and the decimal number of a name-based UUID (PS3.5 B.2; RFC 4122 version 5). The name is everything
that the report says about the spine, with the identity of bundle, device and software. Timings, dates, file names and
warnings are no part of it: a result that is made again is the same instance, which an archive may ignore. Any other
result has other UIDs: one that a reader corrected differs from the one before by its corrections.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from typing import Any

from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.scoring.report import DiscReport, RegionReport, StudyReport

__all__ = ["content_name", "stable_uid"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "spinescore.dicom-uid/1")


def stable_uid(*parts: str) -> str:
    """Return the UID for these parts of a name."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"


def content_name(report: StudyReport) -> str:
    """Return the content of a report that its UIDs depend on, as canonical JSON."""
    bundle = asdict(report.bundle)
    del bundle["rules"]  # they follow from its hash, and older reports lack them
    document = {
        "software": software_version(),
        "study": report.study.study_instance_uid,
        "bundle": bundle,
        "device": asdict(report.device),
        "regions": {name: _region(region) for name, region in report.regions.items()},
        "total": asdict(report.total),
        **({"corrections": document_of(report.corrections)} if report.corrections else {}),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _disc(disc: DiscReport) -> dict[str, Any]:
    """Return a disc without the fields that older reports lack: they follow from the rest and the corrections."""
    document = asdict(disc)
    for corner in document["corners"]:
        del corner["grade_from"], corner["missing_because"]
    return document


def _region(region: RegionReport) -> dict[str, Any]:
    image = region.radiograph
    return {
        "status": region.status,
        "reject": region.reject and region.reject.code,
        "radiograph": image and image.sop_instance_uid,
        "facing": image and image.facing,
        "turn_deg": image and image.turn_deg,
        "discs": [_disc(disc) for disc in region.discs],
        "total": region.total,
        "range": region.range,
    }
