"""Changes between two visits of a patient, by the grades of both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement.pairs import Pairs
from spinescore.benchmarks.agreement.totals import Floats, either, new_syndesmophyte, scaled_sum
from spinescore.runtime.followup.days import day_of
from spinescore.runtime.followup.verdict import DAYS_PER_YEAR, is_within

__all__ = ["Changes", "Interval", "Rules", "find_changes"]


@dataclass(frozen=True)
class Rules:
    """Progression: a change of at least `progression_units` between visits `window_years` apart (2, +- 0.5).

    Other intervals are not judged (Machado et al., SCQM: 2 units in 2 years; the half year is ours). `readers` is the
    number of readers whose mean is the score in use, for the smallest detectable change.
    """

    progression_units: float = 2.0
    window_years: tuple[float, float] = (1.5, 2.5)
    readers: int = 1


@dataclass(frozen=True)
class Interval:
    """Two visits of a patient: its cluster, indices into `Pairs.studies`, days between, both sides' changes.

    `complete`: all 24 corners are comparable on both sides.
    """

    cluster: int
    first: int
    last: int
    days: int
    predicted: float
    reference: float
    complete: bool


@dataclass(frozen=True, eq=False)
class Changes:
    """The longest interval of each patient over which both sides have a change, and the patients without one.

    `two_years`: the interval of each patient nearest to 2 years, among those that are judged for progression.
    `left_out`: the studies of each patient with several visits but no change, and the reason. Events of corners and
    units are flat arrays over the longest intervals: patient's cluster, whether predicted, whether in the reference.
    """

    longest: tuple[Interval, ...]
    two_years: tuple[Interval, ...]
    left_out: tuple[tuple[tuple[str, ...], str], ...]
    corner_events: NDArray[np.intp]  # n x 3
    unit_events: NDArray[np.intp]

    @property
    def cluster(self) -> NDArray[np.intp]:
        return np.array([interval.cluster for interval in self.longest], np.intp)

    @property
    def predicted(self) -> Floats:
        return np.array([interval.predicted for interval in self.longest], np.float64)

    @property
    def reference(self) -> Floats:
        return np.array([interval.reference for interval in self.longest], np.float64)


def find_changes(pairs: Pairs, rules: Rules) -> Changes:
    """Compare each patient's visits by the change of the comparable corners (`scaled_sum`)."""
    longest, two_years = [], []
    left_out: list[tuple[tuple[str, ...], str]] = []
    visits: dict[int, list[int]] = {}
    for study, cluster in enumerate(pairs.cluster):
        visits.setdefault(int(cluster), []).append(study)
    for cluster, studies in visits.items():
        if len(studies) < 2:
            continue
        intervals = list(_intervals(pairs, cluster, studies))
        if cluster in pairs.patients.contradictory or not intervals:
            left_out.append((tuple(pairs.studies[study] for study in studies), _why_none(pairs, cluster, studies)))
            continue
        longest.append(max(intervals, key=lambda interval: interval.days))
        judged = [interval for interval in intervals if is_within(interval.days, rules.window_years)]
        if judged:
            two_years.append(min(judged, key=lambda interval: abs(interval.days - 2 * DAYS_PER_YEAR)))
    corners, units = _events(pairs, longest)
    return Changes(tuple(longest), tuple(two_years), tuple(left_out), corners, units)


def _intervals(pairs: Pairs, cluster: int, studies: list[int]) -> Iterator[Interval]:
    """Yield all ordered pairs of a patient's visits over which both sides have a change, the earliest first."""
    dated = sorted((day, study) for study in studies if (day := _day(pairs, study)) is not None)
    for (before, first), (after, last) in combinations(dated, 2):
        if before == after:  # a repeat, not a change
            continue
        differences = pairs.grades[:, last] - pairs.grades[:, first]
        change = scaled_sum(differences, pairs.max_imputed)
        if np.isfinite(change).all():
            complete = bool(np.isfinite(differences).all())
            yield Interval(cluster, first, last, after - before, float(change[0]), float(change[1]), complete)


def _day(pairs: Pairs, study: int) -> int | None:
    day = day_of(pairs.dates.get(pairs.studies[study], ""))
    return None if day is None else day.toordinal()


def _why_none(pairs: Pairs, cluster: int, studies: list[int]) -> str:
    if cluster in pairs.patients.contradictory:
        return "one side takes them for one patient's, the other for several patients'"
    days = {day for study in studies if (day := _day(pairs, study)) is not None}
    if len(days) < 2:
        return "no two of them have different, undisputed dates"
    return "no two of them have enough corners that are graded in both, on both sides"


def _events(pairs: Pairs, intervals: list[Interval]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return new syndesmophytes of the corners and of the units that are comparable on both sides."""
    first = np.array([interval.first for interval in intervals], np.intp)
    last = np.array([interval.last for interval in intervals], np.intp)
    cluster = np.array([interval.cluster for interval in intervals], np.intp)
    corners = new_syndesmophyte(pairs.grades[:, first], pairs.grades[:, last])  # sides x intervals x 24
    return _flat(cluster, corners), _flat(cluster, either(corners))


def _flat(cluster: NDArray[np.intp], events: Floats) -> NDArray[np.intp]:
    interval, place = np.nonzero(np.isfinite(events).all(axis=0))
    both = events[:, interval, place].astype(np.intp)
    return np.stack([cluster[interval], *both], axis=1)
