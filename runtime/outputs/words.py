"""Words and numbers that several results share."""

from __future__ import annotations

from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import BundleInfo, RegionReport
from spinescore.runtime.study import SITES, Region

__all__ = ["NOTICE", "REGION_MAX", "STUDY_MAX", "bundle_name", "grade_digit", "note_of", "region_title"]

NOTICE = "Not a medical device."
REGION_MAX = MAX_GRADE * len(SITES["cervical"])  # 36, of either region
STUDY_MAX = MAX_GRADE * sum(map(len, SITES.values()))  # 72


def bundle_name(bundle: BundleInfo) -> str:
    """Return the bundle's name and version, or the reader's name, which has no version."""
    return f"{bundle.name} {bundle.version}".strip()


def note_of(bundle: BundleInfo) -> str:
    """Return the note above an overlay: no medical device, the bundle and its intended use."""
    return f"{NOTICE} {bundle.name} {bundle.version}. {bundle.intended_use}"


def region_title(name: Region, region: RegionReport) -> str:
    """Return the title of a scored region's picture, such as `mSASSS lumbar: 12 of 36`."""
    total = "no total" if region.total is None else f"{region.total:g} of {REGION_MAX}"
    return f"mSASSS {name}: {total}"


def grade_digit(grade: int | None) -> str:
    """Return the digit that a badge shows; `?` for a corner without a grade."""
    return "?" if grade is None else str(grade)
