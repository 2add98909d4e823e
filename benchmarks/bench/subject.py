"""What is measured: a bundle on a device, and the study that it scores."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinescore.runtime.names import DeviceName
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport
    from spinescore.runtime.study import Radiograph

__all__ = ["FULL_SIZE", "PhantomStudy", "Points", "Subject", "draw_studies", "draw_study", "full_size"]

FULL_SIZE = "synthetic"  # HRNet-W32 and ResNet152 with random weights: the sizes that people bring

_FIRST_SEED = 2_000_003
_APART = 1000  # between the seed of the repeated study and those of the different ones

Points = dict[str, dict[str, tuple[list[float], list[float]]]]


@dataclass(frozen=True)
class PhantomStudy:
    """The study that is scored, its true points (region -> level -> centre, anterior), and facts for the record."""

    files: list[Path]
    points: Points
    facts: dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """`options` are those of `Scorer.open`; with `give_points` the study's true points replace the localizer's."""

    bundle: str
    device: DeviceName
    options: dict[str, Any]
    study: PhantomStudy
    give_points: bool = False

    @property
    def points(self) -> Points | None:
        return self.study.points if self.give_points else None

    def open(self, threads: int | None = None) -> Scorer:
        """As `spinescore score` opens it, but building no engine; `threads` in place of those of the options."""
        from spinescore.runtime import Scorer

        options = self.options if threads is None else {**self.options, "threads": threads}
        return Scorer.open(self.bundle, self.device, build="no", **options)

    def work(self, scorer: Scorer) -> Callable[[], StudyReport]:
        """A whole study: from the paths of its files to the report."""
        from spinescore.runtime import load_study

        files, points = self.study.files, self.points
        return lambda: scorer.score(load_study(*files), keypoints=points)

    def on(self, study: PhantomStudy) -> Subject:
        return replace(self, study=study)


def draw_study(scratch: Path) -> PhantomStudy:
    """The first phantom whose headers state region and facing, so that no run asks the localizer for them."""
    return next(_drawn(scratch, _FIRST_SEED))


def draw_studies(scratch: Path, count: int) -> list[PhantomStudy]:
    """So many different phantoms after that of `draw_study`, each with region and facing in its headers."""
    return list(itertools.islice(_drawn(scratch, _FIRST_SEED + _APART), count))


def _drawn(scratch: Path, first_seed: int) -> Iterator[PhantomStudy]:
    from spinescore.runtime import load_study
    from spinescore.runtime.phantom import write_study

    for seed in itertools.count(first_seed):
        folder = scratch / f"study-{seed}"
        write_study(seed, folder)
        files = sorted(folder.glob("*.dcm"))
        radiographs = load_study(*files).radiographs
        if all(radiograph.region and radiograph.facing for radiograph in radiographs):
            yield _study(folder, files, seed, radiographs)


def _study(folder: Path, files: list[Path], seed: int, radiographs: Sequence[Radiograph]) -> PhantomStudy:
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["regions"]
    points = {
        region: {disc["level"]: (disc["centre_px"], disc["anterior_px"]) for disc in view["discs"]}
        for region, view in truth.items()
    }
    images = [{"rows": r.rows, "columns": r.columns, "bytes_per_pixel": r.pixels.itemsize} for r in radiographs]
    return PhantomStudy(files, points, {"phantom_seed": seed, "transfer_syntax": "uncompressed", "images": images})


def full_size(scratch: Path, int8: bool = False) -> Path:
    """A bundle of HRNet-W32 and ResNet152 with random weights; INT8 files take minutes."""
    from spinescore.export.bundle import export_bundle

    folder = scratch / "synthetic-w32-resnet152"
    export_bundle("synthetic:hrnet-w32", "synthetic:resnet152", folder, int8=int8)
    return folder
