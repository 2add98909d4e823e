"""The subjects of measurements: a bundle on a device with a study, and phantoms with known truth."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spinescore.runtime.names import DeviceName
    from spinescore.runtime.phantom.labelled import PhantomStudy, Points
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport
    from spinescore.runtime.study import Study

__all__ = ["FULL_SIZE", "Subject", "bundle_facts", "full_size", "read_phantom"]

FULL_SIZE = "synthetic"  # HRNet-W32 and ResNet152 with random weights: the sizes that people bring


@dataclass(frozen=True)
class Subject:
    """A bundle, the options of `Scorer.open`, and the study that is scored.

    With `give_points` the study's true points replace those of the localizer.
    """

    bundle: str
    device: DeviceName
    options: dict[str, Any]
    study: PhantomStudy
    give_points: bool = False

    @property
    def points(self) -> Points | None:
        return self.study.points if self.give_points else None

    def open(self, threads: int | None = None) -> Scorer:
        """Open the scorer as `spinescore score` does, but build no engine; `threads` replaces that of the options."""
        from spinescore.runtime import Scorer

        options = self.options if threads is None else {**self.options, "threads": threads}
        return Scorer.open(self.bundle, self.device, build="no", **options)

    def work(self, scorer: Scorer) -> Callable[[], StudyReport]:
        """Return a function that scores the study once, from the paths of its files to the report."""
        from spinescore.runtime import load_study

        files, points = self.study.files, self.points
        return lambda: scorer.score(load_study(*files), keypoints=points)

    def on(self, study: PhantomStudy) -> Subject:
        return replace(self, study=study)


def full_size(scratch: Path, int8: bool = False) -> Path:
    """Export a bundle of HRNet-W32 and ResNet152 with random weights; INT8 files take minutes."""
    from spinescore.export.bundle import export_bundle

    folder = scratch / "synthetic-w32-resnet152"
    export_bundle("synthetic:hrnet-w32", "synthetic:resnet152", folder, int8=int8)
    return folder


def read_phantom(seed: int, visit: int = 0) -> tuple[Study, dict[str, Any]]:
    """Draw the phantom study `seed`, read it from its DICOM files, and return it with its `truth.json`."""
    from spinescore.runtime import load_study
    from spinescore.runtime.phantom import write_study
    from spinescore.runtime.study import REGIONS

    with tempfile.TemporaryDirectory(prefix="spinescore-") as name:
        folder = write_study(seed, name, visit)
        study = load_study(*(folder / f"{region}.dcm" for region in REGIONS))
        truth: dict[str, Any] = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        # Pixels may be mapped from the files, which go away here.
        radiographs = tuple(replace(image, pixels=np.array(image.pixels)) for image in study.radiographs)
    return replace(study, radiographs=radiographs), truth


def bundle_facts(scorer: Scorer) -> dict[str, str]:
    """Return the bundle's name and hash, for a record."""
    return {"name": scorer.bundle.manifest.name, "sha256": scorer.bundle.sha256}
