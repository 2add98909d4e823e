"""Durations, taken in turns so that a restless machine disturbs all works alike, and their percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["PERCENTILES", "SETTLE_S", "Limit", "elapsed_ms", "figures", "in_turn", "percentiles", "spread"]

PERCENTILES = ("p50", "p90", "p99", "max")
SETTLE_S = 0.2  # the threads of an engine that has just run wait for more work in a loop, and would slow the next one
_SEED = 2_000_003

Work = Callable[[], Any]


def elapsed_ms(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    """Run the work once and return its time in milliseconds."""
    started = clock()
    work()
    return (clock() - started) * 1e3


class Limit:
    """At most `runs` rounds, and no new one after `seconds`; one round is always run."""

    def __init__(self, runs: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._seconds, self._clock = runs, seconds, clock
        self._started = clock()

    def reached(self, done: int) -> bool:
        return done >= self._runs or (done > 0 and self._clock() - self._started >= self._seconds)


def in_turn(
    works: Mapping[str, Work],
    limit: Limit,
    note: Callable[[str, Any], None] = lambda name, result: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Run every work once in each round; returns the milliseconds of each, one value a round.

    `note` receives each result, outside of the timed region. The order within a round is drawn anew each time, so that
    no work always follows the same one.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in works}
    order, names = np.random.default_rng(_SEED), list(works)
    rounds = 0
    while not limit.reached(rounds):
        for index in order.permutation(len(names)):
            name = names[index]
            sleep(SETTLE_S)
            started = clock()
            result = works[name]()
            times_ms[name].append((clock() - started) * 1e3)
            note(name, result)
        rounds += 1
    return times_ms


def percentiles(values: Sequence[float], digits: int = 3, of: Sequence[int] = (50, 90, 99)) -> dict[str, float]:
    """Return p50, p90 and p99 (interpolated as by `numpy.percentile`); empty without values."""
    if not len(values):
        return {}
    return {f"p{q}": round(float(value), digits) for q, value in zip(of, np.percentile(values, of), strict=True)}


def figures(values_ms: Sequence[float], samples: bool = True) -> dict[str, Any]:
    """Return count, percentiles and maximum of durations, and with `samples` the series itself; without any, n = 0."""
    if not len(values_ms):
        return {"n": 0}
    series = {"samples_ms": [round(float(value), 3) for value in values_ms]} if samples else {}
    return {"n": len(values_ms), **percentiles(values_ms), "max": round(float(max(values_ms)), 3), **series}


def spread(values_ms: Sequence[float]) -> float:
    """Return the distance from the 10th to the 90th percentile, in shares of the median."""
    p10, p50, p90 = np.percentile(values_ms, [10, 50, 90])
    return float((p90 - p10) / p50)
