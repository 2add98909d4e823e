"""The inputs of `Scorer.score`, converted to one form: a `Study`, and a reader's points by region and disc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.arguments import shown
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.notices import notice
from spinescore.runtime.reading.arrays import radiograph_from_array
from spinescore.runtime.reading.datasets import is_dataset, name_of
from spinescore.runtime.reading.sourcenames import told_apart
from spinescore.runtime.scoring.handmade import check_study
from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Region, Reject, Study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["GivenPoints", "Keypoints", "StudyInput", "as_study", "given_points"]

Image: TypeAlias = "Radiograph | NDArray[np.integer[Any]] | Dataset"


class ImageOfRegion(TypedDict, total=False):
    """The type of `{"cervical": array, "lumbar": radiograph}`, whose values have no common type for a type checker."""

    cervical: Image
    lumbar: Image


# Any iterable of radiographs is accepted. The types are listed because to a type checker an array is an iterable, too.
Radiographs: TypeAlias = "Sequence[Radiograph | Dataset] | Iterator[Radiograph | Dataset] | ValuesView[Radiograph]"
# A mapping is invariant in its keys, so that `dict[str, Radiograph]` needs a type beside the one with regions.
StudyInput: TypeAlias = (
    "Study | Radiograph | Dataset | Radiographs | ImageOfRegion | Mapping[Region, Image] | Mapping[str, Image]"
)

# region -> level -> (centre xy, anterior xy), in pixels of the radiograph
DiscPoints = Sequence[Sequence[float] | NDArray[Any]] | NDArray[Any]
Keypoints = Mapping[str, Mapping[str, DiscPoints]] | Mapping[Region, Mapping[str, DiscPoints]]
GivenPoints = Mapping[Region, Mapping[int, NDArray[np.float32]]]  # region -> disc -> (centre|anterior, xy)


def as_study(study: StudyInput) -> Study:
    """Return a `Study` from any input of `Scorer.score`: a study, radiographs, or an image for each region.

    An image is a radiograph, a pydicom Dataset, or an array as for `radiograph_from_array`; an image that would be
    refused as a file becomes a reject. Radiographs of one name are told apart by numbers. Raises `TypeError` and
    `ValueError` for anything else, `InputRejected` for radiographs of two patients.
    """
    if isinstance(study, Study):
        listed = not isinstance(study.radiographs, (Iterator, ValuesView))
        converted = study if listed else replace(study, radiographs=tuple(study.radiographs))
    elif isinstance(study, Mapping):
        unknown = [name for name in study if name not in REGIONS]
        if unknown:
            raise ValueError(f"there is no region {shown(unknown[0])}; the regions are {', '.join(REGIONS)}")
        converted = _of_images([_of_region(region, study[region]) for region in REGIONS if region in study])
    elif isinstance(study, Radiograph) or is_dataset(study):
        converted = _of_images([study])
    elif isinstance(study, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(f"study is read from files before it is scored, got {shown(study)}; call "
                        "score(load_study(path))")  # fmt: skip
    elif isinstance(study, np.ndarray) or not isinstance(study, Iterable):
        raise TypeError(f"study must be a Study, radiographs or an image per region, got {shown(study)}; call "
                        "score({'cervical': pixels, 'lumbar': pixels}) or score(load_study(path))")  # fmt: skip
    else:
        converted = _of_images(study)
    check_study(converted)
    patients = {radiograph.patient_key for radiograph in converted.radiographs} - {None}
    if len(patients) > 1:
        raise InputRejected(
            "two-patients", "The study's radiographs belong to more than one patient; score them apart."
        )
    if not (converted.radiographs or converted.rejects or converted.warnings):
        text = "The study holds no image; give radiographs, arrays, or a study that load_study has read."
        converted = replace(converted, warnings=(notice("no-image", text),))
    return replace(converted, radiographs=told_apart([_native(radiograph) for radiograph in converted.radiographs]))


def _of_images(images: Iterable[object]) -> Study:
    """Return the study of radiographs and datasets, and of rejects in the place of refused ones."""
    read = [_of_dataset(image) if is_dataset(image) else image for image in images]
    radiographs = tuple(image for image in read if isinstance(image, Radiograph))
    rejects = tuple(image for image in read if isinstance(image, Reject))
    others = [image for image in read if not isinstance(image, (Radiograph, Reject))]
    if others:
        raise ValueError(
            f"a study is a Study, radiographs, or a mapping from region to image, got {shown(others[0])} in it; "
            "read files with load_study, arrays with radiograph_from_array"
        )
    names = ("study_instance_uid", "study_date", "patient_key")
    return Study(radiographs, rejects, **{name: getattr(radiographs[0], name) for name in names if radiographs})


def _of_region(region: Region, image: object) -> Radiograph | Reject:
    if is_dataset(image):
        image = _of_dataset(image)
    if isinstance(image, Radiograph) and image.region not in (None, region):
        raise ValueError(
            f"{image.source or 'a radiograph'} shows the {image.region} spine and was given as the {region} image; "
            f"give it as {image.region}, or make it again with region={region!r} if it states the wrong one"
        )
    if isinstance(image, (Radiograph, Reject)):
        return replace(image, region=region)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"the {region} image must be a Radiograph, an array or a pydicom Dataset, got {shown(image)}; read files "
            "with load_radiograph"
        )
    try:
        return radiograph_from_array(image, region=region)
    except InputRejected as fault:
        return Reject(fault.code, str(fault), f"{region} array", region)


def _of_dataset(ds: Dataset) -> Radiograph | Reject:
    from spinescore.runtime.reading.studies import load_radiograph  # programs with arrays alone never need it

    try:
        return load_radiograph(ds)
    except InputRejected as fault:
        return Reject(fault.code, str(fault), name_of(ds))


def _native(radiograph: Radiograph) -> Radiograph:
    """Return the radiograph with plain pixels in the machine's byte order, which some later steps need."""
    pixels = radiograph.pixels
    if type(pixels) is np.ndarray and pixels.dtype.isnative:
        return radiograph
    plain = np.asarray(np.ma.getdata(pixels), pixels.dtype.newbyteorder("=")).view(np.ndarray)
    return replace(radiograph, pixels=plain)


def given_points(keypoints: Keypoints | None) -> GivenPoints:
    """Return a reader's points by region and disc. Raises `TypeError` or `ValueError` with the place."""
    if keypoints is not None and not isinstance(keypoints, Mapping):
        raise TypeError(
            f"keypoints must be a mapping from region to level to points, got {shown(keypoints)}; give "
            "{'cervical': {'C2/C3': [[x, y], [x, y]]}}"
        )
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
    """Return the centre and the anterior point of one disc, (2, 2)."""
    try:
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are refused below
            pair = np.asarray(points, np.float32)
        if np.asarray(points).dtype.kind not in "iuf" or np.ma.is_masked(points):  # text, truth values
            pair = np.empty(0, np.float32)
    except (TypeError, ValueError, OverflowError):
        pair = np.empty(0, np.float32)
    if pair.shape != (2, 2) or not np.isfinite(pair).all():
        raise ValueError(f"keypoints: {name} needs the centre and the anterior point as two pairs of finite numbers")
    if (pair[0] == pair[1]).all():
        raise ValueError(f"keypoints: {name} has its centre and its anterior point in the same place")
    return pair
