"""Studies for measurements: one of a given size, or many. Of the many, a few are drawn; the others are copies."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from spinescore.runtime.phantom import draw_view
from spinescore.runtime.phantom.study import dicom_file
from spinescore.runtime.study import REGIONS

__all__ = ["UIDS", "save_under", "study_of_size", "write_studies"]

UIDS = "1.2.826.0.1.3680043.8.498"  # below it, each measurement has a branch of its own
_DRAWN = 4  # small studies that are copied
_SCALE = 0.25  # of their pixels' number along each side


def write_studies(
    folder: Path, count: int, seed: int = 4200, *, scale: float = _SCALE, stated: bool = False
) -> list[Path]:
    """Write `count` studies into folders of their own; the first is of full size, the others are scaled.

    With `stated`, every header states the region and the side to which the patient looks.
    """
    from pydicom import dcmread

    views = [
        [draw_view(seed + number, region, scale if number else 1.0) for region in REGIONS]
        for number in range(min(count, _DRAWN + 1))
    ]
    drawn = [[(dicom_file(seed + number, view), view) for view in pair] for number, pair in enumerate(views)]
    folders = []
    for number in range(count):
        place = folder / f"{number:05}"
        place.mkdir(parents=True)
        for content, view in drawn[number and 1 + (number - 1) % _DRAWN]:
            region, ds = view.region, dcmread(BytesIO(content))
            if stated:
                ds.BodyPartExamined = "CSPINE" if region == "cervical" else "LSPINE"
                ds.PatientOrientation = ["P" if view.facing == "left" else "A", "F"]
            ds.PatientID = f"MANY-{number}"
            save_under(f"{UIDS}.77.{number}", REGIONS.index(region), ds, place / f"{region}.dcm")
        folders.append(place)
    return folders


def study_of_size(seed: int, rows: int, columns: int) -> list[Any]:
    """Return the phantom study `seed` as uncompressed DICOM datasets of this size, cervical first."""
    import cv2
    import numpy as np
    from pydicom import dcmread

    datasets = []
    for region in REGIONS:
        ds = dcmread(BytesIO(dicom_file(seed, draw_view(seed, region))))
        sides = np.array(ds.ImagerPixelSpacing, float) * (ds.Rows, ds.Columns) / (rows, columns)
        pixels = cv2.resize(ds.pixel_array, (columns, rows), interpolation=cv2.INTER_LINEAR)
        ds.ImagerPixelSpacing = [f"{side:.6g}" for side in sides]
        ds.Rows, ds.Columns, ds.PixelData = rows, columns, pixels.astype("<u2").tobytes()
        datasets.append(ds)
    return datasets


def save_under(study_uid: str, number: int, ds: Any, path: Path) -> None:
    """Save a radiograph as object `number` of the study with this UID."""
    ds.StudyInstanceUID, ds.SOPInstanceUID = study_uid, f"{study_uid}.{number}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path)
