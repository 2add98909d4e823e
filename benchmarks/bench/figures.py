"""Percentiles of a series of durations, with the series itself: whoever has the record can compute what they like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["PERCENTILES", "figures", "spread"]

PERCENTILES = ("p50", "p90", "p99", "max")


def figures(values_ms: Sequence[float]) -> dict[str, Any]:
    """Percentiles (interpolated, as numpy.percentile has it) of at least one duration, in milliseconds."""
    p50, p90, p99 = np.percentile(values_ms, [50, 90, 99])
    found = {"p50": p50, "p90": p90, "p99": p99, "max": max(values_ms)}
    rounded = {name: round(float(value), 3) for name, value in found.items()}
    return {"n": len(values_ms), **rounded, "samples_ms": [round(float(value), 3) for value in values_ms]}


def spread(values_ms: Sequence[float]) -> float:
    """What lies between the 10th and the 90th percentile, in shares of the median: how restless the machine was."""
    p10, p50, p90 = np.percentile(values_ms, [10, 50, 90])
    return float((p90 - p10) / p50)
