"""The surroundings of the spine on a lateral radiograph: soft tissue, skull, shoulders, ribs, pelvis, gas.

Positions are given in units of the mean vertebral spacing about the spine's landmarks, so that they follow its
shape. Attenuations are line integrals (dimensionless); air is 0. Smooth structures are drawn on a coarse grid.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.phantom.bones import fill, ribbon
from spinescore.runtime.phantom.shape import Spine

__all__ = ["draw_surroundings"]

Map = NDArray[np.float32]
Array = NDArray[np.float64]

_COARSE = 8  # pixels of the fine grid per pixel of the coarse one


def draw_surroundings(rng: np.random.Generator, bone: Map, spine: Spine, mm: float) -> Map:
    """Add overlying bones to `bone` and return the soft tissue's attenuation, both on the fine grid."""
    rows, columns = bone.shape
    coarse = np.zeros((rows // _COARSE + 2, columns // _COARSE + 2), np.float32)
    small = spine.transformed(1 / _COARSE, np.zeros(2))
    if spine.region == "cervical":
        _neck(rng, coarse, small)
        _head(rng, bone, coarse, spine, mm)
    else:
        _abdomen(rng, coarse, small)
        _ribs_and_pelvis(rng, bone, spine, mm)
    coarse += 0.05 * _clouds(rng, coarse.shape, small.unit)
    coarse = np.maximum(cv2.GaussianBlur(coarse, (0, 0), 0.05 * small.unit + 0.5), 0)
    size = (coarse.shape[1] * _COARSE, coarse.shape[0] * _COARSE)
    return np.ascontiguousarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)[:rows, :columns])


def _clouds(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Map:
    """Draw a smooth random field of standard deviation 1, for muscle and fat."""
    total = np.zeros(shape, np.float32)
    for scale, weight in ((0.25, 0.5), (0.8, 0.8), (2.0, 1.0)):
        grid = rng.standard_normal([max(int(side / (scale * unit)), 2) + 2 for side in shape])
        total += weight * cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total / max(float(total.std()), 1e-6)


def _edge(spine: Spine, ys: Map, u: float) -> Map:
    """Return x of the spine's anterior (u = -1) or posterior (1) edge at each row; straight beyond its ends."""
    points = np.array([v.at(u, 0) for v in spine.vertebrae])
    x, y = points[np.argsort(points[:, 1])].T
    edge: Map = np.interp(ys[:, 0], y, x).astype(np.float32)[:, None]
    return edge


def _profile(xs: Map, low: Map, high: Map) -> Map:
    """Return the chord of an elliptical cross-section between two contours: 0 outside, 1 in the middle."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1)
    return np.sqrt(np.clip(1 - ((xs - middle) / half) ** 2, 0, None))


def _neck(rng: np.random.Generator, soft: Map, spine: Spine) -> None:
    ys, xs = np.mgrid[: soft.shape[0], : soft.shape[1]].astype(np.float32)
    u = spine.unit
    front, back = _edge(spine, ys, -1.0), _edge(spine, ys, 1.0)
    t1, c2 = spine.vertebrae[-1].centre, spine.vertebrae[0].centre
    down = np.clip((ys[:, :1] - c2[1]) / (t1[1] - c2[1]), -1.5, 2)
    low = front - u * (rng.uniform(2.0, 3.0) + 1.6 * np.clip(-down + 0.1, 0, 1) + 0.9 * np.clip(down - 0.85, 0, 2))
    high = back + u * (rng.uniform(3.0, 4.4) + 0.8 * down**2)
    soft += rng.uniform(2.0, 2.8) * _profile(xs, low, high) ** 0.7
    # Airway: the pharynx close to the spine, the trachea farther from it below C5.
    distance = u * (0.55 + 0.55 * np.clip(4 * (down - 0.45), 0, 1))
    width = u * rng.uniform(0.26, 0.42)
    airway = np.exp(-(((xs - (front - distance)) / width) ** 4))
    soft -= rng.uniform(0.25, 0.7) * airway * (low < xs) * np.clip(2 + 4 * down, 0, 1)
    # Shoulders: an oblique edge somewhere between C6 and below T1.
    edge = spine.vertebrae[5].centre[1] + u * rng.uniform(-0.3, 2.0) + rng.uniform(-0.12, 0.3) * (xs - t1[0])
    ramp = 1 / (1 + np.exp(-(ys - edge) / (u * rng.uniform(0.25, 0.6))))
    soft += rng.uniform(0.6, 2.2) * ramp * np.clip(_profile(xs, low - 3 * u, high + 3 * u), 0.3, 1)


def _ellipse(centre: Array, rx: float, ry: float, tilt: float, wobble: Array | None = None) -> Array:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    r = np.ones_like(angle)
    if wobble is not None:
        for k, w in enumerate(wobble, 2):
            r = r + w * np.cos(k * angle + 5 * w)
    x, y = rx * r * np.cos(angle), ry * r * np.sin(angle)
    c, s = np.cos(tilt), np.sin(tilt)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], 1)


def _ribbon(path: Array, width: float) -> Array:
    """Return the outline of a band of constant width along a smoothed path."""
    t = np.linspace(0, 1, len(path))
    fine = np.linspace(0, 1, 40)
    coefficients = np.polyfit(t, path, min(3, len(path) - 1))
    curve = sum(c * fine[:, None] ** (len(coefficients) - 1 - k) for k, c in enumerate(coefficients))
    return ribbon(np.asarray(curve), width)


def _head(rng: np.random.Generator, bone: Map, soft: Map, spine: Spine, mm: float) -> None:
    u, c2 = spine.unit, spine.vertebrae[0]
    top = c2.at(0, -1)
    up = -c2.height / np.linalg.norm(c2.height)
    back = c2.depth / np.linalg.norm(c2.depth)

    def place(x: float, y: float) -> Array:
        return top + u * (x * back + y * up)

    blur = 0.6 * mm
    dens = np.array([place(-0.28, -0.1), place(-0.2, 0.75), place(0.0, 0.9), place(0.2, 0.72), place(0.3, -0.1)])
    fill(bone, dens, 0.32, blur, 0.5)
    fill(bone, _ellipse(place(-0.52, 0.5), 0.15 * u, 0.27 * u, 0.1), 0.4, blur, 0.6)  # anterior arch of C1
    fill(bone, _ellipse(place(1.7, 0.35), 0.75 * u, 0.17 * u, 0.2), 0.3, blur, 0.6)  # posterior arch of C1
    occiput = _ellipse(place(rng.uniform(1.0, 1.8), rng.uniform(3.4, 4.0)), 4.4 * u, 2.6 * u, 0.15)
    fill(bone, occiput, rng.uniform(0.5, 1.1), 1.5 * mm, 0.5)
    base = _ribbon(np.array([place(-2.2, 2.0), place(-0.4, 1.35), place(1.5, 1.1), place(3.6, 1.9)]), 0.35 * u)
    fill(bone, base, rng.uniform(0.3, 0.7), mm, 0.3)
    lift = rng.uniform(-0.5, 0.5)
    for shift in (0.0, rng.uniform(0.1, 0.45)):  # the two sides of the mandible do not project onto each other
        ramus = np.array(
            [place(-1.2, 1.7 + lift), place(-1.35, 0.3 + lift), place(-1.9, -0.6 + lift), place(-4.6, -1.2 + lift)]
        )
        fill(bone, _ribbon(ramus + shift * u * (0.6 * up - 0.4 * back), 0.75 * u), rng.uniform(0.25, 0.5), mm, 0.5)
    if rng.random() < 0.4:  # dental fillings
        for _ in range(int(rng.integers(1, 4))):
            filling = _ellipse(place(rng.uniform(-4.2, -2.6), rng.uniform(0.0, 0.7)), 0.2 * u, 0.15 * u, 0)
            fill(bone, filling, 2.5, 0.4 * mm)
    hyoid = spine.vertebrae[2].centre - u * np.array([rng.uniform(1.6, 2.0), rng.uniform(-0.3, 0.3)])
    fill(bone, _ellipse(hyoid, 0.45 * u, 0.09 * u, 0.35), 0.22, blur, 0.4)


def _abdomen(rng: np.random.Generator, soft: Map, spine: Spine) -> None:
    ys, xs = np.mgrid[: soft.shape[0], : soft.shape[1]].astype(np.float32)
    u = spine.unit
    front, back = _edge(spine, ys, -1.0), _edge(spine, ys, 1.0)
    low, high = front - u * rng.uniform(2.4, 4.2), back + u * rng.uniform(1.9, 2.9)
    soft += rng.uniform(3.4, 4.8) * _profile(xs, low, high) ** 0.6
    # Lung above the diaphragm's dome, in front of and over T12.
    dome_x = spine.vertebrae[0].centre[0] - u * rng.uniform(0.3, 1.8)
    dome_y = spine.vertebrae[0].centre[1] + u * rng.uniform(-0.9, 0.7)
    lung = 1 / (1 + np.exp((ys - dome_y - 0.10 * (xs - dome_x) ** 2 / u) / (0.05 * u)))
    soft -= rng.uniform(0.5, 1.1) * lung * (low < xs) * (xs < high)
    soft += rng.uniform(0.2, 1.0) / (1 + np.exp(-(ys - spine.vertebrae[5].centre[1] - 0.4 * u) / (0.5 * u)))  # hips
    for _ in range(int(rng.integers(2, 9))):  # bowel gas
        anterior = spine.vertebrae[int(rng.integers(1, 7))].at(-1, 0)
        centre = anterior + u * np.array([-rng.gamma(2.0, 0.55), rng.normal(0, 0.5)])
        rx, ry, tilt = u * rng.uniform(0.15, 0.6), u * rng.uniform(0.12, 0.4), rng.uniform(0, 3)
        outline = _ellipse(centre, rx, ry, tilt, rng.normal(0, 0.12, 3))
        fill(soft, outline, -rng.uniform(0.15, 0.5), blur=max(0.03 * u, 0.4))


def _ribs_and_pelvis(rng: np.random.Generator, bone: Map, spine: Spine, mm: float) -> None:
    u = spine.unit
    for index in range(int(rng.integers(2, 4))):
        for _ in range(2):  # both sides
            start = spine.vertebrae[0].at(1.2, -0.4) + u * np.array([rng.normal(0, 0.15), 0.95 * (index - 1.6)])
            slope = rng.uniform(0.25, 0.75)
            steps = np.array([[0.9, -0.1], [0.2, 0.1 * slope], [-1.0, 0.8 * slope], [-2.4, 2.0 * slope]])
            path = start + u * (steps + np.array([0.0, rng.normal(0, 0.12)]))
            fill(bone, _ribbon(path, u * rng.uniform(0.18, 0.28)), rng.uniform(0.08, 0.2), 0.5 * mm, 0.9)
    l5 = spine.vertebrae[5]
    for _ in range(2):
        crest = l5.centre + u * np.array([rng.normal(0.5, 0.3), rng.uniform(-0.9, 0.1)])
        wing = np.array(
            [[-1.6, 0.9], [-1.1, 0.25], [0.0, 0.0], [1.2, 0.35], [1.9, 1.2], [1.7, 3.5], [-0.6, 4.2], [-1.5, 2.2]]
        )
        fill(bone, crest + u * _smooth(wing), rng.uniform(0.12, 0.34), 0.9 * mm, 0.9)
    if rng.random() < 0.15:  # calcified wall of the aorta
        wall = np.array([v.at(-1, 0) - [u * rng.uniform(0.35, 0.6), 0] for v in spine.vertebrae[1:5]])
        fill(bone, _ribbon(wall, 1.2 * mm), rng.uniform(0.08, 0.18), 0.4 * mm)


def _smooth(outline: Array) -> Array:
    """Round a closed outline by three rounds of corner cutting (Chaikin)."""
    for _ in range(3):
        following = np.roll(outline, -1, 0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return outline
