"""What may be handed to `Scorer.score`, brought to one form: a `Study`, and a reader's points per region and disc."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, ValuesView
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import REJECT_CODES, InputRejected
from spinescore.runtime.quality import printable
from spinescore.runtime.reading.nameless import known_modality, nameless
from spinescore.runtime.study import FROM_LIBRARY, LEVELS, REGIONS, Facing, Finding, Radiograph, Region, Reject, Study

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

Image = Radiograph | NDArray[np.integer[Any]]


class ImageOfRegion(TypedDict, total=False):
    """What `{"cervical": array, "lumbar": radiograph}` is to a type checker, which finds no one type of its values."""

    cervical: Image
    lumbar: Image


# Any iterable of radiographs will do. It is spelled out because an array is an iterable of anything to a type checker.
Radiographs = Sequence[Radiograph] | Iterator[Radiograph] | ValuesView[Radiograph]
# A mapping is invariant in its keys, so that `dict[str, Radiograph]` needs a type beside the one with regions.
StudyInput = Study | Radiograph | Radiographs | ImageOfRegion | Mapping[Region, Image] | Mapping[str, Image]

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

    An image is a radiograph, or an array as for `radiograph_from_array`. Raises `ValueError` for anything else,
    `InputRejected` for radiographs of two patients.
    """
    if isinstance(study, Study):
        found = study
    elif isinstance(study, Radiograph):
        found = _of_radiographs([study])
    elif isinstance(study, Mapping):
        unknown = [name for name in study if name not in REGIONS]
        if unknown:
            raise ValueError(f"there is no region {unknown[0]!r}; the regions are {', '.join(REGIONS)}")
        found = _of_radiographs([_of_region(region, study[region]) for region in REGIONS if region in study])
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


def _of_region(region: Region, image: object) -> Radiograph:
    if isinstance(image, Radiograph):
        return replace(image, region=region)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the {region} image must be a Radiograph or an array, got {type(image).__name__}")
    return radiograph_from_array(image, region=region)


def radiograph_from_array(
    pixels: NDArray[np.integer],
    *,
    region: Region | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    facing: Facing | None = None,
) -> Radiograph:
    """A radiograph of pixels in memory, for a console that has them already.

    `pixels` are H x W stored values (uint8, uint16, int8 or int16) in which larger is brighter: 8 bits are shown as
    they are, the contrast of more is taken from the pixels as for a radiograph without a window. `spacing_mm` is
    between the centres of neighbouring pixels, or of rows and of columns where they differ; `facing` the side of the
    image towards which the patient looks. What is not given is found out by the model. Raises `ValueError`.
    """
    name = f"{region} array" if region else "array"
    if region not in (None, *REGIONS) or facing not in (None, "left", "right"):
        raise ValueError(f"region is one of {', '.join(REGIONS)} and facing left or right, got {region!r}, {facing!r}")
    _check_pixels(f"the {name}", pixels)
    limits = np.iinfo(pixels.dtype)
    linear = np.linspace(0, 1, limits.max - limits.min + 1, dtype=np.float32)
    radiograph = Radiograph(
        pixels,
        linear,
        stored_min=limits.min,
        has_window=False,
        spacing_mm=None if spacing_mm is None else _spacing_mm(spacing_mm),
        region=region,
        facing=facing,
        source=name,
    )
    if pixels.dtype.itemsize == 1:
        return radiograph
    from spinescore.runtime.reading.greyscale import contrast_table

    return replace(radiograph, table=contrast_table(radiograph, "percentile"))


def _spacing_mm(spacing_mm: Any) -> tuple[float, float]:
    try:
        rows, columns = np.broadcast_to(np.asarray(spacing_mm, np.float64), 2).tolist()
    except (TypeError, ValueError):
        rows = columns = np.nan
    if not (0 < rows < np.inf and 0 < columns < np.inf):
        raise ValueError(f"spacing_mm is millimetres above 0, one number or (rows, columns), got {spacing_mm!r}")
    return rows, columns


def anonymous(study: Study) -> Study:
    """The study without what says whose it is, when it was taken, or how its files are called.

    Gone are study and SOP instance UIDs, date, patient key, headers (so that no DICOM result can refer to the
    original) and file names; radiographs are numbered in their order. Rejects keep their code and region with the
    code's own words, and of warnings those remain that quote neither a file's name nor what a library says of a
    file's content; what they quote of the header is left out. The pixels stay as they are: a name that is burned into
    them remains.
    """
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
    left_out = (f"warnings left out because they may name files: {len(study.warnings)}",) if study.warnings else ()
    return Study(radiographs, rejects, warnings=left_out, read_ms=study.read_ms)


def _nameless(image: Radiograph, name: str) -> tuple[str, ...]:
    own = [warning for warning in image.warnings if not warning.startswith(FROM_LIBRARY)]
    renamed = (warning.replace(image.source, name) if image.source else warning for warning in own)
    return tuple(nameless(warning, image.header) for warning in renamed)


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
    said = " and ".join(f"the {what} {value}" for what, value in new.items())
    note = f"{image.source or 'The radiograph'}: {said} was stated by the user; nothing in the file states it."
    return replace(image, **new, warnings=(*image.warnings, note))


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
        with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused
            pair = np.asarray(points, np.float32)
    except (TypeError, ValueError, OverflowError):
        pair = np.empty(0, np.float32)
    if pair.shape != (2, 2) or not np.isfinite(pair).all():
        raise ValueError(f"keypoints: {name} needs the centre and the anterior point as two pairs of finite numbers")
    if (pair[0] == pair[1]).all():
        raise ValueError(f"keypoints: {name} has its centre and its anterior point in the same place")
    return pair
