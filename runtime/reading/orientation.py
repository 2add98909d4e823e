"""The orientation of a stored lateral radiograph: the eight orientations of a square, in one table.

A turn brings a stored picture upright (head at the top); the side towards which the patient then looks is its facing.
DICOM states the same by the directions in which rows and columns end (PS3.3 C.7.6.1.1.1): A anterior, P posterior,
H head, F feet, L left, R right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import in_source
from spinescore.runtime.study import Facing, Turn

__all__ = [
    "ORIENTATIONS",
    "TURNS",
    "Orientation",
    "from_cosines",
    "from_letters",
    "principal",
    "to_source",
    "to_upright",
]

Orientation = tuple[Turn, Facing]

TURNS: tuple[Turn, ...] = (0, 90, 180, 270)

# (degrees clockwise to bring it upright, its facing then) -> directions in which a stored row and column end
ORIENTATIONS: dict[Orientation, tuple[str, str]] = {
    (0, "left"): ("P", "F"),
    (0, "right"): ("A", "F"),
    (90, "left"): ("F", "A"),
    (90, "right"): ("F", "P"),
    (180, "left"): ("A", "H"),
    (180, "right"): ("P", "H"),
    (270, "left"): ("H", "P"),
    (270, "right"): ("H", "A"),
}
_OPPOSITE = {"A": "P", "P": "A", "H": "F", "F": "H", "L": "R", "R": "L"}
_COSINES = ("L", "P", "H")  # the patient's x, y and z axes (PS3.3 C.7.6.2.1.1)


def principal(direction: str) -> str | None:
    """Return the first and main letter of a direction such as `AF`, or None if it is no direction."""
    letters = direction.strip().upper()
    valid = 1 <= len(letters) <= 3 and all(letter in _OPPOSITE for letter in letters)
    if not valid or len({frozenset((letter, _OPPOSITE[letter])) for letter in letters}) < len(letters):
        return None
    return letters[0]


def from_letters(row: str | None, column: str | None) -> tuple[Turn | None, Facing | None]:
    """Return the turn and the facing that fit the principal letters of a row and a column, each None if undecided.

    Without the column's direction the picture counts as upright if possible, so that `A` alone faces right.
    """
    fitting = [
        orientation
        for orientation, letters in ORIENTATIONS.items()
        if row in (None, letters[0]) and column in (None, letters[1])
    ]
    if column is None:
        fitting = [one for one in fitting if one[0] == 0] or fitting
    turns, facings = {turn for turn, _ in fitting}, {facing for _, facing in fitting}
    stated = column is not None or row in ("H", "F")
    return (
        turns.pop() if stated and len(turns) == 1 else None,
        facings.pop() if len(facings) == 1 else None,
    )


def from_cosines(cosines: Sequence[float]) -> tuple[str, str]:
    """Return the principal letters of a row and a column from the six numbers of Image Orientation (Patient)."""
    row, column = np.asarray(cosines, np.float64).reshape(2, 3)
    return _letter(row), _letter(column)


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return _COSINES[axis] if direction[axis] > 0 else _OPPOSITE[_COSINES[axis]]


def to_source(vectors: NDArray[np.float64], turn_deg: Turn) -> NDArray[np.float64]:
    """Return directions (.., 2) in the upright picture as directions in the stored one."""
    return in_source(vectors, turn_deg // 90)


def to_upright(vectors: NDArray[np.float64], turn_deg: Turn) -> NDArray[np.float64]:
    """Return directions (.., 2) in the stored picture as directions in the upright one.

    Points turn about the origin: their differences are right, their positions in the picture are not.
    """
    return in_source(vectors, -turn_deg // 90)
