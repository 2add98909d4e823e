"""Phantom studies whose DICOM headers state region and facing, so that no localizer has to find them out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PhantomStudy", "Points", "keypoints_json", "write_labelled_studies", "write_labelled_study"]

_FIRST_SEED = 2_000_003
_STEP = 1000  # from the seed of the one study to the first seed of the different ones

Points = dict[str, dict[str, tuple[list[float], list[float]]]]


@dataclass(frozen=True)
class PhantomStudy:
    """A study's files, its true points (region -> level -> centre, anterior), and facts for a record."""

    files: list[Path]
    points: Points
    facts: dict[str, Any]


def write_labelled_study(folder: Path) -> PhantomStudy:
    """Draw one study and write it below `folder`; always the same one."""
    return next(_written(folder, _FIRST_SEED))


def write_labelled_studies(folder: Path, count: int) -> list[PhantomStudy]:
    """Draw `count` studies that differ from each other and from that of `write_labelled_study`."""
    return list(itertools.islice(_written(folder, _FIRST_SEED + _STEP), count))


def keypoints_json(points: Points) -> str:
    """Return the points as the JSON text that `--keypoints` reads."""
    regions = {
        region: {level: {"centre_px": centre, "anterior_px": anterior} for level, (centre, anterior) in levels.items()}
        for region, levels in points.items()
    }
    return json.dumps(regions)


def _written(folder: Path, first_seed: int) -> Iterator[PhantomStudy]:
    from spinescore.runtime.phantom.study import write_study
    from spinescore.runtime.reading.studies import load_study

    for seed in itertools.count(first_seed):
        place = write_study(seed, folder / f"study-{seed}")
        files = sorted(place.glob("*.dcm"))
        radiographs = load_study(*files).radiographs
        if not all(radiograph.region and radiograph.facing for radiograph in radiographs):
            continue
        truth = json.loads((place / "truth.json").read_text(encoding="utf-8"))["regions"]
        points = {
            region: {disc["level"]: (disc["centre_px"], disc["anterior_px"]) for disc in view["discs"]}
            for region, view in truth.items()
        }
        images = [{"rows": r.rows, "columns": r.columns, "bytes_per_pixel": r.pixels.itemsize} for r in radiographs]
        yield PhantomStudy(files, points, {"phantom_seed": seed, "transfer_syntax": "uncompressed", "images": images})
