"""Readings for the tests of agreement: Koo et al.'s table, and studies drawn at random."""

from __future__ import annotations

import numpy as np

from spinescore.benchmarks.agreement import Reading, Readings
from spinescore.runtime.study import ALL_SITES

KOO_TABLE_1 = np.array(((2250, 295, 54, 19), (502, 2169, 75, 46), (96, 147, 700, 153), (25, 58, 96, 2641)))


def koo_readings() -> tuple[Readings, Readings]:
    """The corners of Koo et al. 2022, Table 1, dealt to studies in the order of its cells."""
    predicted, reference = Readings("predicted.csv"), Readings("reference.csv")
    cells = [(true, found) for (true, found), count in np.ndenumerate(KOO_TABLE_1) for _ in range(count)]
    for number, (true, found) in enumerate(cells):
        study, site = f"{number // 24:03}", ALL_SITES[number % 24]
        predicted.add(study, site, Reading(found))
        reference.add(study, site, Reading(true))
    return predicted, reference


def drawn_readings(studies: int = 12, seed: int = 1) -> tuple[Readings, Readings]:
    """Two studies a patient, two years apart, all corners graded, with probabilities that have ties."""
    rng = np.random.default_rng(seed)
    predicted, reference = Readings("predicted.csv"), Readings("reference.csv")
    for number in range(studies):
        study, load = f"study-{number:02}", rng.random()
        for site in ALL_SITES:
            true = int(rng.binomial(3, load))
            weights = np.round(rng.gamma(0.4, size=4) + 1.2 * (np.arange(4) == true), 1) + 0.1
            probabilities = tuple(float(p) for p in weights / weights.sum())
            predicted.add(study, site, Reading(int(weights.argmax()), probabilities))
            reference.add(study, site, Reading(true))
        reference.describe(study, f"patient-{number // 2}", f"20{20 + 2 * (number % 2)}0101")
    return predicted, reference


def constant_readings(grade: int, other: int, studies: int = 3) -> tuple[Readings, Readings]:
    """Every corner has the predicted `grade` and the reference's `other`."""
    predicted, reference = Readings("predicted.csv"), Readings("reference.csv")
    for number in range(studies):
        for site in ALL_SITES:
            predicted.add(str(number), site, Reading(grade))
            reference.add(str(number), site, Reading(other))
    return predicted, reference
