"""From logits to corner grades: probabilities for the three kinds of head, the bridge rule, abstention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.manifest import Grader

__all__ = ["CornerGrade", "CornerStatus", "MissingBecause", "grade_discs", "probabilities"]

CornerStatus = Literal["scored", "abstained", "unreadable", "imputed"]
MissingBecause = Literal["abstained", "unreadable"]

BRIDGE = 3  # the grade of a bridge, and the index of its probability


@dataclass(frozen=True)
class CornerGrade:
    """One corner: its grade (None unless scored) and p0 .. p3 (None if one of them is not finite)."""

    grade: int | None
    probabilities: tuple[float, float, float, float] | None
    status: Literal["scored"] | MissingBecause


def probabilities(logits: Mapping[str, NDArray[np.floating]], head: str) -> NDArray[np.float64]:
    """Return p0 .. p3 of each disc's two corners, (discs, 2, 4), the upper vertebra's corner first.

    `logits` has an array for each network, with a row for each crop, disc by disc. Head `corners4` has `corners`
    (discs, 8), head `corner4` has `corners` (2 discs, 4). Head `bridge+grades` has `bridge` (discs, 2), class 1 is the
    bridge, and `grades` (2 discs, 3). If a disc has two crops, the upper corner's comes first. Logits that are not
    finite give probabilities that are not finite.
    """
    if head == "bridge+grades":
        bridge = _softmax(logits["bridge"].reshape(-1, 1, 2))[..., 1:]
        grades = _softmax(logits["grades"].reshape(-1, 2, 3))
        return np.concatenate([grades * (1 - bridge), np.broadcast_to(bridge, (len(bridge), 2, 1))], axis=2)
    return _softmax(logits["corners"].reshape(-1, 2, 4))


def grade_discs(
    corner_probabilities: NDArray[np.float64], readable: NDArray[np.bool_], grader: Grader
) -> list[tuple[CornerGrade, CornerGrade]]:
    """Return the grades of each disc's two corners, from p0 .. p3 (discs, 2, 4).

    A disc is a bridge if the mean p3 of its corners reaches `bridge_threshold`: then both grades are 3. Otherwise each
    corner takes the grade with the largest of p0 .. p2, the lowest one on ties. A corner is `abstained` if the
    probability of its grade (for a bridge the mean p3) is below `abstain_below`. It is `unreadable` if the disc is not
    `readable` (discs), or a probability is not finite.
    """
    discs = zip(corner_probabilities.tolist(), readable, strict=True)
    return [_grade_disc(upper, lower, bool(seen), grader) for (upper, lower), seen in discs]


def _grade_disc(
    upper: list[float], lower: list[float], readable: bool, grader: Grader
) -> tuple[CornerGrade, CornerGrade]:
    bridge = (upper[BRIDGE] + lower[BRIDGE]) / 2
    is_bridge = bridge >= grader.bridge_threshold
    readable = readable and all(map(math.isfinite, (*upper, *lower)))

    def corner(p: list[float]) -> CornerGrade:
        finite = (p[0], p[1], p[2], p[3]) if all(map(math.isfinite, p)) else None
        if not readable:
            return CornerGrade(None, finite, "unreadable")
        grade = BRIDGE if is_bridge else p.index(max(p[:BRIDGE]))
        if (bridge if is_bridge else p[grade]) < grader.abstain_below:
            return CornerGrade(None, finite, "abstained")
        return CornerGrade(grade, finite, "scored")

    return corner(upper), corner(lower)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    values = np.where(np.isfinite(values).all(axis=-1, keepdims=True), values, np.nan)
    scaled = np.exp(values - values.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return result
