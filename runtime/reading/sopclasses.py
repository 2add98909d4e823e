"""The SOP classes of radiographs (PS3.4, table B.5-1), in one table for reading, results and the appliance."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SOP_CLASSES", "SopClass"]


class SopClass(NamedTuple):
    """The meaning of an image's SOP class.

    In all of them the Modality LUT or rescale comes first, a VOI LUT before a window, and MONOCHROME1 or the shape
    INVERSE inverts. With the Pixel Intensity Relationships in `undisplayed` the modality step leads back to the
    intensity of the X-rays, and is not for display (PS3.3 C.8.7.1.1.2).
    """

    name: str
    undisplayed: tuple[str, ...] = ()
    enhanced: bool = False  # attributes of its frames are in functional groups (PS3.3 C.7.6.16)
    retired: bool = False
    referenced: bool = True  # DICOM results can refer to its images


_LOGARITHMIC = ("LOG", "DISP")
SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": SopClass("CR"),
    "1.2.840.10008.5.1.4.1.1.1.1": SopClass("DX"),
    "1.2.840.10008.5.1.4.1.1.1.1.1": SopClass("DX for processing"),
    "1.2.840.10008.5.1.4.1.1.7": SopClass("secondary capture"),
    "1.2.840.10008.5.1.4.1.1.12.1": SopClass("XA", _LOGARITHMIC),
    "1.2.840.10008.5.1.4.1.1.12.2": SopClass("RF", _LOGARITHMIC),
    "1.2.840.10008.5.1.4.1.1.12.1.1": SopClass("Enhanced XA", enhanced=True, referenced=False),
    "1.2.840.10008.5.1.4.1.1.12.2.1": SopClass("Enhanced XRF", enhanced=True, referenced=False),
    "1.2.840.10008.5.1.4.1.1.12.3": SopClass("XA biplane", _LOGARITHMIC, retired=True, referenced=False),
}
