"""Pictures as the networks see them, as files named after their study, and `index.csv`, which lists them all."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import OutputError
from spinescore.runtime.files import read_text, write_atomic, write_png
from spinescore.runtime.outputs.rows import guarded
from spinescore.runtime.study import LEVELS, Study

if TYPE_CHECKING:
    from spinescore.runtime.scorer import Crop, ScoredCrops
    from spinescore.runtime.scoring.report import StudyReport
    from spinescore.runtime.scoring.training import SeenDisc, SeenPicture, SeenStudy

__all__ = [
    "INDEX_COLUMNS",
    "PictureFile",
    "crops_there",
    "read_index",
    "scored_files",
    "seen_files",
    "study_names",
    "write_crops",
]

Grades = Mapping[str, float | None]  # site -> grade; half points are readers' means
Cell = str | float | None

_POINTS = ("centre_x", "centre_y", "anterior_x", "anterior_y")
INDEX_COLUMNS = (
    "file",
    "study",  # the beginning of the file's name
    "study_instance_uid",
    "sop_instance_uid",
    "source",  # the radiograph's file
    "region",
    "level",
    "sites",
    "network",  # the network that sees the picture
    "predicted_grades",  # the sites' grades by a bundle
    "true_grades",  # the sites' grades by a reader, or those that a phantom was drawn with
    *(f"{name}_px" for name in _POINTS),  # the disc's points in pixels of the radiograph
    *(f"{name}_input" for name in _POINTS),  # for a localizer's picture: in pixels of that picture
    *(f"{name}_heatmap" for name in _POINTS),  # and in pixels of the heatmaps
    "points",  # `given` by a reader, or `found` by the localizer
    "facing",  # the side of the radiograph to which the patient looks
    "rotation_deg",  # the rotation of the disc, by which the crop was turned
)
_INDEX = "index.csv"
_MOST_INDEX_BYTES = 1 << 28
_HASH_DIGITS = 12


def study_names(studies: Iterable[Study]) -> list[str]:
    """Return a name for each study, `study-<hash>`: the hash of its instance UID, or of its pixels if it has none.

    A study has the same name in every call. Studies of one call that would share a name are numbered.
    """
    names: list[str] = []
    for study in studies:
        name = f"study-{_hash(study)}"
        same = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names


def _hash(study: Study) -> str:
    content = hashlib.sha256()
    if study.study_instance_uid:
        content.update(study.study_instance_uid.encode("utf-8", "replace"))
    else:
        for radiograph in study.radiographs:
            content.update(repr(radiograph.pixels.shape).encode())
            content.update(np.ascontiguousarray(radiograph.pixels).tobytes())
    return content.hexdigest()[:_HASH_DIGITS]


def crops_there(folder: Path, names: Iterable[str]) -> Path | None:
    """Return a file in `folder` that crops of a study with one of these names would overwrite, or None."""
    return next((path for name in names for path in sorted(folder.glob(f"{name}_*.png"))), None)


@dataclass(frozen=True, eq=False)
class PictureFile:
    """A picture to write: the end of its name, its grey (H x W, 0 to 1), and a row of the index for each disc."""

    name: str
    image: NDArray[np.float32]
    rows: tuple[dict[str, Cell], ...]


def write_crops(studies: Iterable[tuple[str, Iterable[PictureFile]]], folder: Path) -> int:
    """Write a PNG file for each picture and its rows in `index.csv`; return the number of pictures.

    `studies` are pairs of a study's name and its pictures. A file holds 16-bit grey, `round(65535 x grey)`, before mean
    and std. Its name consists of its study, its network and its content. Earlier pictures of these studies are
    replaced; those of other studies stay. Raises OutputError for an `index.csv` that this function did not write.
    """
    read_index(folder)
    names, count = set(), 0
    rows = io.StringIO(newline="")  # for many studies, text takes less memory than lists
    write = csv.writer(rows, lineterminator="\n").writerow
    try:
        for name, pictures in studies:
            names.add(name)
            for path in folder.glob(f"{name}_*.png"):
                path.unlink()
            for picture in pictures:
                file = f"{name}_{picture.name}.png"
                write_png(folder / file, np.round(picture.image * 65535).astype(np.uint16))
                count += 1
                for cells in picture.rows:
                    cells = {**cells, "file": file, "study": name}
                    write([guarded(cells.get(column)) for column in INDEX_COLUMNS])
            del pictures  # before the next study is read
    finally:
        earlier = read_index(folder)  # only now: another call may have written to the folder meanwhile
        kept = [row for row in earlier if row[1] not in names]
        if count or len(kept) < len(earlier):
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([INDEX_COLUMNS, *kept])
            write_atomic(folder / _INDEX, text.getvalue() + rows.getvalue())
    return count


def read_index(folder: Path) -> list[list[str]]:
    """Return the rows of a folder's `index.csv`, none without one. Raises OutputError for another program's file."""
    path = folder / _INDEX
    if not path.exists():
        return []
    try:
        text = read_text(path, _MOST_INDEX_BYTES, "utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
    except (ValueError, csv.Error):
        header, rows = [], []
    if tuple(header) != INDEX_COLUMNS or any(len(row) != len(INDEX_COLUMNS) for row in rows):
        raise OutputError(
            f"{path} has other columns than the index of crops that this version writes, so it was not touched; move "
            "it away, or name another folder with --out"
        )
    return rows


def scored_files(scored: ScoredCrops, truth: Grades) -> list[PictureFile]:
    """Return the crops that a bundle's grader saw, with its grades; `truth` has the true grades, if known."""
    cells = (_scored(crop, scored.report, truth) for crop in scored.crops)
    return [
        PictureFile(_name(crop, crop.level), crop.image, (row,)) for crop, row in zip(scored.crops, cells, strict=True)
    ]


def seen_files(seen: SeenStudy, truth: Grades) -> list[PictureFile]:
    """Return the pictures of a study with known points. `truth` has the true grades, if known."""
    rows = ((picture, tuple(_seen(picture, disc, seen, truth) for disc in picture.discs)) for picture in seen.pictures)
    return [PictureFile(_name(picture, picture.discs[0].level), picture.image, cells) for picture, cells in rows]


def _name(picture: Crop | SeenPicture, level: str) -> str:
    """Return the end of a file's name: the network, and what it sees."""
    shown = f"{level.replace('/', '-')}_{'+'.join(picture.sites)}" if picture.sites else picture.region
    return f"{picture.network}_{shown}"


def _scored(crop: Crop, report: StudyReport, truth: Grades) -> dict[str, Cell]:
    region = report.regions[crop.region]
    disc, image = region.discs[LEVELS[crop.region].index(crop.level)], region.radiograph
    return {
        "study_instance_uid": report.study.study_instance_uid,
        "sop_instance_uid": image.sop_instance_uid if image else None,
        "source": image.source if image else None,
        "region": crop.region,
        "level": crop.level,
        "sites": "+".join(crop.sites),
        "network": crop.network,
        "predicted_grades": _joined(crop.sites, {corner.site: corner.grade for corner in disc.corners}),
        "true_grades": _joined(crop.sites, truth),
        **_xy([*disc.centre_px, *disc.anterior_px], "px"),
        "points": disc.points,
        "facing": image.facing if image else None,
        "rotation_deg": disc.rotation_deg,
    }


def _seen(picture: SeenPicture, disc: SeenDisc, seen: SeenStudy, truth: Grades) -> dict[str, Cell]:
    chosen = seen.chosen[picture.region]
    return {
        "study_instance_uid": seen.study.study_instance_uid,
        "sop_instance_uid": chosen.radiograph.sop_instance_uid,
        "source": chosen.radiograph.source or None,
        "region": picture.region,
        "level": disc.level,
        "sites": "+".join(picture.sites),
        "network": picture.network,
        "true_grades": _joined(picture.sites, truth),
        **_xy(disc.source_px.ravel().tolist(), "px"),
        **({} if disc.input_px is None else _xy(disc.input_px.ravel().tolist(), "input")),
        **({} if disc.heatmap_px is None else _xy(disc.heatmap_px.ravel().tolist(), "heatmap")),
        "points": "given",
        "facing": chosen.facing,
        "rotation_deg": round(disc.rotation_deg, 3),
    }


def _xy(values: Sequence[float], unit: str) -> dict[str, Cell]:
    return {f"{name}_{unit}": round(value, 3) for name, value in zip(_POINTS, values, strict=True)}


def _joined(sites: Sequence[str], grades: Grades) -> str | None:
    """Return the grades of the sites, with `?` for a site without a grade; None if no site has one."""
    values = [grades.get(site) for site in sites]
    return None if all(value is None for value in values) else "+".join("?" if g is None else f"{g:g}" for g in values)
