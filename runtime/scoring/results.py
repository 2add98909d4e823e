"""The results of a replay of the pipeline: points, logits, and the times of its stages."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Results", "durations_ms_of"]


@dataclass(frozen=True, eq=False)
class Results:
    """The results of replays for V views: points (V, 6, 2) of dtype `POINT`, logits by network, and times.

    `stages_ms` has the time at the end of each stage, since the launch began.
    """

    points: NDArray[np.void]
    logits: dict[str, NDArray[Any]]
    stages_ms: dict[str, float]

    @property
    def durations_ms(self) -> dict[str, float]:
        """The durations of localize, crop and grade."""
        return durations_ms_of(self.stages_ms)


def durations_ms_of(marks_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the durations of the stages from the times of their marks, the first one their start."""
    pairs = itertools.pairwise(marks_ms.items())
    return {stage: at - before for (_, before), (stage, at) in pairs}
