"""What may be handed to `Scorer.score`, brought to one form: a `Study`, and a reader's points per region and disc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.arguments import check_choice, shown
from spinescore.runtime.errors import REJECT_CODES, InputRejected
from spinescore.runtime.notices import as_notice, notice
from spinescore.runtime.reading.arrays import check_pixels, radiograph_from_array
from spinescore.runtime.reading.datasets import is_dataset, name_of
from spinescore.runtime.reading.nameless import known_modality, nameless
from spinescore.runtime.reading.quality import printable
from spinescore.runtime.study import (
    FROM_LIBRARY,
    LEVELS,
    REGIONS,
    Facing,
    Finding,
    Radiograph,
    Region,
    Reject,
    Study,
    told_apart,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "MIN_SIDE_PX",
    "MODALITIES",
    "GivenPoints",
    "Keypoints",
    "StudyInput",
    "anonymous",
    "as_study",
    "given_points",
    "radiograph_from_array",
    "stated",
    "vet",
]

Image: TypeAlias = "Radiograph | NDArray[np.integer[Any]] | Dataset"


class ImageOfRegion(TypedDict, total=False):
    """What `{"cervical": array, "lumbar": radiograph}` is to a type checker, which finds no one type of its values."""

    cervical: Image
    lumbar: Image


# Any iterable of radiographs will do. It is spelled out because an array is an iterable of anything to a type checker.
Radiographs: TypeAlias = "Sequence[Radiograph | Dataset] | Iterator[Radiograph | Dataset] | ValuesView[Radiograph]"
# A mapping is invariant in its keys, so that `dict[str, Radiograph]` needs a type beside the one with regions.
StudyInput: TypeAlias = (
    "Study | Radiograph | Dataset | Radiographs | ImageOfRegion | Mapping[Region, Image] | Mapping[str, Image]"
)

# region -> level -> (centre xy, anterior xy), in pixels of the radiograph
DiscPoints = Sequence[Sequence[float] | NDArray[Any]] | NDArray[Any]
Keypoints = Mapping[str, Mapping[str, DiscPoints]] | Mapping[Region, Mapping[str, DiscPoints]]
GivenPoints = Mapping[Region, Mapping[int, NDArray[np.float32]]]  # region -> disc -> (centre|anterior, xy)

# Projection radiographs by DICOM's Modality (0008,0060); what states none is taken for one.
MODALITIES = ("CR", "DX", "RF", "XA")

# Six discs in 128 pixels leave 20 to a vertebra, of which a corner's erosion would be two.
MIN_SIDE_PX = 128


def as_study(study: StudyInput) -> Study:
    """A `Study` from what `Scorer.score` takes: a study, radiographs, or an image per region.

    An image is a radiograph, a pydicom Dataset, or an array as for `radiograph_from_array`; what a file would be
    refused for is a reject. Radiographs of one name are told apart by numbers. Raises `TypeError` and `ValueError` for
    anything else, `InputRejected` for radiographs of two patients.
    """
    if isinstance(study, Study):
        found = replace(study, radiographs=tuple(study.radiographs))
    elif isinstance(study, Mapping):
        unknown = [name for name in study if name not in REGIONS]
        if unknown:
            raise ValueError(f"there is no region {shown(unknown[0])}; the regions are {', '.join(REGIONS)}")
        found = _of_images([_of_region(region, study[region]) for region in REGIONS if region in study])
    elif isinstance(study, Radiograph) or is_dataset(study):
        found = _of_images([_of_dataset(study) if is_dataset(study) else study])
    elif isinstance(study, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(f"study is read from files before it is scored, got {shown(study)}; call "
                        "score(load_study(path))")  # fmt: skip
    elif isinstance(study, np.ndarray) or not isinstance(study, Iterable):
        raise TypeError(f"study must be a Study, radiographs or an image per region, got {shown(study)}; call "
                        "score({'cervical': pixels, 'lumbar': pixels}) or score(load_study(path))")  # fmt: skip
    else:
        found = _of_images([_of_dataset(item) if is_dataset(item) else item for item in study])
    for radiograph in found.radiographs:
        _check(radiograph)
    patients = {radiograph.patient_key for radiograph in found.radiographs} - {None}
    if len(patients) > 1:
        raise InputRejected(
            "two-patients", "The study's radiographs belong to more than one patient; score them apart."
        )
    return replace(found, radiographs=told_apart([_native(radiograph) for radiograph in found.radiographs]))


def _of_images(images: Sequence[object]) -> Study:
    """The study of radiographs, and of rejects in the place of those that were refused."""
    radiographs = [image for image in images if isinstance(image, Radiograph)]
    rejects = [image for image in images if isinstance(image, Reject)]
    strange = [image for image in images if not isinstance(image, (Radiograph, Reject))]
    if strange:
        raise ValueError(
            f"a study is a Study, radiographs, or a mapping from region to image, got {shown(strange[0])} in it; "
            "read files with load_study, arrays with radiograph_from_array"
        )
    first = radiographs[0] if radiographs else None
    return Study(
        radiographs=tuple(radiographs),
        rejects=tuple(rejects),
        study_instance_uid=first.study_instance_uid if first else None,
        study_date=first.study_date if first else None,
        patient_key=first.patient_key if first else None,
    )


def _of_region(region: Region, image: object) -> Radiograph | Reject:
    if is_dataset(image):
        image = _of_dataset(image)
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
    from spinescore.runtime.reading.studies import load_radiograph

    try:
        return load_radiograph(ds)
    except InputRejected as fault:
        return Reject(fault.code, str(fault), name_of(ds))


def _check(radiograph: object) -> None:
    """Raise for a radiograph made by hand whose fields cannot be."""
    if not isinstance(radiograph, Radiograph):
        raise TypeError(f"a study's radiographs must be Radiograph objects, got {shown(radiograph)}; call load_study")
    name = radiograph.source or "a radiograph"
    check_pixels(f"the pixels of {name}", radiograph.pixels)
    table: Any = radiograph.table
    if not isinstance(table, np.ndarray) or table.ndim != 1 or not table.size or table.dtype.kind != "f":
        raise ValueError(f"{name}: its table must be one row of greys, numbers from 0 to 1 of type float32")
    check_choice(f"the region of {name}", radiograph.region, (None, *REGIONS))
    check_choice(f"the facing of {name}", radiograph.facing, (None, "left", "right"))


def _native(radiograph: Radiograph) -> Radiograph:
    """The radiograph with plain pixels in the machine's byte order, in which some steps take them to be."""
    pixels = radiograph.pixels
    if type(pixels) is np.ndarray and pixels.dtype.isnative:
        return radiograph
    plain = np.asarray(np.ma.getdata(pixels), pixels.dtype.newbyteorder("=")).view(np.ndarray)
    return replace(radiograph, pixels=plain)


def anonymous(study: Study) -> Study:
    """The study without what says whose it is, when it was taken, or how its files are called.

    Gone are study and SOP instance UIDs, date, patient key, headers (so that no DICOM result can refer to the
    original) and file names; radiographs are numbered in their order. Rejects keep their code and region with the
    code's own words, and of warnings those remain that quote neither a file's name nor what a library says of a
    file's content; what they quote of the header is left out. The pixels stay as they are: a name that is burned into
    them remains.
    """
    if not isinstance(study, Study):
        raise TypeError(f"study must be a Study, got {shown(study)}; call anonymous(load_study(path))")
    names = {image.source: f"radiograph {number}" for number, image in enumerate(study.radiographs, 1)}
    radiographs = tuple(
        replace(
            image,
            sop_instance_uid=None,
            study_instance_uid=None,
            study_date=None,
            patient_key=None,
            header=None,
            source=f"radiograph {number}",
            modality=known_modality(image.modality),
            warnings=_nameless(image, f"radiograph {number}"),
            findings=tuple(_renamed(found, image, f"radiograph {number}") for found in image.findings),
        )
        for number, image in enumerate(study.radiographs, 1)
    )
    rejects = tuple(
        Reject(reject.code, f"{name}: {REJECT_CODES[reject.code]}", name, reject.region)
        for number, reject in enumerate(study.rejects, 1)
        for name in (names.get(reject.source, f"refused file {number}"),)
    )
    count = len(study.warnings)
    text = f"warnings left out because they may name files: {count}"
    left_out = (notice("warnings-left-out", text, count=count),) if count else ()
    return Study(radiographs, rejects, warnings=left_out, read_ms=study.read_ms)


def _nameless(image: Radiograph, name: str) -> tuple[str, ...]:
    own = [warning for warning in image.warnings if not warning.startswith(FROM_LIBRARY)]

    def rename(text: str) -> str:
        return nameless(text.replace(image.source, name) if image.source else text, image.header)

    return tuple(as_notice(warning).renamed(rename, name) for warning in own)


def _renamed(found: Finding, image: Radiograph, name: str) -> Finding:
    old = printable(image.source)
    message = found.message.replace(old, name) if old else found.message
    return replace(found, source=name, message=nameless(message, image.header))


def stated(study: Study, region: Region | None, facing: Facing | None) -> Study:
    """The study with the region and facing that the user states for radiographs whose header states none.

    Raises ValueError if a header states something else, or if one region would stand for several radiographs without
    any. Radiographs that are refused anyway (`vet`) stay as they are.
    """
    radiographs = [image for image in study.radiographs if vet(image) is None]
    for what, said in (("region", region), ("facing", facing)):
        for image in radiographs:
            header = getattr(image, what)
            if said is not None and header not in (None, said):
                raise ValueError(
                    f"the header of {image.source} states the {what} {header}, --{what} states {said}: leave --{what} "
                    "out, or name only the files that it stands for"
                )
    nameless = [image.source for image in radiographs if image.region is None]
    if region is not None and len(nameless) > 1:
        raise ValueError(
            f"{', '.join(nameless)} of one study state no region, and --region {region} would stand for all of them: "
            "score one file at a time"
        )
    return replace(study, radiographs=tuple(_stated(image, region, facing) for image in study.radiographs))


def _stated(image: Radiograph, region: Region | None, facing: Facing | None) -> Radiograph:
    new: dict[str, Any] = {
        what: said
        for what, said in (("region", region), ("facing", facing))
        if said is not None and getattr(image, what) is None
    }
    if not new or vet(image) is not None:
        return image
    origin: dict[str, Any] = {"facing_from": "user"} if "facing" in new else {}
    said = " and ".join(f"the {what} {value}" for what, value in new.items())
    text = f"{image.source or 'The radiograph'}: {said} was stated by the user; nothing in the file states it."
    note = notice("stated-by-user", text, image.region or region, image.source, fields=list(new))
    return replace(image, **new, **origin, warnings=(*image.warnings, note))


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
    """A reader's points, checked. Raises `ValueError` that names the region and level, `TypeError` for no mapping."""
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
    try:
        with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused
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
