"""What may be handed to `Scorer.score`, brought to one form: a `Study`, and a reader's points per region and disc."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Region, Reject, Study

__all__ = ["MIN_SIDE_PX", "MODALITIES", "GivenPoints", "Keypoints", "StudyInput", "as_study", "given_points", "vet"]

Image = Radiograph | NDArray[np.integer]
StudyInput = Study | Radiograph | Iterable[Radiograph] | Mapping[Region, Image]

# region -> level -> (centre xy, anterior xy), in pixels of the radiograph
Keypoints = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
GivenPoints = Mapping[Region, Mapping[int, NDArray[np.float32]]]  # region -> disc -> (centre|anterior, xy)

# Projection radiographs by DICOM's Modality (0008,0060); what states none is taken for one.
MODALITIES = ("CR", "DX", "RF", "XA")

# Six discs in 128 pixels leave 20 to a vertebra, of which a corner's erosion would be two.
MIN_SIDE_PX = 128


def as_study(study: StudyInput) -> Study:
    """A `Study` from what `Scorer.score` takes: a study, radiographs, or an image per region.

    An image is H x W stored values (uint8, uint16, int8 or int16) in which larger is brighter: 8 bits are shown as
    they are, the contrast of more is taken from the pixels as for a radiograph without a window. Raises `ValueError`
    for anything else, `InputRejected` for radiographs of two patients.
    """
    if isinstance(study, Study):
        found = study
    elif isinstance(study, Radiograph):
        found = _of_radiographs([study])
    elif isinstance(study, Mapping):
        unknown = [name for name in study if name not in REGIONS]
        if unknown:
            raise ValueError(f"there is no region {unknown[0]!r}; the regions are {', '.join(REGIONS)}")
        found = _of_radiographs([_radiograph(region, study[region]) for region in REGIONS if region in study])
    else:
        radiographs = list(study)
        if not all(isinstance(item, Radiograph) for item in radiographs):
            raise ValueError("a study is a Study, radiographs, or a mapping from region to image")
        found = _of_radiographs(radiographs)
    for radiograph in found.radiographs:
        _check_pixels(radiograph.source or "a radiograph's pixels", radiograph.pixels)
        if radiograph.table.ndim != 1 or not radiograph.table.size:
            raise ValueError(f"{radiograph.source or 'a radiograph'}: its table must be one row of greys")
    patients = {radiograph.patient_key for radiograph in found.radiographs} - {None}
    if len(patients) > 1:
        raise InputRejected(
            "two-patients", "The study's radiographs belong to more than one patient; score them apart."
        )
    return found


def _of_radiographs(radiographs: Sequence[Radiograph]) -> Study:
    first = radiographs[0] if radiographs else None
    return Study(
        radiographs=tuple(radiographs),
        study_instance_uid=first.study_instance_uid if first else None,
        study_date=first.study_date if first else None,
        patient_key=first.patient_key if first else None,
    )


def _radiograph(region: Region, image: object) -> Radiograph:
    if isinstance(image, Radiograph):
        return replace(image, region=region)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the {region} image must be a Radiograph or an array, got {type(image).__name__}")
    _check_pixels(f"the {region} array", image)
    limits = np.iinfo(image.dtype)
    linear = np.linspace(0, 1, limits.max - limits.min + 1, dtype=np.float32)
    radiograph = Radiograph(
        image, linear, stored_min=limits.min, has_window=False, region=region, source=f"{region} array"
    )
    if image.dtype.itemsize == 1:
        return radiograph
    from spinescore.runtime.greyscale import contrast_table

    return replace(radiograph, table=contrast_table(radiograph, "percentile"))


def _check_pixels(name: str, pixels: NDArray[Any]) -> None:
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise ValueError(
            f"{name} must hold height x width stored values, whole numbers of 8 or 16 bits, got {pixels.dtype} "
            f"{pixels.shape}; bring other pictures to 16 bits first"
        )


def vet(radiograph: Radiograph) -> Reject | None:
    """Why a radiograph cannot be scored, by its header and size alone; None where it can."""
    name, region = radiograph.source or "The radiograph", radiograph.region

    def reject(code: str, message: str) -> Reject:
        return Reject(code, message, radiograph.source, region)

    if radiograph.modality is not None and radiograph.modality not in MODALITIES:
        return reject(
            "not-radiograph", f"{name} has modality {radiograph.modality}; give a radiograph ({', '.join(MODALITIES)})."
        )
    if radiograph.view == "other":
        return reject("not-lateral", f"{name} is stated to be no lateral projection; give the lateral one.")
    if min(radiograph.rows, radiograph.columns) < MIN_SIDE_PX:
        return reject(
            "too-small",
            f"{name} has {radiograph.rows} x {radiograph.columns} pixels; at least {MIN_SIDE_PX} each way are needed.",
        )
    return None


def given_points(keypoints: Keypoints | None) -> GivenPoints:
    """A reader's points, checked. Raises `ValueError` that names the region and level."""
    given: dict[Region, dict[int, NDArray[np.float32]]] = {}
    for name, levels in (keypoints or {}).items():
        region = next((region for region in REGIONS if region == name), None)
        if region is None or not isinstance(levels, Mapping):
            raise ValueError(
                f"keypoints: {name!r} is not a region with its levels; the regions are {', '.join(REGIONS)}"
            )
        given[region] = {}
        for level, points in levels.items():
            if level not in LEVELS[region]:
                raise ValueError(f"keypoints: {region} has no level {level!r}; it has {', '.join(LEVELS[region])}")
            given[region][LEVELS[region].index(level)] = _pair(f"{region} {level}", points)
    return given


def _pair(name: str, points: Any) -> NDArray[np.float32]:
    try:
        pair = np.asarray(points, np.float32)
    except (TypeError, ValueError):
        pair = np.empty(0, np.float32)
    if pair.shape != (2, 2) or not np.isfinite(pair).all():
        raise ValueError(f"keypoints: {name} needs the centre and the anterior point as two pairs of finite numbers")
    if (pair[0] == pair[1]).all():
        raise ValueError(f"keypoints: {name} has its centre and its anterior point in the same place")
    return pair
