"""The anterior corners of a phantom's vertebrae, which the mSASSS grades, and the random draw of their signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Corner", "Disc", "Sign", "progressed", "sample_discs"]

Sign = Literal["none", "squaring", "erosion", "sclerosis", "syndesmophyte", "bridge"]


@dataclass(frozen=True)
class Corner:
    """One anterior corner: its grade, the sign behind it, and the sign's size from 0 (barely visible) to 1.

    A syndesmophyte may grow from a corner that is already squared, eroded or sclerotic; `under` is that sign.
    """

    grade: int
    sign: Sign = "none"
    size: float = 0.0
    under: Sign = "none"

    @property
    def body_sign(self) -> Sign:
        """Return the sign in the vertebral body itself."""
        return self.under if self.grade == 2 else self.sign


Disc = tuple[Corner, Corner]  # the two corners that face a disc: the upper vertebra's, the lower vertebra's


def sample_discs(rng: np.random.Generator) -> tuple[Disc, ...]:
    """Draw corners of six discs with a common severity, since ankylosing spondylitis spreads along the spine."""
    severity = rng.beta(1.0, 1.1)
    discs: list[Disc] = []
    for _ in range(6):
        local = float(np.clip(severity + rng.normal(0, 0.22), 0, 1))
        if rng.random() < 0.50 * local**1.3:
            size = rng.random()
            discs.append((Corner(3, "bridge", size), Corner(3, "bridge", size)))
        else:
            discs.append((_sample_corner(rng, local), _sample_corner(rng, local)))
    return tuple(discs)


def progressed(rng: np.random.Generator, discs: tuple[Disc, ...]) -> tuple[Disc, ...]:
    """Return the discs some years later: new syndesmophytes, or bridges over their disc; nothing heals."""
    later: list[Disc] = []
    for disc in discs:
        size = float(rng.random())
        grown = any(corner.grade == 2 for corner in disc)
        if rng.random() < 0.25 and grown:
            later.append((Corner(3, "bridge", size), Corner(3, "bridge", size)))
        else:
            later.append((_progressed_corner(rng, disc[0]), _progressed_corner(rng, disc[1])))
    return tuple(later)


def _progressed_corner(rng: np.random.Generator, corner: Corner) -> Corner:
    draw, size = rng.random(), float(rng.random())
    if corner.grade < 2 and draw < 0.12:
        return Corner(2, "syndesmophyte", size, corner.sign)
    if corner.grade == 0 and draw < 0.2:
        return Corner(1, "squaring", size)
    return corner


def _sample_corner(rng: np.random.Generator, severity: float) -> Corner:
    p2 = 0.08 + 0.32 * severity
    p1 = 0.20 + 0.18 * severity
    draw = rng.random()
    size = float(rng.random())
    signs: tuple[Sign, ...] = ("squaring", "erosion", "sclerosis")
    body_sign = signs[int(rng.integers(3))]
    if draw < p2:
        return Corner(2, "syndesmophyte", size, body_sign if rng.random() < 0.5 else "none")
    if draw < p2 + p1:
        return Corner(1, body_sign, size)
    return Corner(0)
