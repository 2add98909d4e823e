"""The bundle's part of a report: its identity, and the rules that results show."""

from __future__ import annotations

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.scoring.report import BundleInfo, BundleRules

__all__ = ["bundle_info"]


def bundle_info(bundle: Bundle) -> BundleInfo:
    """Return the bundle's part of a report."""
    manifest, grader = bundle.manifest, bundle.manifest.grader
    return BundleInfo(
        manifest.name,
        manifest.version,
        bundle.sha256,
        manifest.intended_use,
        bundle.localizer,
        manifest.smallest_detectable_change,
        BundleRules(
            bridge_threshold=grader.bridge_threshold,
            abstain_below=grader.abstain_below,
            min_confidence=manifest.localizer.min_confidence,
            crop_unit=grader.crop.unit,
            crop_extent=grader.crop.extent,
            crop_anterior=grader.crop.anterior,
            crop_px=grader.input.height,
        ),
    )
