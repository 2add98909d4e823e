"""The rules of change for many studies at a time give what those for two reports give."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.made_reports import made_report
from spinescore.benchmarks.agreement.totals import either, new_syndesmophyte, scaled_sum
from spinescore.runtime.followup import compare
from spinescore.runtime.study import ALL_LEVELS, ALL_SITES, REGIONS


def drawn(rng: np.random.Generator, missing: float) -> np.ndarray:
    grades = rng.integers(0, 4, 24).astype(np.float64)
    grades[rng.random(24) < missing] = np.nan
    return grades


def report(grades: np.ndarray, day: str):
    whole = [None if np.isnan(grade) else int(grade) for grade in grades]
    return made_report({region: whole[12 * n : 12 * n + 12] for n, region in enumerate(REGIONS)}, day, day)


def number(found) -> float:
    return np.nan if found is None else float(found)


@pytest.mark.parametrize("missing", [0.0, 0.08, 0.3, 1.0])
def test_both_forms_of_the_rules_agree(missing: float) -> None:
    rng = np.random.default_rng(int(100 * missing))
    seen = set()
    for _ in range(60):
        before, after = drawn(rng, missing), drawn(rng, missing)
        found = compare(report(before, "20200101"), report(after, "20220101"))
        change = scaled_sum(after - before, 3)
        np.testing.assert_allclose(change, number(found.total.change), atol=2e-3)
        seen.add(bool(np.isnan(change)))
        units = [unit for region in found.regions.values() for unit in region.units]
        corners = {corner.site: corner for unit in units for corner in unit.corners}
        event = new_syndesmophyte(before, after)
        np.testing.assert_array_equal(event, [number(corners[site].new_syndesmophyte) for site in ALL_SITES])
        by_level = {unit.level: number(unit.new_syndesmophyte) for unit in units}
        np.testing.assert_array_equal(either(event), [by_level[level] for level in ALL_LEVELS])
    assert seen == ({False} if missing == 0 else {True} if missing == 1 else {False, True})
