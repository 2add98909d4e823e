"""A phantom study: two lateral radiographs as a modality would send them, and the truth beside them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.files import write_atomic
from spinescore.runtime.phantom.bones import draw_spine
from spinescore.runtime.phantom.corners import Disc, progressed, sample_discs
from spinescore.runtime.phantom.detector import Image, expose
from spinescore.runtime.phantom.shape import Frame, Spine, sample_frame, sample_spine
from spinescore.runtime.phantom.surroundings import draw_surroundings
from spinescore.runtime.study import LEVELS, REGIONS, Facing, Region, sites_of

__all__ = ["PhantomView", "dicom_file", "draw_study", "draw_view", "write_study"]

_SPACING_MM: dict[Region, tuple[float, float]] = {"cervical": (18.5, 1.4), "lumbar": (37.0, 2.6)}  # between vertebrae
_UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's root, which it offers for files made with it; the seed follows
_ROWS = (1500, 3500)
_PIXEL_MM = (0.1, 0.2)


@dataclass(frozen=True, eq=False)
class PhantomView:
    """One drawn radiograph. Points are (6, 2) in pixels of `image`, x right, y down, integers at pixel centres."""

    region: Region
    image: Image
    pixel_mm: float
    facing: Facing
    centres_px: NDArray[np.float64]
    anteriors_px: NDArray[np.float64]
    discs: tuple[Disc, ...]

    @property
    def grades(self) -> NDArray[np.int64]:
        """Return (6, 2): for each disc the upper vertebra's corner, then the lower one's."""
        return np.array([[corner.grade for corner in disc] for disc in self.discs])


def draw_view(seed: int, region: Region, scale: float = 1.0, visit: int = 0) -> PhantomView:
    """Draw the radiograph of `region` of the study `seed`; the same arguments give the same picture.

    `scale` below 1 draws the same scene on a detector with coarser pixels, for training; files have 1. `visit` counts
    the patient's later studies: the same spine, with corners that progressed that many times, in a new exposure.
    """
    rng = np.random.default_rng([seed, REGIONS.index(region)])
    spine, frame = _framed(rng, region)
    mean, std = _SPACING_MM[region]
    spacing_mm = float(np.clip(rng.normal(mean, std), mean - 2 * std, mean + 2 * std))
    spacing_mm = max(spacing_mm, _ROWS[0] * _PIXEL_MM[0] * frame.spacing_over_height)
    height_mm = spacing_mm / frame.spacing_over_height
    low = max(_ROWS[0], int(np.ceil(height_mm / _PIXEL_MM[1])))
    high = max(min(_ROWS[1], int(height_mm / _PIXEL_MM[0])), low)
    rows = round(int(rng.integers(low, high + 1)) * scale)
    columns = round(rows * frame.width_over_height)
    unit = frame.spacing_over_height * rows
    origin = np.array([frame.centre_x * columns, frame.centre_y * rows])
    spine = spine.transformed(unit, origin)
    discs = sample_discs(rng)
    for number in range(1, visit + 1):
        discs = progressed(np.random.default_rng([seed, 98, REGIONS.index(region), number]), discs)
    bone = np.zeros((rows, columns), np.float32)
    soft = draw_surroundings(rng, bone, spine, unit / spacing_mm)
    draw_spine(rng, bone, spine, discs, unit / spacing_mm)
    if visit:
        rng = np.random.default_rng([seed, 97, REGIONS.index(region), visit])  # another exposure
    mirrored = bool(rng.random() < 0.5)
    bone += soft
    image = expose(rng, bone, spacing_mm / unit, mirrored)
    centres = np.array([spine.disc_centre(i) for i in range(6)])
    anteriors = np.array([spine.disc_anterior(i) for i in range(6)])
    if mirrored:
        centres[:, 0], anteriors[:, 0] = columns - 1 - centres[:, 0], columns - 1 - anteriors[:, 0]
    return PhantomView(region, image, spacing_mm / unit, "right" if mirrored else "left", centres, anteriors, discs)


def _framed(rng: np.random.Generator, region: Region) -> tuple[Spine, Frame]:
    while True:
        spine = sample_spine(rng, region)
        try:
            return spine, sample_frame(rng, spine)
        except ValueError:  # a spine too curved for any usual framing: the technician would take another picture
            continue


def draw_study(seed: int, visit: int = 0) -> dict[Region, PhantomView]:
    """Draw both radiographs of the study `seed`."""
    return {region: draw_view(seed, region, visit=visit) for region in REGIONS}


def write_study(seed: int, folder: str | Path, visit: int = 0) -> Path:
    """Write `cervical.dcm`, `lumbar.dcm` and `truth.json` of the study `seed` into `folder`, and return it.

    `truth.json` has the report's shape: study, regions, discs with level, centre_px and anterior_px, corners with
    site and grade, totals. The radiographs have the tags that a modality writes, without the truth. `visit` 1
    is the patient's next study, two years later, and so on.
    """
    folder = Path(folder)
    study = {"study_instance_uid": _study_uid(seed, visit)}
    truth: dict[str, Any] = {"schema": "spinescore.truth/1", "seed": seed, "study": study, "regions": {}}
    for region, view in draw_study(seed, visit).items():
        write_atomic(folder / f"{region}.dcm", dicom_file(seed, view, visit))
        truth["regions"][region] = _truth(view)
    truth["total"] = {"value": sum(r["total"] for r in truth["regions"].values())}
    write_atomic(folder / "truth.json", json.dumps(truth, indent=1) + "\n")
    return folder


def _truth(view: PhantomView) -> dict[str, Any]:
    discs = []
    for i, level in enumerate(LEVELS[view.region]):
        graded = zip(sites_of(level), view.grades[i], strict=True)
        corners = [{"site": site, "grade": int(grade)} for site, grade in graded]
        centre, anterior = (np.round(p[i], 3).tolist() for p in (view.centres_px, view.anteriors_px))
        discs.append({"level": level, "centre_px": centre, "anterior_px": anterior, "corners": corners})
    rows, columns = view.image.pixels.shape
    return {
        "radiograph": {"rows": rows, "columns": columns, "facing": view.facing},
        "discs": discs,
        "total": int(view.grades.sum()),
    }


def _study_uid(seed: int, visit: int) -> str:
    return f"{_UID_ROOT}{seed}" + (f".9.{visit}" if visit else "")


def dicom_file(seed: int, view: PhantomView, visit: int = 0) -> bytes:
    """Return the DICOM file of a radiograph of the study `seed`, as a modality would send it."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    number = REGIONS.index(view.region) + 1
    rng = np.random.default_rng([seed, 99, number])
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    digital = rng.random() < 0.7
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1" if digital else "1.2.840.10008.5.1.4.1.1.1"
    ds.StudyInstanceUID = _study_uid(seed, visit)
    ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{ds.StudyInstanceUID}.1", f"{ds.StudyInstanceUID}.1.{number}"
    ds.PatientName, ds.PatientID = f"Phantom^{seed}", f"PHANTOM-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = f"{2026 + 2 * visit}0101", "", "", ""
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(seed), 1, number
    ds.Manufacturer, ds.Modality = "spinescore phantom", "DX" if digital else "CR"
    if digital:
        ds.PresentationIntentType = "FOR PRESENTATION"
    if rng.random() < 0.9:
        ds.BodyPartExamined = "CSPINE" if view.region == "cervical" else "LSPINE"
    if rng.random() < 0.7:
        ds.ViewPosition = "LL" if rng.random() < 0.7 else "RL"
    if rng.random() < 0.7:
        ds.PatientOrientation = ["P" if view.facing == "left" else "A", "F"]
    _pixel_module(ds, view)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _pixel_module(ds: Any, view: PhantomView) -> None:
    image = view.image
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.Rows, ds.Columns = image.pixels.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, image.bits, image.bits - 1
    ds.PhotometricInterpretation = "MONOCHROME1" if image.inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if image.inverted else "IDENTITY"
    ds.ImagerPixelSpacing = [f"{view.pixel_mm:.6f}"] * 2
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    if image.window is not None:
        ds.WindowCenter, ds.WindowWidth = (str(v) for v in image.window)
    ds.BurnedInAnnotation = "NO"
    ds.PixelData = image.pixels.astype("<u2").tobytes()
