"""Ways to spoil phantom radiographs on purpose, each with the code that it should raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Turn

__all__ = ["SPOILS", "Spoil", "Truth"]

Spoiled = tuple[list[Radiograph], dict[str, Any] | None]  # radiographs, and points as for `Scorer.score`


@dataclass(frozen=True, eq=False)
class Truth:
    """Points (6, 2) in pixels of the sound radiograph, and the 12 grades from above."""

    centre: NDArray[np.float64]
    anterior: NDArray[np.float64]
    grades: tuple[int, ...]

    @classmethod
    def of(cls, region: Mapping[str, Any]) -> Truth:
        """Read a region of `truth.json`."""
        discs = region["discs"]
        centre, anterior = (np.array([disc[name] for disc in discs]) for name in ("centre_px", "anterior_px"))
        return cls(centre, anterior, tuple(corner["grade"] for disc in discs for corner in disc["corners"]))

    @property
    def step_px(self) -> float:
        return float(np.median(np.linalg.norm(np.diff(self.centre, axis=0), axis=1)))


Rng = np.random.Generator
Single = Callable[[Rng, Radiograph, Truth], Radiograph]


@dataclass(frozen=True)
class Spoil:
    """A way to spoil a study and the code that every radiograph should raise.

    `make` returns the spoiled radiographs, and a reader's points if the points are wrong. `stays` tells the place of
    the true points afterwards: unchanged, shifted by the rows that were cut off above, or unknown.
    """

    code: str
    make: Callable[[Rng, Sequence[Radiograph], Mapping[str, Truth]], Spoiled]
    stays: Literal["there", "below", "unknown"] = "unknown"


def _each(change: Single) -> Callable[[Rng, Sequence[Radiograph], Mapping[str, Truth]], Spoiled]:
    """Change both radiographs alike."""

    def make(rng: Rng, radiographs: Sequence[Radiograph], truth: Mapping[str, Truth]) -> Spoiled:
        images = [_with_region(image) for image in radiographs]
        return [change(rng, image, truth[image.region or "cervical"]) for image in images], None

    return make


def _with_region(radiograph: Radiograph) -> Radiograph:
    """Set the region by the file's name: a phantom's header does not always state it."""
    region = next(region for region in REGIONS if radiograph.source.startswith(region))
    return replace(radiograph, region=region)


def _seen(radiograph: Radiograph, table: NDArray[Any]) -> Radiograph:
    return replace(radiograph, table=np.clip(table, 0, 1).astype(np.float32))


def _stored(radiograph: Radiograph, values: NDArray[Any]) -> Radiograph:
    last = radiograph.stored_min + radiograph.table.size - 1
    pixels = np.clip(np.rint(values), radiograph.stored_min, last).astype(radiograph.pixels.dtype)
    return replace(radiograph, pixels=pixels)


def _white(radiograph: Radiograph) -> int:
    """Return the stored value that is shown brightest."""
    rising = radiograph.table[-1] > radiograph.table[0]
    return radiograph.stored_min + (radiograph.table.size - 1 if rising else 0)


def _window(radiograph: Radiograph) -> float:
    """Return the number of stored values that are shown neither black nor white."""
    return float(((radiograph.table > 0.01) & (radiograph.table < 0.99)).sum())


def _inverted(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    return _seen(radiograph, 1 - radiograph.table)


def _saturated(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Show everything brighter than 0.6 as white."""
    return _seen(radiograph, radiograph.table / 0.6)


def _noisy(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Add noise with a standard deviation of a tenth of the shown range."""
    noise = rng.standard_normal(radiograph.pixels.shape, dtype=np.float32)
    return _stored(radiograph, radiograph.pixels + noise * np.float32(0.1 * _window(radiograph)))


def _blank(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    return replace(radiograph, pixels=np.full_like(radiograph.pixels, np.median(radiograph.pixels)))


def _only_noise(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    return _noisy(rng, _blank(rng, radiograph, truth), truth)


def _cut(radiograph: Radiograph, rows: slice, columns: slice) -> Radiograph:
    return replace(radiograph, pixels=np.ascontiguousarray(radiograph.pixels[rows, columns]))


def _cut_two_above(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Cut above, between the second disc and the third."""
    return _cut(radiograph, slice(int(truth.centre[1:3, 1].mean()), None), slice(None))


def _cut_two_below(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Cut below, between the fourth disc and the fifth."""
    return _cut(radiograph, slice(None, int(truth.centre[3:5, 1].mean())), slice(None))


def _turned(quarters: int, mirrored: bool = False) -> Single:
    """Mirror and turn counter-clockwise; the header does not mention it."""

    def change(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
        pixels = radiograph.pixels[:, ::-1] if mirrored else radiograph.pixels
        turned = np.ascontiguousarray(np.rot90(pixels, quarters))
        return replace(radiograph, pixels=turned, facing=None, turn_deg=None)

    return change


def _headed(turn_deg: Turn, other_side: bool) -> Single:
    """Let the header state another turn, or the other side, than the picture shows."""

    def change(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
        right = bool(truth.anterior[0, 0] > truth.centre[0, 0])
        return replace(radiograph, turn_deg=turn_deg, facing="right" if right != other_side else "left")

    return change


def _cut_above(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Cut above, between the first two discs."""
    return _cut(radiograph, slice(int(truth.centre[:2, 1].mean()), None), slice(None))


def _cut_below(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Cut below, between the last two discs."""
    return _cut(radiograph, slice(None, int(truth.centre[-2:, 1].mean())), slice(None))


def _cut_in_front(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Cut at the foremost anterior point."""
    if truth.anterior[0, 0] < truth.centre[0, 0]:
        return _cut(radiograph, slice(None), slice(int(truth.anterior[:, 0].min()), None))
    return _cut(radiograph, slice(None), slice(None, int(truth.anterior[:, 0].max())))


def _painted(radiograph: Radiograph, shape: NDArray[np.uint8], blur_px: float) -> Radiograph:
    opaque = cv2.GaussianBlur(shape.astype(np.float32) / 255, (0, 0), blur_px) if blur_px else shape / np.float32(255)
    return _stored(radiograph, radiograph.pixels + (_white(radiograph) - radiograph.pixels.astype(np.float32)) * opaque)


def _screw(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Draw a metal rod by the anterior point of one disc."""
    step, at = truth.step_px, truth.anterior[rng.integers(6)] + rng.normal(0, 0.08, 2) * truth.step_px
    angle, length = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 0.9) * step
    half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    shape = np.zeros(radiograph.pixels.shape, np.uint8)
    ends = [(round(float(x)), round(float(y))) for x, y in (at - half, at + half)]
    cv2.line(shape, ends[0], ends[1], 255, max(int(step * rng.uniform(0.06, 0.12)), 3))
    return _painted(radiograph, shape, 1.2)


def _text(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
    """Burn in letters by the anterior point of one disc."""
    step, at = truth.step_px, truth.anterior[rng.integers(6)]
    scale = step * rng.uniform(0.2, 0.35) / 22  # the font's letters are 22 pixels high
    shape = np.zeros(radiograph.pixels.shape, np.uint8)
    start = (round(float(at[0] - 0.25 * step)), round(float(at[1] + 0.1 * step)))
    cv2.putText(shape, "L 12", start, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(int(2.5 * scale), 1))
    return _painted(radiograph, shape, 0)


def _spacing(factor: float) -> Single:
    def change(rng: Rng, radiograph: Radiograph, truth: Truth) -> Radiograph:
        rows, columns = radiograph.spacing_mm or (0.15, 0.15)
        return replace(radiograph, spacing_mm=(rows * factor, columns * factor))

    return change


def _given_levels(lower: bool) -> Callable[[Rng, Sequence[Radiograph], Mapping[str, Truth]], Spoiled]:
    """Give points that are one level off; the point beyond the last disc continues the spine."""

    def shifted(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if lower:
            return np.vstack([points[1:], 2 * points[-1] - points[-2]])
        return np.vstack([2 * points[0] - points[1], points[:-1]])

    def make(rng: Rng, radiographs: Sequence[Radiograph], truth: Mapping[str, Truth]) -> Spoiled:
        points: dict[str, Any] = {}
        for region in REGIONS:
            pairs = zip(LEVELS[region], shifted(truth[region].centre), shifted(truth[region].anterior), strict=True)
            points[region] = {level: (centre.tolist(), anterior.tolist()) for level, centre, anterior in pairs}
        return [_with_region(image) for image in radiographs], points

    return make


def _same_twice(rng: Rng, radiographs: Sequence[Radiograph], truth: Mapping[str, Truth]) -> Spoiled:
    """Date the lumbar radiograph to another day."""
    first, second = (_with_region(image) for image in radiographs)
    return [replace(first, study_date="20250101"), replace(second, study_date="20260101")], None


SPOILS: dict[str, Spoil] = {
    "inverted": Spoil("inverted", _each(_inverted)),
    "window too bright": Spoil("saturated", _each(_saturated)),
    "noisy": Spoil("under-exposed", _each(_noisy)),
    "one grey": Spoil("blank", _each(_blank)),
    "noise alone": Spoil("blank", _each(_only_noise)),
    "first disc cut off": Spoil("cropped-spine", _each(_cut_above), "below"),
    "last disc cut off": Spoil("cropped-spine", _each(_cut_below), "there"),
    "first two discs cut off": Spoil("unsure-points", _each(_cut_two_above), "below"),
    "last two discs cut off": Spoil("unsure-points", _each(_cut_two_below), "there"),
    "front cut off": Spoil("cropped-spine", _each(_cut_in_front)),
    "points one level lower": Spoil("level-shift", _given_levels(lower=True)),
    "points one level higher": Spoil("level-shift", _given_levels(lower=False)),
    "upside down": Spoil("not-upright", _each(_turned(2))),
    "mirrored and upside down": Spoil("not-upright", _each(_turned(2, mirrored=True))),
    "on its left side": Spoil("not-upright", _each(_turned(1))),
    "on its right side": Spoil("not-upright", _each(_turned(3))),
    "header says upside down": Spoil("orientation-contradicts", _each(_headed(180, other_side=False))),
    "header says the other side": Spoil("orientation-contradicts", _each(_headed(0, other_side=True))),
    "screw by a corner": Spoil("obscured-corner", _each(_screw)),
    "text by a corner": Spoil("obscured-corner", _each(_text)),
    "half the pixel spacing": Spoil("implausible-spacing", _each(_spacing(0.5))),
    "twice the pixel spacing": Spoil("implausible-spacing", _each(_spacing(2.0))),
    "views of two days": Spoil("views-contradict", _same_twice),
}
