"""The vertebrae as a radiograph shows them: bodies with cortical shells, corners by grade, posterior elements.

Everything adds to one map of bone attenuation (line integral, dimensionless). Lengths are in pixels of that map;
`mm` is the pixels per millimetre at the object.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.phantom.corners import Corner, Disc
from spinescore.runtime.phantom.shape import Spine, Vertebra

__all__ = ["draw_spine", "fill", "ribbon"]

Map = NDArray[np.float32]
Point = NDArray[np.float64]

_SUBPIXEL = 16  # cv2's fixed-point factor for shift=4


def draw_spine(rng: np.random.Generator, bone: Map, spine: Spine, discs: tuple[Disc, ...], mm: float) -> None:
    """Add all vertebrae, their posterior elements and the outgrowths between them to `bone`."""
    density = rng.uniform(0.75, 1.2)
    texture = _texture(rng, mm)
    shell_mm = rng.uniform(0.45, 0.8)
    concavity = rng.uniform(0.08, 0.14)
    for i, vertebra in enumerate(spine.vertebrae):
        upper = discs[i - 1][1] if i > 0 else Corner(0)
        lower = discs[i][0] if i < 6 else Corner(0)
        body = _Body(rng, vertebra, upper, lower, mm, concavity)
        _posterior(rng, bone, spine, vertebra, density, mm)
        if vertebra.name == "S1":
            _sacrum(rng, bone, vertebra, density, mm)
        body.draw(bone, density, shell_mm, texture)
    for vertebra in _beyond(rng, spine):
        _posterior(rng, bone, spine, vertebra, density, mm)
        _Body(rng, vertebra, Corner(0), Corner(0), mm, concavity).draw(bone, density, shell_mm, texture)
    for i, disc in enumerate(discs):
        _outgrowths(rng, bone, spine, i, disc, density, mm)


def _texture(rng: np.random.Generator, mm: float) -> Map:
    """Draw one tile of trabecular pattern with structures from a few tenths of a millimetre up, mean 1."""
    tile = rng.standard_normal((256, 256)).astype(np.float32)
    fine = cv2.GaussianBlur(tile, (0, 0), max(0.35 * mm, 0.4), borderType=cv2.BORDER_REFLECT)
    coarse = cv2.GaussianBlur(tile, (0, 0), max(1.2 * mm, 0.5), borderType=cv2.BORDER_REFLECT)
    texture: Map = (1 + 0.07 * fine / fine.std() + 0.05 * coarse / coarse.std()).astype(np.float32)
    return texture


class _Body:
    """One vertebral body's shape in its own coordinates (u anterior -1 .. posterior 1, v superior -1 .. inferior 1)."""

    def __init__(
        self, rng: np.random.Generator, vertebra: Vertebra, upper: Corner, lower: Corner, mm: float, concavity: float
    ) -> None:
        self.rng, self.vertebra, self.mm = rng, vertebra, mm
        self.corners = (upper, lower)
        hollow = concavity * rng.uniform(0.7, 1.3, 2)
        for k, corner in enumerate(self.corners):
            if corner.body_sign == "squaring":
                hollow[k] = concavity * (0.60 - 0.95 * corner.size)  # flatter than normal, straight, then convex
        self.hollow = hollow
        self.posterior = rng.uniform(0.05, 0.12)
        self.plates = rng.uniform(0.05, 0.13, 2)
        self.parallax = rng.uniform(0.4, 2.6) * mm
        self.rounding = rng.uniform(0.4, 1.6) * mm

    def draw(self, bone: Map, density: float, shell_mm: float, texture: Map) -> None:
        v = self.vertebra
        reach = np.abs(v.depth) * 1.25 + np.abs(v.height) * 1.25 + 3
        x0, y0, x1, y1 = _clip(bone, v.centre - reach, v.centre + reach)
        if x1 <= x0 or y1 <= y0:
            return
        us, vs = _local(v, x0, y0, x1, y1)
        inside, plate, plate_px = self._distances(us, vs)
        cover = np.clip(inside + 0.5, 0, 1)
        tile = texture[np.arange(y0, y1)[:, None] % 256, np.arange(x0, x1)[None, :] % 256]
        shell = np.exp(-((np.maximum(inside, 0) / (shell_mm * self.mm)) ** 2)) * (0.30 + 0.28 * plate)
        column = np.sqrt(np.clip(1.15 - 0.8 * us * us, 0.1, None))  # a body is round: thickest in the middle
        far = np.exp(-(((plate_px - self.parallax) / (1.3 * shell_mm * self.mm)) ** 2))  # the far rim of an end plate
        filling = (0.42 * column * tile + shell + 0.11 * far).astype(np.float32)
        for k, corner in enumerate(self.corners):
            filling, cover = self._sign(corner, -1.0 if k == 0 else 1.0, us, vs, filling, cover)
        bone[y0:y1, x0:x1] += density * filling * cover

    def _distances(self, us: Map, vs: Map) -> tuple[Map, Map, Map]:
        """Return pixels to the outline (inside positive), whether an end plate is nearest, pixels to the end plates."""
        depth, height = np.linalg.norm(self.vertebra.depth), np.linalg.norm(self.vertebra.height)
        blend = 1 / (1 + np.exp(-4 * vs))
        hollow = self.hollow[0] * (1 - blend) + self.hollow[1] * blend
        bow = np.clip(1 - vs * vs, -0.2, 1)
        dish = np.clip(1 - us * us, -0.2, 1)
        anterior = (us + 1 - hollow * 1.6 * bow) * depth
        posterior = (1 - self.posterior * bow - us) * depth
        superior = (vs + 1 - self.plates[0] * dish) * height
        inferior = (1 - self.plates[1] * dish - vs) * height
        wall, plate = np.minimum(anterior, posterior), np.minimum(superior, inferior)
        r = self.rounding
        corner = r - np.hypot(np.maximum(r - wall, 0), np.maximum(r - plate, 0))
        inside = np.where((wall < r) & (plate < r), corner, np.minimum(wall, plate))
        return inside.astype(np.float32), (plate < wall).astype(np.float32), plate.astype(np.float32)

    def _sign(self, corner: Corner, side: float, us: Map, vs: Map, filling: Map, cover: Map) -> tuple[Map, Map]:
        """Draw an erosion (takes bone from the corner) or a sclerosis (makes it dense); sizes are in millimetres."""
        if corner.body_sign not in ("erosion", "sclerosis"):
            return filling, cover
        scale = float(np.linalg.norm(self.vertebra.height))
        depth = float(np.linalg.norm(self.vertebra.depth))
        slide = self.rng.uniform(0.0, 0.12)
        along = (us + 1 - slide) * depth
        down = (vs - side) * -side * scale  # into the body
        if corner.body_sign == "erosion":
            radius = scale * (0.11 + 0.34 * corner.size)
            angle = np.arctan2(down, along)
            ragged = 1 + 0.12 * np.sin(3 * angle + self.rng.uniform(0, 6)) + 0.08 * np.sin(7 * angle)
            away = np.hypot(along, down) - radius * ragged.astype(np.float32)
            rim = np.exp(-((away / (0.9 * self.mm)) ** 2)) * (away > 0) * self.rng.uniform(0.0, 0.22)
            keep = 0.15 + 0.85 * np.clip(away / (0.6 * self.mm) + 0.5, 0, 1)
            return (filling + rim).astype(np.float32), (cover * keep).astype(np.float32)
        radius = scale * (0.36 + 0.34 * corner.size)
        dense = np.exp(-((np.hypot(along, down) / radius) ** 4))
        return (filling + (0.06 + 0.28 * corner.size) * dense).astype(np.float32), cover


def _outgrowths(
    rng: np.random.Generator, bone: Map, spine: Spine, disc: int, signs: Disc, density: float, mm: float
) -> None:
    upper, lower = spine.vertebrae[disc].at(-1, 1), spine.vertebrae[disc + 1].at(-1, -1)
    gap = lower - upper
    length = float(np.linalg.norm(gap))
    outward = np.array([-gap[1], gap[0]]) / length
    if outward @ spine.vertebrae[disc].depth > 0:
        outward = -outward
    thick = max(rng.uniform(0.8, 1.7) * mm, 1.2)
    strength = density * rng.uniform(0.24, 0.5)
    if signs[0].grade == 3:
        width = thick * (0.75 + 1.4 * signs[0].size)
        _bridge(rng, bone, spine, disc, outward, width, strength, mm)
        return
    lengths = [(0.12 + 0.50 * c.size) * (c.grade == 2) for c in signs]
    if sum(lengths) > 0.72:  # two that grow towards each other do not meet
        lengths = [x * 0.72 / sum(lengths) for x in lengths]
    directions = gap / length, -gap / length
    for corner, root, direction, part in zip(signs, (upper, lower), directions, lengths, strict=True):
        if corner.grade == 2:
            ts = np.linspace(0, 1, 16)[:, None]
            lean = rng.uniform(0.08, 0.42) * (1 - 0.5 * corner.size)
            heading = direction + lean * outward
            start = root - 0.14 * length * direction - 0.05 * length * outward  # rooted in the bone
            path = start + ts * (part + 0.14) * length * heading + outward * 0.06 * length * np.sin(np.pi * ts)
            widths = thick * (0.8 + 0.5 * corner.size) * (1 - 0.72 * ts[:, 0])
            _band(bone, path, widths, strength * rng.uniform(0.9, 1.2), mm)


def _bridge(
    rng: np.random.Generator,
    bone: Map,
    spine: Spine,
    disc: int,
    outward: Point,
    width: float,
    strength: float,
    mm: float,
) -> None:
    """Draw a continuous ribbon from the upper body's anterior wall over the disc to the lower body's."""
    above, below = spine.vertebrae[disc], spine.vertebrae[disc + 1]
    upper, lower = above.at(-1, 1), below.at(-1, -1)
    bulge = float(np.linalg.norm(lower - upper)) * rng.uniform(0.05, 0.3)
    knots = np.array(
        [
            above.at(-0.96, rng.uniform(0.55, 0.85)),
            upper + 0.3 * width * outward,
            (upper + lower) / 2 + (bulge + 0.4 * width) * outward,
            lower + 0.3 * width * outward,
            below.at(-0.96, -rng.uniform(0.55, 0.85)),
        ]
    )
    path = _curve(knots)
    waist = np.sin(np.pi * np.linspace(0, 1, len(path)))
    widths = width * (0.45 + 0.55 * np.sqrt(waist)) * (1 - rng.uniform(0.1, 0.45) * waist**4)
    _band(bone, path, widths, strength, mm)
    if rng.random() < 0.35:  # the disc's outer fibres turn to bone with it
        _band(bone, path[8:-8] - outward * width * 0.9, widths[8:-8] * 0.7, strength * 0.4, mm)


def _curve(knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smooth path through `knots` (Catmull-Rom, chord-uniform)."""
    ends = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    t = np.linspace(0, len(knots) - 1 - 1e-9, 40)
    i, f = t.astype(int), (t % 1)[:, None]
    p0, p1, p2, p3 = ends[i], ends[i + 1], ends[i + 2], ends[i + 3]
    squared, cubed = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
    path: NDArray[np.float64] = 0.5 * (2 * p1 + (p2 - p0) * f + squared * f**2 + cubed * f**3)
    return path


def _band(bone: Map, path: NDArray[np.float64], widths: NDArray[np.float64], strength: float, mm: float) -> None:
    """Add a ribbon of bone with the given full widths along `path`, a little denser at its border."""
    fill(bone, ribbon(path, np.maximum(widths, 0.8)[:, None]), strength, blur=0.25 * mm)


def ribbon(path: NDArray[np.float64], widths: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return the outline of a band of the given full widths along a path."""
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    half = normal * widths / 2
    return np.concatenate([path + half, (path - half)[::-1]])


def fill(bone: Map, outline: NDArray[np.float64], strength: float, blur: float, shell: float = 0.0) -> None:
    """Add a filled polygon with a border softened by `blur` pixels; `shell` > 0 brightens the border by that share."""
    pad = 3 * blur + 4
    x0, y0, x1, y1 = _clip(bone, outline.min(0) - pad, outline.max(0) + pad)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    points = np.round((outline - (x0, y0)) * _SUBPIXEL).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, 4)
    soft = mask.astype(np.float32) / 255
    if blur > 0.3:
        soft = cv2.GaussianBlur(soft, (0, 0), blur).astype(np.float32, copy=False)
    if shell > 0:
        core = cv2.GaussianBlur(soft, (0, 0), 2.2 * blur + 1)
        soft = soft * (1 + shell * np.clip(1.6 * (1 - core), 0, 1))
    bone[y0:y1, x0:x1] += strength * soft


def _beyond(rng: np.random.Generator, spine: Spine) -> list[Vertebra]:
    """Return the thoracic vertebrae next to the graded ones, continued from the last two: T2 .. T4, or T11 .. T9."""
    last, before = (spine.vertebrae[0], spine.vertebrae[1]) if spine.region == "lumbar" else spine.vertebrae[:-3:-1]
    step, depth, height = last.centre - before.centre, last.depth, last.height
    centre, bodies = last.centre, []
    for k in range(3):
        turn = rng.normal(0.03, 0.05) * (1 if spine.region == "lumbar" else -1)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        step, depth, height = (rotation @ x * rng.uniform(0.92, 1.0) for x in (step, depth, height))
        centre = centre + step
        bodies.append(Vertebra(f"beyond-{k}", centre, depth, height))
    return bodies


def _posterior(rng: np.random.Generator, bone: Map, spine: Spine, v: Vertebra, density: float, mm: float) -> None:
    """Draw pedicle, articular pillar, lamina and spinous process as ellipses in body coordinates."""
    if v.name == "S1":
        return
    cervical = spine.region == "cervical"
    gap = spine.unit / float(np.linalg.norm(v.height))
    if cervical:
        parts = [
            (1.45, -0.1, 0.62, 0.75 * gap * 0.8, 0.30, 0.16),  # articular pillar
            (2.15, 0.25, 0.35, 0.75, 0.12, 0.22),  # lamina
            (3.1 if v.name != "C7" else 3.6, 0.75, 0.95, 0.42, 0.55, 0.13),  # spinous process
        ]
    else:
        parts = [
            (1.35, -0.45, 0.50, 0.34, 0.0, 0.30),  # pedicle
            (1.80, -0.75, 0.26, 0.65, 0.15, 0.22),  # superior articular process
            (1.95, 0.85, 0.24, 0.80, 0.15, 0.22),  # inferior articular process
            (2.75, 0.55, 0.85, 0.62, 0.35, 0.17),  # spinous process
        ]
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for u, w, ru, rv, tilt, strength in parts:
        u, w = u + rng.normal(0, 0.06), w + rng.normal(0, 0.06)
        wobble = 1 + rng.normal(0, 0.05) * np.cos(2 * angle + 1) + rng.normal(0, 0.05) * np.cos(3 * angle)
        du = ru * rng.uniform(0.9, 1.1) * np.cos(angle) * wobble
        dv = rv * rng.uniform(0.9, 1.1) * np.sin(angle) * wobble + tilt * du
        outline = v.centre + (u + du)[:, None] * v.depth + (w + dv)[:, None] * v.height
        fill(bone, outline, density * strength * rng.uniform(0.8, 1.15), blur=0.5 * mm, shell=0.5)


def _sacrum(rng: np.random.Generator, bone: Map, s1: Vertebra, density: float, mm: float) -> None:
    """Draw S2 and S3 below S1, smaller and curving backwards."""
    centre, depth, height = s1.centre, s1.depth, s1.height
    for factor in (0.86, 0.74):
        turn = rng.uniform(0.12, 0.3)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        below = centre + height * 1.08
        depth, height = rotation @ depth * factor, rotation @ height * 0.95
        centre = below + height
        corners = np.array([[-1, -1], [-0.85, 0.0], [-1, 1], [1, 1], [0.9, 0], [1, -1]])
        outline = centre + corners[:, :1] * depth + corners[:, 1:] * height
        fill(bone, outline, 0.34 * density, blur=0.6 * mm, shell=0.6)


def _local(v: Vertebra, x0: int, y0: int, x1: int, y1: int) -> tuple[Map, Map]:
    """Return body coordinates (u, v) of the pixels of a rectangle."""
    inverse = np.linalg.inv(np.stack([v.depth, v.height], 1))
    xs = (np.arange(x0, x1) - v.centre[0])[None, :]
    ys = (np.arange(y0, y1) - v.centre[1])[:, None]
    across, down = (row[0] * xs + row[1] * ys for row in inverse)
    return across.astype(np.float32), down.astype(np.float32)


def _clip(bone: Map, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[int, int, int, int]:
    rows, columns = bone.shape
    x0, y0 = max(int(np.floor(low[0])), 0), max(int(np.floor(low[1])), 0)
    x1, y1 = min(int(np.ceil(high[0])) + 1, columns), min(int(np.ceil(high[1])) + 1, rows)
    return x0, y0, x1, y1
