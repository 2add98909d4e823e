"""The regions exactly as the grader sees them, as files: to train on what will be run, and for a look.

Files are named after their study, so that several calls may write to one folder; its `index.csv` lists them all.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.errors import OutputError
from spinescore.runtime.output import write_atomic, write_png
from spinescore.runtime.outputs.rows import guarded
from spinescore.runtime.study import LEVELS, Study

if TYPE_CHECKING:
    from spinescore.runtime.report import DiscReport, StudyReport
    from spinescore.runtime.scorer import Crop, ScoredCrops

__all__ = ["INDEX_COLUMNS", "crops_there", "read_index", "study_names", "write_crops"]

INDEX_COLUMNS = (
    "file",
    "study",  # the beginning of the file's name
    "study_instance_uid",
    "sop_instance_uid",
    "source",  # the radiograph's file
    "region",
    "level",
    "sites",
    "network",
    "predicted_grades",
    "centre_x_px",  # of the disc, in pixels of the radiograph
    "centre_y_px",
    "anterior_x_px",
    "anterior_y_px",
    "points",  # given by a reader, or found
    "facing",  # the side of the radiograph to which the patient looks
    "rotation_deg",  # of the disc, by which the crop was turned
)
_INDEX = "index.csv"
_HASH_DIGITS = 12


def study_names(studies: Sequence[Study]) -> list[str]:
    """A name for each study, `study-<hash>`: of its instance UID, or of its pixels if it states none.

    The same study has the same name in every call. Studies of one call that would share a name are numbered.
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
    """A file in `folder` that crops of a study of these names would overwrite; None if there is none."""
    return next((path for name in names for path in sorted(folder.glob(f"{name}_*.png"))), None)


def write_crops(studies: Iterable[tuple[str, ScoredCrops]], folder: Path) -> int:
    """Write a PNG file for each crop, and its row in `index.csv`; returns the number of crops.

    A file holds 16-bit grey, `round(65535 x grey)`, before mean and std. It is called after its study's name, the
    network that sees it, the level and the sites that are graded in it. Earlier crops of these studies are replaced,
    those of others stay. Raises OutputError for an `index.csv` that this function did not write.
    """
    earlier, names = read_index(folder), set()
    rows: list[Sequence[object]] = []
    try:
        for name, study in studies:
            names.add(name)
            for path in folder.glob(f"{name}_*.png"):
                path.unlink()
            for crop in study.crops:
                file = f"{name}_{crop.network}_{crop.level.replace('/', '-')}_{'+'.join(crop.sites)}.png"
                write_png(folder / file, np.round(crop.image * 65535).astype(np.uint16))
                rows.append([file, name, *map(guarded, _facts(crop, study.report))])
    finally:
        kept = [row for row in earlier if row[1] not in names]
        if rows or len(kept) < len(earlier):
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([INDEX_COLUMNS, *kept, *rows])
            write_atomic(folder / _INDEX, text.getvalue())
    return len(rows)


def read_index(folder: Path) -> list[list[str]]:
    """The rows of the `index.csv` in a folder, none if there is no such file. Raises OutputError for another's."""
    path = folder / _INDEX
    if not path.exists():
        return []
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    except (ValueError, csv.Error):
        header, rows = [], []
    if tuple(header) != INDEX_COLUMNS or any(len(row) != len(INDEX_COLUMNS) for row in rows):
        raise OutputError(
            f"{path} has other columns than the index of crops that this version writes, so it was not touched; move "
            "it away, or name another folder with --out"
        )
    return rows


def _facts(crop: Crop, report: StudyReport) -> list[str | float | None]:
    region = report.regions[crop.region]
    disc = region.discs[LEVELS[crop.region].index(crop.level)]
    image = region.radiograph
    return [
        report.study.study_instance_uid,
        image.sop_instance_uid if image else None,
        image.source if image else None,
        crop.region,
        crop.level,
        "+".join(crop.sites),
        crop.network,
        _grades(crop, disc),
        *disc.centre_px,
        *disc.anterior_px,
        disc.points,
        image.facing if image else None,
        disc.rotation_deg,
    ]


def _grades(crop: Crop, disc: DiscReport) -> str:
    grades = {corner.site: corner.grade for corner in disc.corners}
    return "+".join("" if grades.get(site) is None else str(grades[site]) for site in crop.sites)
