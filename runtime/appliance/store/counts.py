"""Counters and histograms that the index keeps. They never decrease: not by a restart, and not by what is removed.

Each is changed in the transaction of the event that it counts, so it costs no commit, and no event is counted twice.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.store.index import Index, IndexFull

__all__ = ["BUCKETS_S", "Histogram", "Tally", "add", "counters", "histogram", "observe", "tally"]

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0
_WAY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, _MINUTE_S, 2 * _MINUTE_S, 5 * _MINUTE_S, 15 * _MINUTE_S, _HOUR_S, 6 * _HOUR_S,
          _DAY_S, 7 * _DAY_S, math.inf)  # fmt: skip
BUCKETS_S = {  # upper limits of each histogram's buckets, in seconds
    "scoring_seconds": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, math.inf),
    "received_to_delivered_seconds": _WAY_S,
    "received_to_committed_seconds": _WAY_S,
}

_WRITE_S = 5.0

Labels = tuple[str, ...]
Histogram = tuple[list[tuple[float, int]], float]  # upper limits with cumulative counts, and the sum of all values


def add(index: Index, name: str, *labels: str, by: float = 1) -> None:
    """Add to a counter, within a transaction."""
    index.change(
        "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
        name, json.dumps(labels), float(by),
    )  # fmt: skip


def observe(index: Index, name: str, seconds: float, *labels: str) -> None:
    limits = BUCKETS_S[name]
    add(index, f"{name}_bucket", *labels, repr(limits[bisect_left(limits, seconds)]))
    add(index, f"{name}_sum", *labels, by=max(0.0, seconds))


class Tally:
    """A counter of events that peers cause at will: it is written every few seconds, so that a flood costs little.

    If its process is killed, the last seconds are missing.
    """

    def __init__(self, index: Index, clock: Clock, name: str) -> None:
        self._index, self._clock, self._name = index, clock, name
        self._counts: Counter[str] = Counter()
        self._next_s = clock.now()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the numbers of events by their label. Call it often, also without any."""
        self._counts.update(counts)
        if not self._counts or self._clock.now() < self._next_s:
            return
        self._next_s = self._clock.now() + _WRITE_S
        with suppress(IndexFull):
            with self._index.transaction():
                for label, count in self._counts.items():
                    add(self._index, self._name, label, by=count)
            self._counts.clear()


def counters(index: Index, name: str, expected: Iterable[Labels] = ()) -> dict[Labels, float]:
    """Return the values of a counter by its labels; those that are `expected` are there from the start, as 0."""
    rows = index.rows("SELECT labels, value FROM counts WHERE name = ?", name)
    return {**dict.fromkeys(expected, 0.0), **{tuple(json.loads(row["labels"])): row["value"] for row in rows}}


def tally(index: Index, kind: str) -> dict[str, int]:
    """Return the number of rows by state: of `studies:`, or of `deliveries:` with a destination's name."""
    rows = index.rows("SELECT state, n FROM tallies WHERE kind = ? AND n > 0 ORDER BY state", kind)
    return {row["state"]: row["n"] for row in rows}


def histogram(index: Index, name: str, expected: Iterable[Labels] = ()) -> Mapping[Labels, Histogram]:
    counts: dict[Labels, dict[float, float]] = {labels: {} for labels in expected}
    for (*labels, limit), value in counters(index, f"{name}_bucket").items():
        counts.setdefault(tuple(labels), {})[float(limit)] = value
    sums = counters(index, f"{name}_sum")
    return {labels: (_cumulative(name, values), sums.get(labels, 0.0)) for labels, values in counts.items()}


def _cumulative(name: str, values: Mapping[float, float]) -> list[tuple[float, int]]:
    """Return cumulative counts; limits of another version's buckets are among them."""
    total, buckets = 0, []
    for limit in sorted({*BUCKETS_S[name], *values}):
        total += int(values.get(limit, 0))
        buckets.append((limit, total))
    return buckets
