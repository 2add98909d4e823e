"""The tiny bundle's radiographs (see tiny.py) as DICOM files."""

from __future__ import annotations

from pathlib import Path

import dicom_files
import tiny

GRADES = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0))  # of each region
TOTAL = 2 * sum(map(sum, GRADES))

_PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}
_WHOLE_RANGE = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}


def write_study(folder: Path, uid: str = "1.2.3.4", regions: tuple[str, ...] = ("cervical", "lumbar")) -> Path:
    """Write `<region>.dcm` for each region; region and facing stand in the header."""
    for region in regions:
        pixels = tiny.draw(region, GRADES).radiograph.pixels
        tags = {"BodyPartExamined": _PARTS[region], "PatientOrientation": ["P", "F"], "StudyInstanceUID": uid}
        dicom_files.write(dicom_files.radiograph_dataset(pixels, 8, **tags, **_WHOLE_RANGE), folder / f"{region}.dcm")
    return folder
