"""From attenuation to stored values: primary beam, scatter, unsharpness, quantum noise, processing, bits.

Maps are changed in place where they can be: the system fills each new one with zeros first, a third of the time here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Image", "expose"]

Map = NDArray[np.float32]

_BLOCK = 16  # scatter and the processing's base layer vary slowly: one value per block of this many pixels


@dataclass(frozen=True, eq=False)
class Image:
    """The stored picture. `window` is (centre, width) in stored values, or None if the modality writes none."""

    pixels: NDArray[np.uint16]
    bits: int
    inverted: bool  # MONOCHROME1: the largest value is black
    window: tuple[float, float] | None


def expose(rng: np.random.Generator, attenuation: Map, pixel_mm: float, mirrored: bool) -> Image:
    """Expose `attenuation` (H x W, line integrals) on a detector with `pixel_mm` between its pixels.

    `mirrored` flips the picture left to right before the marker is burned in, for a patient who looks to the right.
    `attenuation` is overwritten.
    """
    if mirrored:
        attenuation = np.ascontiguousarray(attenuation[:, ::-1])
    rows, columns = attenuation.shape
    field, shutter = _collimation(rng, rows, columns)
    _marker(rng, attenuation, field)
    primary = np.exp(np.negative(attenuation, out=attenuation), out=attenuation)
    top, bottom = rng.uniform(0.85, 1.15, 2)
    heel = np.linspace(top, bottom, rows, dtype=np.float32)[:, None]
    primary *= heel
    x0, y0, x1, y1 = field
    blocked = np.full((rows, columns), 0.004, np.float32)
    blocked[y0:y1, x0:x1] = 1
    primary *= cv2.GaussianBlur(blocked, (0, 0), max(0.4 / pixel_mm, 0.5))
    centre = primary[y0:y1, x0:x1][::_BLOCK, ::_BLOCK]
    level = float(np.median(centre[centre < np.percentile(centre, 70)]))  # the exposure control sees the body, not air
    scatter = rng.uniform(0.3, 0.9) * _slow(np.minimum(primary, 4 * level), 25 / pixel_mm)
    signal = np.asarray(cv2.GaussianBlur(primary, (0, 0), rng.uniform(0.10, 0.18) / pixel_mm), np.float32)
    signal += scatter
    quanta = rng.uniform(20_000, 90_000) * pixel_mm**2  # per pixel with the signal `level`
    signal *= quanta / level
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    noise *= np.sqrt(signal)
    signal += noise
    np.maximum(signal, 0.05 * quanta * 0.01, out=signal)
    signal /= np.float32(quanta)
    grey: Map = np.negative(np.log(signal, out=signal), out=signal)
    return _store(rng, _process(rng, grey, pixel_mm), field, shutter)


def _collimation(rng: np.random.Generator, rows: int, columns: int) -> tuple[tuple[int, int, int, int], bool]:
    """Draw the exposed field (x0, y0, x1, y1), and whether the modality blackens the area outside."""
    if rng.random() < 0.4:
        return (0, 0, columns, rows), False
    left, right, top, bottom = rng.uniform(0.0, 0.03, 4)
    field = int(left * columns), int(top * rows), columns - int(right * columns), rows - int(bottom * rows)
    return field, bool(rng.random() < 0.6)


def _marker(rng: np.random.Generator, attenuation: Map, field: tuple[int, int, int, int]) -> None:
    """Add a lead letter near a corner of the field."""
    x0, y0, x1, y1 = field
    size = int((y1 - y0) * rng.uniform(0.025, 0.04))
    letter = np.zeros((size, size), np.uint8)
    scale, thick = size / 32, max(size // 10, 2)
    cv2.putText(
        letter, str(rng.choice(["L", "R"])), (size // 6, size - size // 6), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick
    )
    x = x0 + int((x1 - x0) * rng.choice([rng.uniform(0.03, 0.08), rng.uniform(0.86, 0.92)]))
    y = y0 + int((y1 - y0) * rng.choice([rng.uniform(0.04, 0.2), rng.uniform(0.8, 0.93)]))
    attenuation[y : y + size, x : x + size] += letter.astype(np.float32) * np.float32(5 / 255)


def _slow(image: Map, sigma_px: float) -> Map:
    """Blur with a Gaussian of many pixels, computed on blocks."""
    rows, columns = image.shape
    small = cv2.resize(image, (max(columns // _BLOCK, 2), max(rows // _BLOCK, 2)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(sigma_px / _BLOCK, 0.6), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def _process(rng: np.random.Generator, grey: Map, pixel_mm: float) -> Map:
    """Apply the modality's dynamic range compression and detail enhancement to `grey`, and return it."""
    base = _slow(grey, rng.uniform(6, 20) / pixel_mm)
    detail, compression = rng.uniform(1.0, 1.5), rng.uniform(0.5, 1.0)
    grey *= detail
    base *= compression - detail
    grey += base
    return grey


def _store(rng: np.random.Generator, grey: Map, field: tuple[int, int, int, int], shutter: bool) -> Image:
    bits = int(rng.choice([10, 12, 12, 12, 14, 15]))
    inverted = bool(rng.random() < 0.5)
    x0, y0, x1, y1 = field
    inner = grey[y0:y1:8, x0:x1:8]
    low, high = (float(p) for p in np.percentile(inner, [rng.uniform(4, 14), 99.7]))
    room = high - low
    bottom, top = low - rng.uniform(0.05, 0.35) * room, high + rng.uniform(0.05, 0.35) * room
    full = 2**bits - 1
    stored = np.subtract(grey, np.float32(bottom), out=grey)
    stored *= np.float32(full / (top - bottom))
    if shutter:
        stored[:y0], stored[y1:], stored[:, :x0], stored[:, x1:] = 0, 0, 0, 0
    if inverted:
        np.subtract(full, stored, out=stored)
    pixels = np.clip(np.rint(stored, out=stored), 0, full, out=stored).astype(np.uint16)
    window = None
    if rng.random() < 0.75:
        ends = np.array([low, high]) + room * rng.uniform(-0.06, 0.06, 2)
        a, b = (ends - bottom) / (top - bottom) * full
        a, b = (full - b, full - a) if inverted else (a, b)
        window = (round(float(a + b) / 2), max(round(float(b - a)), 2))
    return Image(pixels, bits, inverted, window)
