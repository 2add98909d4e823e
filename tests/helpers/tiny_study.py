"""The tiny bundle's radiographs (see tiny.py) as DICOM files."""

from __future__ import annotations

from pathlib import Path

from helpers import dicom_files, tiny

GRADES = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0))  # of each region
TOTAL = 2 * sum(map(sum, GRADES))

_PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}
_SPACING_MM = {"cervical": 0.15, "lumbar": 0.3}  # so that discs are as far apart as a person's
_WHOLE_RANGE = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}


def write_study(folder: Path, uid: str = "1.2.3.4", regions: tuple[str, ...] = ("cervical", "lumbar")) -> Path:
    """Write `<region>.dcm` for each region; region and facing stand in the header."""
    for region in regions:
        pixels = tiny.draw(region, GRADES).radiograph.pixels
        spacing = _SPACING_MM[region]
        tags = {
            "BodyPartExamined": _PARTS[region],
            "PixelSpacing": [spacing, spacing],
            "PatientOrientation": ["P", "F"],
            "StudyInstanceUID": uid,
        }
        dicom_files.write(dicom_files.radiograph_dataset(pixels, 8, **tags, **_WHOLE_RANGE), folder / f"{region}.dcm")
    return folder
