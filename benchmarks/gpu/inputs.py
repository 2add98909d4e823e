"""Studies for the pipeline, from phantoms and from plain pictures, without DICOM files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.warpcases import noise, waves
from spinescore.kernels.decode import DISCS, VIEW
from spinescore.kernels.warp import ROI, Source
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.geometry import whole_image
from spinescore.runtime.scoring.pipeline import Pipeline, Results
from spinescore.runtime.study import REGIONS, Facing

__all__ = ["BOTH", "Study", "phantom", "picture", "score", "timed_study"]

BOTH = slice(0, 2)

_STEEPEST_DEG = 25.0


@dataclass(frozen=True, eq=False)
class Study:
    """Two radiographs as the device takes them, cervical first; `given` are the `views` with their true points."""

    name: str
    sources: tuple[Source, Source]
    whole: NDArray[np.void]
    views: NDArray[np.void]
    given: NDArray[np.void]

    def heatmap_px(self) -> NDArray[np.float64]:
        """Return the source pixels per heatmap pixel for each view (2, 1, 1)."""
        return 4.0 * np.abs(self.whole["matrix"][:, 0, 0].astype(np.float64))[:, None, None]

    @property
    def pixel_bytes(self) -> int:
        return sum(source.pixels.nbytes for source in self.sources)


def phantom(seed: int, size: NetworkInput, scale: float = 1.0) -> Study:
    """Draw both radiographs of the phantom study `seed`; `scale` below 1 gives fewer pixels."""
    from spinescore.runtime.phantom.study import draw_view

    sources, facings, points = [], [], []
    for region in REGIONS:
        view = draw_view(seed, region, scale)
        low, high = np.percentile(view.image.pixels, [1, 99])
        ramp = np.clip((np.arange(1 << view.image.bits) - low) / max(high - low, 1), 0, 1).astype(np.float32)
        table = 1 - ramp if view.image.inverted else ramp
        sources.append(Source(view.image.pixels, (table, table)))
        facings.append(view.facing)
        points.append(np.stack([view.centres_px, view.anteriors_px], axis=1))
    return _study(f"phantom {seed}", sources, facings, np.array(points), size)


def picture(rows: int, columns: int, size: NetworkInput, seed: int = 0, dtype: str = "uint16") -> Study:
    """Draw waves with a little noise over all values of the type, with the points of an upright spine."""
    limits = np.iinfo(dtype)
    table = np.linspace(0, 1, int(limits.max) - int(limits.min) + 1, dtype=np.float32)
    facings: list[Facing] = ["right" if (seed + number) % 2 else "left" for number in range(len(REGIONS))]
    rng = np.random.default_rng(seed)
    points = np.array([_spine(rng, rows, columns, facing) for facing in facings])
    sources = []
    for number in range(len(REGIONS)):
        mixed = waves(rows, columns, dtype) // 2 + noise(rows, columns, dtype, seed + number) // 16
        sources.append(Source(mixed.astype(dtype), (table, table), int(limits.min)))
    return _study(f"{rows} x {columns} {dtype}", sources, facings, points, size)


def timed_study(quick: bool, size: NetworkInput) -> Study:
    """Return the study for all times: 3000 x 2500 pixels of 16 bits each."""
    return picture(*((150, 125) if quick else (3000, 2500)), size)


def score(device: Any, pipeline: Pipeline, study: Study, given: bool) -> Results:
    """Upload both radiographs and run the pipeline."""
    for slot, source in enumerate(study.sources):
        device.upload(slot, source)
    return pipeline.score(BOTH, study.whole, study.given if given else study.views)


def _spine(rng: np.random.Generator, rows: int, columns: int, facing: Facing) -> NDArray[np.float64]:
    """Return (6, 2, 2): centres down the middle, anterior points half a spacing before them, turned by up to 25 deg."""
    spacing = 0.12 * rows
    centre = np.stack([np.full(DISCS, columns / 2.0), 0.2 * rows + spacing * np.arange(DISCS)], axis=1)
    turn = np.radians(rng.uniform(-_STEEPEST_DEG, _STEEPEST_DEG, DISCS))
    side = 1.0 if facing == "right" else -1.0
    anterior = centre + 0.5 * spacing * np.stack([side * np.cos(turn), np.sin(turn)], axis=1)
    return np.stack([centre, anterior], axis=1)


def _study(
    name: str, sources: Sequence[Source], facings: Sequence[Facing], points: NDArray[np.float64], size: NetworkInput
) -> Study:
    whole, views = np.zeros(len(REGIONS), ROI), np.zeros(len(REGIONS), VIEW)
    for number, (source, facing) in enumerate(zip(sources, facings, strict=True)):
        rows, columns = source.pixels.shape
        whole[number] = whole_image(number, rows, columns, (size.height, size.width), size.fit or "stretch", facing)
        views[number]["source"] = views[number]["region"] = number
        views[number]["faces_right"] = facing == "right"
    given = views.copy()
    given["given"], given["given_xy"] = 1, points
    return Study(name, (sources[0], sources[1]), whole, views, given)
