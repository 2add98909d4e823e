"""What `spinescore score --out` leaves: the report, and a picture of every region that was scored."""

from __future__ import annotations

from pathlib import Path

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.output import write_atomic, write_png
from spinescore.runtime.overlay import draw_overlay
from spinescore.runtime.report import RegionReport, StudyReport
from spinescore.runtime.study import Radiograph, Study

__all__ = ["write_results"]


def write_results(folder: Path, study: Study, report: StudyReport, bundle: Bundle) -> list[Path]:
    """Write `report.json` and `overlay-<region>.png`; the paths that were written. Overlays of before are removed."""
    manifest = bundle.manifest
    written = [write_atomic(folder / "report.json", report.to_json() + "\n")]
    for name, region in report.regions.items():
        path = folder / f"overlay-{name}.png"
        radiograph = _radiograph(region, study)
        if radiograph is None:
            path.unlink(missing_ok=True)  # it would show another report's grades
            continue
        total = "no total" if region.total is None else f"{region.total:g} of 36"
        note = f"{manifest.name} {manifest.version}. {manifest.intended_use}"
        written.append(
            write_png(path, draw_overlay(radiograph, region, manifest.grader, f"mSASSS {name}: {total}", note))
        )
    return written


def _radiograph(region: RegionReport, study: Study) -> Radiograph | None:
    """The radiograph that the region was scored on; None where it was not scored."""
    info = region.radiograph
    if region.status != "scored" or info is None:
        return None
    named = (info.sop_instance_uid, info.source)
    return next((image for image in study.radiographs if (image.sop_instance_uid, image.source) == named), None)
