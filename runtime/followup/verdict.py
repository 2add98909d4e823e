"""Verdicts on a change: progression or not, by the change or its rate, and the error of measurement."""

from __future__ import annotations

import math
from typing import Literal

from spinescore.runtime.followup.comparison import NoProgression, Progression, Rules, TotalChange, Verdict

__all__ = ["DAYS_PER_YEAR", "is_within", "progression_of"]

DAYS_PER_YEAR = 365.25

Possible = tuple[float, float]
Basis = Literal["change", "rate"]


def progression_of(total: TotalChange, days: int | None, rules: Rules) -> Progression:
    """Return the verdict of the rules on a change after `days` (None if a date is missing).

    A verdict is undecided if the changes that missing corners leave possible lie on both sides of its threshold.
    """
    rate = _rate(total.change, days, rules)
    basis, reason = _basis(total, days, rate is not None, rules)
    scale = rules.rate_years * DAYS_PER_YEAR / days if basis == "rate" and days else 1.0
    possible = None if basis is None else (total.possible[0] * scale, total.possible[1] * scale)
    progressed = _at_least(possible, rules.progression_units)
    verdict: Verdict | None = None
    if possible is not None:
        verdict = "undecided" if progressed is None else "progression" if progressed else "no progression"
        reason = "the missing corners leave it open" if progressed is None else None
    return Progression(
        units=rules.progression_units,
        progressed=progressed,
        no_progression=tuple(NoProgression(units, _at_most(possible, units)) for units in rules.no_progression_units),
        rate_years=rules.rate_years,
        rate=rate,
        verdict=verdict,
        reason=reason,
        basis=basis,
        window_years=rules.window,
        sdc=rules.sdc,
        beyond_error=None if rules.sdc is None or total.change is None else abs(total.change) > rules.sdc,
    )


def is_within(days: int, window_years: tuple[float, float]) -> bool:
    """Return whether an interval lies in a window of years; the window is rounded outwards to whole days."""
    least, most = window_years
    return math.floor(365 * least) <= days <= math.ceil(DAYS_PER_YEAR * most)


def _basis(total: TotalChange, days: int | None, has_rate: bool, rules: Rules) -> tuple[Basis | None, str | None]:
    """Return what is compared with the thresholds, `change` or `rate`; or None and the reason."""
    least, most = rules.window
    if total.change is None:
        return None, "there is no change of the total"
    if days is None:
        return None, "a study has no date, and progression is a change within a time"
    if days == 0:
        return None, "both studies are of one day: a repeat, and no follow-up"
    if days < 0:
        return None, "the follow-up is the older study"
    if is_within(days, rules.window):
        return "change", None
    if rules.judge_by_rate and has_rate:
        return "rate", None
    return None, f"{days / DAYS_PER_YEAR:.1f} years lie outside of the {least:g} to {most:g} years of the definition"


def _rate(change: float | None, days: int | None, rules: Rules) -> float | None:
    """Return the change per `rate_years`, as if change were linear in time; None below `min_rate_years`."""
    if change is None or days is None or days <= 0 or days < math.floor(365 * rules.min_rate_years):
        return None
    return round(change * rules.rate_years * DAYS_PER_YEAR / days, 3)


def _at_least(possible: Possible | None, threshold: float) -> bool | None:
    if possible is None or possible[0] < threshold <= possible[1]:
        return None
    return possible[0] >= threshold


def _at_most(possible: Possible | None, threshold: float) -> bool | None:
    if possible is None or possible[0] <= threshold < possible[1]:
        return None
    return possible[1] <= threshold
