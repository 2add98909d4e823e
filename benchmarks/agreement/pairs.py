"""The corners that both sides graded, side by side, and what one side lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement.readings import ALL_SITES, Reading, Readings

__all__ = ["NothingToCompare", "Pairs", "Totals", "pair_up"]


class NothingToCompare(ValueError):
    """Two sources without a corner that both of them graded."""


@dataclass(frozen=True, eq=False)
class Totals:
    """Totals of the studies of which both sides graded all 24 corners: indices into `Pairs.studies`, and units."""

    study: NDArray[np.intp]
    predicted: NDArray[np.float64]
    reference: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """One entry per corner that both sides graded, ordered by study and site.

    `studies` are those with a pair, in order; `study` (n) points into them. `cluster` gives each of them its patient
    (or itself, where no patient is named), numbered from 0. `probabilities` (n x 4) is NaN where there are none.
    `dates` (YYYYMMDD) and `missing` (side -> study -> sites without a grade) are by name.
    """

    studies: tuple[str, ...]
    study: NDArray[np.intp]
    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    totals: Totals
    cluster: NDArray[np.intp]
    patients: int  # studies whose patient is named
    dates: Mapping[str, str]
    missing: Mapping[str, Mapping[str, tuple[str, ...]]]

    @property
    def clusters(self) -> int:
        return int(self.cluster.max()) + 1


def pair_up(predicted: Readings, reference: Readings) -> Pairs:
    """Match two sources by study and site. Raises NothingToCompare where they share no graded corner."""
    names = sorted({*predicted.corners, *reference.corners})
    rows: list[tuple[str, Reading, Reading]] = []
    missing: dict[str, dict[str, tuple[str, ...]]] = {"predicted": {}, "reference": {}}
    for name in names:
        found, true = predicted.corners.get(name, {}), reference.corners.get(name, {})
        sites = [site for site in ALL_SITES if site in found or site in true]
        for side, corners in (("predicted", found), ("reference", true)):
            if lacking := tuple(site for site in sites if _grade(corners, site) is None):
                missing[side][name] = lacking
        both = [site for site in sites if _grade(found, site) is not None and _grade(true, site) is not None]
        rows += [(name, found[site], true[site]) for site in both]
    if not rows:
        raise NothingToCompare(_why_not(predicted, reference))
    studies = tuple(dict.fromkeys(name for name, _, _ in rows))
    index = {name: i for i, name in enumerate(studies)}
    study = np.array([index[name] for name, _, _ in rows], np.intp)
    grades = np.array([(found.grade, true.grade) for _, found, true in rows], np.int64)
    patients = {**predicted.patients, **reference.patients}
    return Pairs(
        studies,
        study,
        grades[:, 0],
        grades[:, 1],
        np.array([found.probabilities or (np.nan,) * 4 for _, found, _ in rows], np.float64),
        _totals(study, grades, len(studies)),
        _clusters(studies, patients),
        sum(name in patients for name in studies),
        {**predicted.dates, **reference.dates},
        missing,
    )


def _clusters(studies: tuple[str, ...], patients: Mapping[str, str]) -> NDArray[np.intp]:
    labels = [("patient", patients[name]) if name in patients else ("study", name) for name in studies]
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], np.intp)


def _grade(corners: Mapping[str, Reading], site: str) -> int | None:
    return corners[site].grade if site in corners else None


def _totals(study: NDArray[np.intp], grades: NDArray[np.int64], count: int) -> Totals:
    whole = np.flatnonzero(np.bincount(study, minlength=count) == len(ALL_SITES))
    predicted, reference = (np.bincount(study, grades[:, side], count)[whole].astype(np.float64) for side in (0, 1))
    return Totals(whole, predicted, reference)


def _why_not(predicted: Readings, reference: Readings) -> str:
    example = f"{next(iter(predicted.corners))!r} against {next(iter(reference.corners))!r}"
    shared = len(predicted.corners.keys() & reference.corners.keys())
    said = f"no corner of the {shared} studies in both has two grades" if shared else f"no study is in both ({example})"
    return f"{predicted.name} and {reference.name} have nothing to compare: {said}; name studies and sites alike"
