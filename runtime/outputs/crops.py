"""The regions exactly as the grader sees them, as files: to train on what will be run, and for a look."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.output import write_atomic, write_png

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport
    from spinescore.runtime.scorer import Crop, ScoredCrops

__all__ = ["INDEX_COLUMNS", "write_crops"]

INDEX_COLUMNS = (
    "file",
    "study_instance_uid",
    "sop_instance_uid",
    "region",
    "level",
    "sites",
    "network",
    "predicted_grades",
)


def write_crops(studies: Iterable[ScoredCrops], folder: Path) -> int:
    """Write a PNG file for each crop and `index.csv`; returns the number of crops.

    A file holds 16-bit grey, `round(65535 x grey)`, before mean and std. It is named after its study's number, the
    network that sees it, the level and the sites that are graded in it.
    """
    rows: list[list[object]] = []
    for number, study in enumerate(studies, 1):
        for crop in study.crops:
            sites = "+".join(crop.sites)
            name = f"study-{number}_{crop.network}_{crop.level.replace('/', '-')}_{sites}.png"
            write_png(folder / name, np.round(crop.image * 65535).astype(np.uint16))
            rows.append([name, *_facts(crop, study.report)])
    if rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([INDEX_COLUMNS, *rows])
        write_atomic(folder / "index.csv", text.getvalue())
    return len(rows)


def _facts(crop: Crop, report: StudyReport) -> list[object]:
    region = report.regions[crop.region]
    grades = {corner.site: corner.grade for disc in region.discs for corner in disc.corners}
    known = ("" if grades.get(site) is None else str(grades[site]) for site in crop.sites)
    image = region.radiograph.sop_instance_uid if region.radiograph else None
    uid = report.study.study_instance_uid
    return [uid, image, crop.region, crop.level, "+".join(crop.sites), crop.network, "+".join(known)]
