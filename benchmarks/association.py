"""Measures the coverage of the intervals of `spinescore associate`, on simulated cohorts with a known odds ratio.

    python -m spinescore.benchmarks.association --out benchmarks/results/association-coverage.json

A patient's 12 units are drawn with a Gaussian copula: each has exactly the probability that its exposure (and the
patient's age) give it, and units of a patient are correlated. So the odds ratio over all patients, which generalized
estimating equations estimate, is the one of the simulation. A quarter of the units, drawn at random, is not at risk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spinescore.benchmarks.harness.record import Command
from spinescore.runtime.followup.association import associate
from spinescore.runtime.followup.associationinput import Study, Unit
from spinescore.runtime.study import ALL_LEVELS
from spinescore.runtime.text import table

__all__ = ["SCHEMA", "coverage", "draw_cohort", "main"]

SCHEMA = "spinescore.association-coverage/2"

_RISK = 0.09  # of a new syndesmophyte in an unexposed unit at the mean age
_AT_RISK = 0.75  # share of units without a syndesmophyte at baseline
_AGE_EFFECT = 0.03  # in log odds, per year from the mean age

# Patients, odds ratio, correlation of the units' hidden variable, whether age confounds and is adjusted for.
SETTINGS = (
    (60, 1.0, 0.2, False),
    (60, 3.0, 0.2, False),
    (150, 1.0, 0.2, False),
    (150, 3.0, 0.5, False),
    (150, 3.0, 0.2, True),
)


def draw_cohort(seed: int, patients: int, odds_ratio: float, correlation: float, by_age: bool = False) -> Study:
    """Draw one cohort; with `by_age`, age raises both risk and exposure, so that only the adjusted model is right."""
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    units = []
    for patient in range(patients):
        age, shared, inflamed = rng.normal(0, 10), rng.normal(), rng.beta(1, 3)
        lean = 0.02 * age if by_age else 0.0
        exposed = rng.random(len(ALL_LEVELS)) < np.clip(inflamed + lean, 0, 1)
        logit = math.log(_RISK / (1 - _RISK)) + math.log(odds_ratio) * exposed + (_AGE_EFFECT * age if by_age else 0.0)
        hidden = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * rng.normal(size=len(ALL_LEVELS))
        event = norm.cdf(hidden) < 1 / (1 + np.exp(-logit))
        at_risk = rng.random(len(ALL_LEVELS)) < _AT_RISK
        for level, x, y, risk in zip(ALL_LEVELS, exposed, event, at_risk, strict=True):
            covariates = (45 + age,) if by_age else ()
            units.append(Unit(f"{patient}", level, 730, bool(x), bool(y) if risk else None, None, covariates))
    return Study(tuple(units), ("age",) if by_age else (), {})


def coverage(patients: int, odds_ratio: float, correlation: float, by_age: bool, simulations: int) -> dict[str, Any]:
    """Return the share of intervals that hold the true odds ratio, over `simulations` cohorts."""
    model = "adjusted" if by_age else "unadjusted"
    logs, inside = [], 0
    for seed in range(simulations):
        cohort = draw_cohort(seed, patients, odds_ratio, correlation, by_age)
        ratios = associate(cohort)["outcomes"]["new_syndesmophyte"][model]["odds_ratios"]
        if ratios:
            logs.append(math.log(ratios[0]["odds_ratio"]))
            inside += ratios[0]["low"] <= odds_ratio <= ratios[0]["high"]
    return {
        "patients": patients,
        "odds_ratio": odds_ratio,
        "correlation": correlation,
        "model": model,
        "simulations": simulations,
        "estimated": len(logs),
        "coverage": inside / len(logs) if logs else None,
        "geometric_mean_odds_ratio": math.exp(sum(logs) / len(logs)) if logs else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("association", SCHEMA, __doc__)
    text = "cohorts of each setting (200)"
    command.options.add_argument("--simulations", type=int, default=200, metavar="N", help=text)
    simulations = command.start(argv).simulations
    rows = [coverage(*setting, simulations) for setting in SETTINGS]
    columns = list(rows[0])
    cells = [[round(row[c], 3) if isinstance(row[c], float) else row[c] for c in columns] for row in rows]
    command.publish({"settings": rows}, table(cells, columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
