"""The corners that both sides graded, side by side, and the corners that a side lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement.totals import Floats, scaled_sum, too_few, whole_grades
from spinescore.runtime.followup.days import day_of
from spinescore.runtime.followup.readings import Readings
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.study import ALL_SITES
from spinescore.runtime.text import number_of

__all__ = ["SIDES", "NothingToCompare", "Pairs", "Patients", "Totals", "link_patients", "pair_up"]

SIDES = ("predicted", "reference")


class NothingToCompare(ValueError):
    """Two sources without a corner that both of them graded."""


@dataclass(frozen=True, eq=False)
class Totals:
    """Totals of the studies that have one on both sides: indices into `Pairs.studies`, and units.

    `complete`: both sides graded all 24 corners; otherwise a side's missing corners take its region's mean.
    `left_out`: study -> the reason why it lacks a total.
    """

    study: NDArray[np.intp]
    predicted: Floats
    reference: Floats
    complete: NDArray[np.bool_]
    left_out: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Patients:
    """The patient of each study, numbered from 0 (`cluster`).

    `named` studies name a patient; each other study is its own cluster. `contradictory` clusters are one patient on one
    side and several on the other. They are kept as one, so that intervals do not become too narrow; no change is taken
    from them.
    """

    cluster: NDArray[np.intp]
    named: int
    contradictory: frozenset[int]


@dataclass(frozen=True, eq=False)
class Pairs:
    """One entry per corner that both sides graded, ordered by study and site.

    `studies` are those with a pair, in order; `study` (n) points into them, `site` (n) into `ALL_SITES`. `predicted`
    and `reference` (n) are whole grades; `grades` (2 sides x studies x 24) are the grades as given, NaN for none.
    `probabilities` (n x 4) are NaN if there are none. `dates` (YYYYMMDD) and `missing` (side, or both -> study ->
    sites without a grade) are by name. `two_dates` are studies with different dates on the two sides; `dates` leaves
    them out.
    """

    studies: tuple[str, ...]
    study: NDArray[np.intp]
    site: NDArray[np.intp]
    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]
    grades: Floats
    probabilities: Floats
    totals: Totals
    patients: Patients
    dates: Mapping[str, str]
    two_dates: tuple[str, ...]
    missing: Mapping[str, Mapping[str, tuple[str, ...]]]
    max_imputed: int

    @property
    def cluster(self) -> NDArray[np.intp]:
        """The cluster of each study: its patient, or the study itself if no patient is named."""
        return self.patients.cluster

    @property
    def clusters(self) -> int:
        return int(self.cluster.max()) + 1


def pair_up(predicted: Readings, reference: Readings, max_imputed: int = DEFAULT_MAX_IMPUTED) -> Pairs:
    """Match two sources by study and site. Raises NothingToCompare if they share no graded corner.

    A side's total takes the mean of a region's scored corners for up to `max_imputed` of its 12 (0: none).
    """
    shared = sorted(predicted.corners.keys() & reference.corners.keys())
    grades = np.stack([_grades(side, shared) for side in (predicted, reference)])
    paired: NDArray[np.bool_] = np.asarray(np.isfinite(grades).all(axis=0))  # studies x 24
    if not paired.any():
        raise NothingToCompare(_why_not(predicted, reference))
    kept = np.flatnonzero(paired.any(axis=1))
    studies, grades, paired = tuple(shared[i] for i in kept), grades[:, kept], paired[kept]
    study, site = np.nonzero(paired)
    whole = whole_grades(grades[:, study, site]).astype(np.int64)
    probabilities = [
        predicted.corners[studies[i]][ALL_SITES[j]].probabilities for i, j in zip(study, site, strict=True)
    ]
    dates = {**predicted.dates, **reference.dates}
    two_dates = tuple(name for name in shared if dates.get(name) != predicted.dates.get(name, dates.get(name)))
    return Pairs(
        studies,
        study,
        site,
        whole[0],
        whole[1],
        grades,
        np.array([p or (np.nan,) * 4 for p in probabilities], np.float64),
        _totals(studies, grades, max_imputed, predicted, reference),
        link_patients(studies, predicted.patients, reference.patients),
        {name: day for name, day in dates.items() if name not in two_dates and day_of(day)},
        two_dates,
        _missing(predicted, reference),
        max_imputed,
    )


def link_patients(studies: Sequence[str], predicted: Mapping[str, str], reference: Mapping[str, str]) -> Patients:
    """Link studies by every name that either side gives their patient.

    The sides may name patients differently (a hash and a number): studies that share a name on one side belong to one
    patient. The sides use the same names if at least half of the studies with a name on both sides agree, or if there
    is no such study; then a name of one side alone also links studies of both.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = predicted.keys() & reference.keys()
    same = 2 * sum(predicted[study] == reference[study] for study in both) >= len(both)
    sides = {"predicted": predicted, "reference": reference}.items()
    links = [(study, ("name" if same else side, name)) for side, names in sides for study, name in names.items()]
    ends = dict.fromkeys([*studies, *(end for link in links for end in link)])
    nodes = {end: number for number, end in enumerate(ends)}
    rows, columns = [nodes[study] for study, _ in links], [nodes[name] for _, name in links]
    graph = coo_array((np.ones(len(links)), (rows, columns)), (len(nodes), len(nodes)))
    group = connected_components(graph, directed=False)[1]
    labels: dict[int, set[tuple[str, str]]] = {}
    for study, name in links:
        labels.setdefault(group[nodes[study]], set()).add(name)
    torn = {one for one, names in labels.items() if len(names) > len({scheme for scheme, _ in names})}
    groups = [group[nodes[study]] for study in studies]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(groups))}
    return Patients(
        np.array([numbers[one] for one in groups], np.intp),
        sum(study in predicted or study in reference for study in studies),
        frozenset(numbers[one] for one in torn if one in numbers),
    )


def _grades(readings: Readings, studies: list[str]) -> Floats:
    rows = [[_grade(readings, study, site) for site in ALL_SITES] for study in studies]
    return np.array(rows, np.float64).reshape(-1, len(ALL_SITES))  # None becomes NaN


def _grade(readings: Readings, study: str, site: str) -> float | None:
    reading = readings.corners.get(study, {}).get(site)
    return None if reading is None else reading.grade


def _missing(predicted: Readings, reference: Readings) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the sites that a side lacks: of all 24 if both sides name the study, else of those that one side names."""
    missing: dict[str, dict[str, tuple[str, ...]]] = {side: {} for side in (*SIDES, "both")}
    for name in sorted({*predicted.corners, *reference.corners}):
        left, right = predicted.corners.get(name, {}), reference.corners.get(name, {})
        sites = [site for site in ALL_SITES if (left and right) or site in left or site in right]
        lacking = [{site for site in sites if _grade(side, name, site) is None} for side in (predicted, reference)]
        for side, lack in zip((*SIDES, "both"), (*lacking, lacking[0] & lacking[1]), strict=True):
            if lack:
                missing[side][name] = tuple(site for site in sites if site in lack)
    return missing


def _totals(studies: tuple[str, ...], grades: Floats, most: int, predicted: Readings, reference: Readings) -> Totals:
    totals = scaled_sum(grades, most)
    there = np.flatnonzero(np.isfinite(totals).all(axis=0))
    left_out = {}
    for name in sorted({*predicted.corners, *reference.corners}):
        reasons = []
        for side, readings in zip(SIDES, (predicted, reference), strict=True):
            if name not in readings.corners:
                reasons.append(f"not in {side}")
            elif regions := too_few(_grades(readings, [name])[0], most):
                reasons.append(f"{side} lacks {', '.join(regions)}")
        if reasons:
            left_out[name] = "; ".join(reasons)
    complete: NDArray[np.bool_] = np.asarray(np.isfinite(grades).all(axis=(0, 2)))[there]
    return Totals(there, totals[0, there], totals[1, there], complete, left_out)


def _why_not(predicted: Readings, reference: Readings) -> str:
    names = next(iter(predicted.corners)), next(iter(reference.corners))
    shared = len(predicted.corners.keys() & reference.corners.keys())
    reason = (
        f"no corner of the {number_of(shared, 'study')} in both has two grades"
        if shared
        else f"no study is in both ({names[0]!r} against {names[1]!r})"
    )
    # UIDs under 2.25 are those that tables of an archive have in place of the true ones.
    replaced = not shared and any(name.startswith("2.25.") for name in names)
    hint = " (tables of spinescore archive have true UIDs only with --identifiers)" if replaced else ""
    text = f"{predicted.name} and {reference.name} have nothing to compare: {reason}"
    return f"{text}; name studies and sites alike{hint}"
