"""Functional groups of Enhanced XA and XRF: their attributes are copied to the place where other images have them.

In these classes window, shutter, spacing and orientation are in sequences of one frame or of all frames (PS3.3
C.7.6.16, C.8.19). Only an image of a single frame counts as a radiograph, so each attribute has one value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spinescore.runtime.reading.sopclasses import SOP_CLASSES
from spinescore.runtime.reading.tags import is_stated, items, number, raw_element, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["lift"]

_FRAMES = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")  # the first one takes precedence
# sequence of a functional group -> its attributes that other images have at top level
_GROUPS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"),
    "FrameDisplayShutterSequence": (
        "ShutterShape", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter",
        "VerticesOfThePolygonalShutter", "ShutterPresentationValue",
    ),
    "FramePixelDataPropertiesSequence": ("PixelIntensityRelationship", "ImagerPixelSpacing"),
    "PatientOrientationInFrameSequence": ("PatientOrientation",),
    "FrameAnatomySequence": ("AnatomicRegionSequence",),
}  # fmt: skip


def lift(ds: Dataset) -> None:
    """Add the attributes of the frame's functional groups to the header of an Enhanced XA or XRF image, in place.

    A group is left out if the header itself states one of its attributes. Other classes and images of several frames
    are not changed.
    """
    sop_class = SOP_CLASSES.get(text(ds, "SOPClassUID") or "")
    if sop_class is None or not sop_class.enhanced or (number(ds, "NumberOfFrames") or 1) != 1:
        return
    for frame in (item for keyword in _FRAMES for item in items(ds, keyword)[:1]):
        for sequence, keywords in _GROUPS.items():
            if any(is_stated(ds, keyword) for keyword in keywords):
                continue
            for group in items(frame, sequence)[:1]:
                for element in filter(None, (raw_element(group, keyword) for keyword in keywords)):
                    ds[element.tag] = element
