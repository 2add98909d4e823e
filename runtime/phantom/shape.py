"""Spines drawn from the shape statistics of real lateral radiographs.

`spine_shape.json` holds principal component models of landmarks on 4,902 cervical (CSXA) and 663 lumbar
(BUU-LSPINE) radiographs: the centroids of seven vertebrae and, disc by disc, the anterior corners above and
below. A sample is mean + sum(z_i * std_i * vector_i) with z standard normal; all spines face left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.study import Region

__all__ = ["Frame", "Spine", "Vertebra", "sample_frame", "sample_spine"]

Array = NDArray[np.float64]

_BORDER = 0.035  # of the image's size: no graded point lies closer to the border
_Z_LIMIT = 2.5  # standard deviations; beyond it no real spine supports the model


@dataclass(frozen=True)
class Vertebra:
    """A vertebral body as a parallelogram: `centre` +- `depth` (towards posterior) +- `height` (towards caudal)."""

    name: str
    centre: Array
    depth: Array
    height: Array

    def at(self, u: float, v: float) -> Array:
        """Return the point at body coordinates (u, v): (-1, -1) is the superior anterior corner."""
        return self.centre + u * self.depth + v * self.height


@dataclass(frozen=True)
class Spine:
    """Seven vertebrae from above; disc i lies between `vertebrae[i]` and `vertebrae[i + 1]`. Units are the points'."""

    region: Region
    vertebrae: tuple[Vertebra, ...]
    unit: float  # mean distance between neighbouring centroids

    def disc_centre(self, disc: int) -> Array:
        return (self.vertebrae[disc].at(0, 1) + self.vertebrae[disc + 1].at(0, -1)) / 2

    def disc_anterior(self, disc: int) -> Array:
        return (self.vertebrae[disc].at(-1, 1) + self.vertebrae[disc + 1].at(-1, -1)) / 2

    def transformed(self, scale: float, shift: Array) -> Spine:
        """Return the spine under x -> scale * x + shift."""
        moved = (Vertebra(v.name, v.centre * scale + shift, v.depth * scale, v.height * scale) for v in self.vertebrae)
        return Spine(self.region, tuple(moved), self.unit * scale)


@dataclass(frozen=True)
class Frame:
    """The place of the spine in the image, in fractions of its height and width."""

    centre_x: float
    centre_y: float
    spacing_over_height: float
    width_over_height: float


_NAMES: dict[Region, tuple[str, ...]] = {
    "cervical": ("C2", "C3", "C4", "C5", "C6", "C7", "T1"),
    "lumbar": ("T12", "L1", "L2", "L3", "L4", "L5", "S1"),
}


@cache
def _statistics() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("spine_shape.json").read_text("utf-8"))
    return data


def sample_spine(rng: np.random.Generator, region: Region) -> Spine:
    """Draw a spine in units of its mean vertebral spacing, with the origin at the mean of its centroids."""
    model = _statistics()[f"{region}_spine"]
    points = np.array(model["mean"], np.float64)
    for mode in model["modes"]:
        z = float(np.clip(rng.standard_normal(), -_Z_LIMIT, _Z_LIMIT))
        points = points + z * mode["std"] * np.array(mode["vector"])
    landmarks = dict(zip(model["points"], points, strict=True))
    centroids = [landmarks[f"B{i}"] for i in range(1, 8)]
    above = [None] + [landmarks[f"V{i}P2"] for i in range(1, 7)]  # superior anterior corner of each vertebra
    below = [landmarks[f"V{i}P1"] for i in range(1, 7)] + [None]  # inferior anterior corner
    inner = [
        (centroid, centroid - (upper + lower) / 2, (lower - upper) / 2)
        for centroid, upper, lower in zip(centroids[1:6], above[1:6], below[1:6], strict=True)
    ]
    first = _outer_body(centroids[0], below[0], float(np.linalg.norm(inner[0][1])), caudal=1.0)
    last = _outer_body(centroids[6], above[6], float(np.linalg.norm(inner[4][1])), caudal=-1.0)
    bodies = [first, *inner, last]
    vertebrae = tuple(Vertebra(name, *body) for name, body in zip(_NAMES[region], bodies, strict=True))
    return Spine(region, vertebrae, 1.0)


def _outer_body(centroid: Array, corner: Array, half_depth: float, caudal: float) -> tuple[Array, Array, Array]:
    """Return a body with one known anterior corner: the rectangle with its centroid and the neighbour's depth.

    `caudal` is 1 if the corner is the body's lower one (first vertebra), -1 if it is the upper one (last vertebra).
    """
    diagonal = centroid - corner
    length = float(np.linalg.norm(diagonal))
    half_depth = min(half_depth, 0.92 * length)
    angle = caudal * np.arccos(half_depth / length)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    depth = turn @ diagonal * (half_depth / length)
    height = caudal * (corner + depth - centroid)
    return centroid, depth, height


def sample_frame(rng: np.random.Generator, spine: Spine) -> Frame:
    """Draw a framing by the same statistics, until every disc lies well inside the image.

    Raises ValueError if no framing of this spine fits.
    """
    stats = _statistics()[f"{spine.region}_spine"]["framing"]

    def draw(name: str) -> float:
        z = float(np.clip(rng.standard_normal(), -_Z_LIMIT, _Z_LIMIT))
        return float(stats[name]["mean"] + stats[name]["std"] * z)

    points = np.array(
        [p for i in range(6) for p in (spine.disc_centre(i), spine.disc_anterior(i), spine.vertebrae[i + 1].at(1, -1))]
    )
    for _ in range(200):
        frame = Frame(
            draw("centre_x_over_width"),
            draw("centre_y_over_height"),
            draw("spacing_over_height"),
            float(np.clip(draw("width_over_height"), 0.5, 1.0)),
        )
        y = frame.centre_y + points[:, 1] * frame.spacing_over_height
        x = frame.centre_x + points[:, 0] * frame.spacing_over_height / frame.width_over_height
        if min(x.min(), y.min()) > _BORDER and max(x.max(), y.max()) < 1 - _BORDER:
            return frame
    raise ValueError(f"no framing of this {spine.region} spine keeps all its discs inside the image")
