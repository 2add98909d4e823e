"""Association between an exposure of vertebral units, such as inflammation in MRI, and the change of the same units.

The analysis is that of van der Heijde et al. (ASSERT): it counts vertebral units, and units of one patient are not
independent. Odds ratios come from generalized estimating equations (Liang and Zeger 1986, doi
10.1093/biomet/73.1.13), binomial, with an exchangeable correlation within the patient and robust standard errors. The
extra `association` (statsmodels) fits them. A result that cannot be estimated has a reason instead of a number.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.followup.associationinput import Study, Unit

__all__ = ["OUTCOMES", "SCHEMA", "associate", "association_schema"]

SCHEMA = "spinescore.association/1"

# Each outcome, and the units that are at risk of it.
OUTCOMES = {
    "new_syndesmophyte": "units without a syndesmophyte at the earlier study",
    "growth": "units with a syndesmophyte at the earlier study that is no bridge",
}

_Z = 1.959963984540054  # of a 95 % interval
_FEW_PATIENTS = 40  # below it, robust standard errors are known to be too small (Mancl and DeRouen 2001)
_FEW_EVENTS = 10
_SAME = 1e-9  # a column with a smaller relative spread is constant

Floats = NDArray[np.float64]


def associate(study: Study) -> dict[str, Any]:
    """Analyse each of `OUTCOMES` and return the document (`spinescore.association/1`) for JSON.

    Needs the extra `association`.
    """
    days = [unit.interval_days for unit in study.units if unit.interval_days is not None]
    outcomes = {name: _outcome(study, name, risk) for name, risk in OUTCOMES.items()}
    return {
        "schema": SCHEMA,
        "units": len(study.units),
        "patients": len({unit.patient for unit in study.units}),
        "exposed_units": sum(unit.exposed for unit in study.units),
        "interval_days": {"least": min(days), "median": median(days), "most": max(days)} if days else None,
        "left_out": [{"reason": reason, "count": count} for reason, count in study.left_out.items()],
        "adjusted_for": list(study.covariates),
        "outcomes": outcomes,
        "notes": [note for name, outcome in outcomes.items() for note in _notes(name, outcome)],
    }


def association_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of the document."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "association.schema.json").read_text(encoding="utf-8"))
    return schema


def _outcome(study: Study, name: str, risk: str) -> dict[str, Any]:
    at_risk = [unit for unit in study.units if getattr(unit, name) is not None]
    event = np.array([bool(getattr(unit, name)) for unit in at_risk], bool)
    exposed = np.array([unit.exposed for unit in at_risk], bool)
    table = [[int((event[exposed == e] == y).sum()) for y in (False, True)] for e in (False, True)]
    events = int(event.sum())
    return {
        "at_risk": risk,
        "units": len(at_risk),
        "patients": len({unit.patient for unit in at_risk}),
        "events": events,
        "table": table,
        "in_unexposed": {"events": table[0][1], "of": events, "share": table[0][1] / events if events else None},
        "unadjusted": _odds_ratio(at_risk, event, ()),
        "adjusted": _odds_ratio(at_risk, event, study.covariates) if study.covariates else None,
        "trend": _trend(at_risk, event),
    }


def _odds_ratio(units: Sequence[Unit], event: NDArray[np.bool_], covariates: Sequence[str]) -> dict[str, Any]:
    """Return the exposure's odds ratio by GEE, adjusted for the covariates; units that lack one are left out."""
    numbers = range(len(covariates))
    has_all = [all(unit.covariates[number] is not None for number in numbers) for unit in units]
    kept = [unit for unit, has in zip(units, has_all, strict=True) if has]
    outcome = event[np.array(has_all, bool)].astype(np.float64)
    columns = {"exposure": np.array([unit.exposed for unit in kept], np.float64)}
    for number, name in enumerate(covariates):
        columns[name] = np.array([unit.covariates[number] for unit in kept], np.float64)
    patients = [unit.patient for unit in kept]
    model: dict[str, Any] = {
        "units": len(kept),
        "patients": len(set(patients)),
        "events": int(outcome.sum()),
        "without_covariates": len(units) - len(kept),
        "reason": _why_not(outcome, columns, patients),
        "correlation": None,
        "odds_ratios": [],
    }
    if model["reason"] is None:
        model |= _fit(outcome, columns, patients)
    return model


def _why_not(outcome: Floats, columns: Mapping[str, Floats], patients: Sequence[str]) -> str | None:
    """Return why no odds ratio exists; None if one does."""
    if len(outcome) == 0:
        return "no unit is at risk"
    if len(set(patients)) <= len(columns) + 1:
        return f"there are too few patients for an interval ({len(set(patients))})"
    if outcome.min() == outcome.max():
        return "no unit has the event" if outcome[0] == 0 else "every unit has the event"
    exposed = columns["exposure"]
    if exposed.min() == exposed.max():
        return "no unit is exposed" if exposed[0] == 0 else "every unit is exposed"
    for name, values in columns.items():
        if values.std() <= _SAME * np.abs(values).max():
            return f"{name} is the same in all units"
    for value, word in ((1.0, "exposed"), (0.0, "unexposed")):
        here = outcome[exposed == value]
        if here.min() == here.max():
            return f"{'every' if here[0] else 'no'} {word} unit has the event: the odds ratio is 0 or infinite"
    design = _design(columns)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return f"one of the columns {', '.join(columns)} follows from the others"
    if _is_separated(design, outcome):
        return f"{', '.join(columns)} together separate the units with the event from others: no finite odds ratio"
    return None


def _design(columns: Mapping[str, Floats]) -> Floats:
    """Return a column of ones, then the columns scaled to mean 0 and SD 1, so that their units do not matter."""
    scaled = [(values - values.mean()) / values.std() for values in columns.values()]
    return np.stack([np.ones(len(scaled[0])), *scaled], axis=1)


def _is_separated(design: Floats, outcome: Floats) -> bool:
    """Return whether a combination of the columns never contradicts the outcome: no estimate exists (Konis 2007)."""
    from scipy.optimize import linprog

    signed = np.unique(design * np.where(outcome == 1, 1, -1)[:, None], axis=0)
    solution = linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs")
    return bool(solution.status != 0 or -solution.fun > 1e-7)


def _fit(outcome: Floats, columns: Mapping[str, Floats], patients: Sequence[str]) -> dict[str, Any]:
    from statsmodels.genmod.cov_struct import Exchangeable, Independence
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    several = len(set(patients)) < len(patients)  # else there is no correlation within a patient to estimate
    structure = Exchangeable() if several else Independence()
    groups = np.unique(np.array(patients), return_inverse=True)[1]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the checks below cover these warnings
        try:
            fitted = GEE(outcome, _design(columns), groups, family=Binomial(), cov_struct=structure).fit(maxiter=200)
            values, errors = np.asarray(fitted.params)[1:], np.asarray(fitted.bse)[1:]
            sound = bool(fitted.converged) and bool(np.isfinite([*values, *errors]).all()) and bool((errors > 0).all())
        except (ValueError, np.linalg.LinAlgError, FloatingPointError):
            sound = False
    if not sound:
        return {"reason": "the estimating equations did not converge"}
    ratios = []
    for name, value, error in zip(columns, values, errors, strict=True):
        sd = float(columns[name].std())
        with np.errstate(over="ignore"):
            low, ratio, high = (float(np.exp((value + z * error) / sd)) for z in (-_Z, 0, _Z))
        if not 0 < ratio <= high < math.inf:
            return {"reason": f"the odds ratio per 1 of {name} is beyond all numbers: give {name} in a smaller unit"}
        p = math.erfc(abs(value / error) / math.sqrt(2))
        ratios.append({"column": name, "odds_ratio": ratio, "low": low, "high": high, "p": p})
    return {"odds_ratios": ratios, "correlation": float(structure.dep_params) if several else None}


def _trend(units: Sequence[Unit], event: NDArray[np.bool_]) -> dict[str, Any]:
    """Return patients with an event by number of exposed units, and Cochran and Armitage's test for trend."""
    exposed, events = Counter[str](), Counter[str]()
    for unit, happened in zip(units, event, strict=True):
        exposed[unit.patient] += unit.exposed
        events[unit.patient] += int(happened)
    rows = []
    for count in sorted(set(exposed.values())):
        here = [patient for patient, n in exposed.items() if n == count]
        rows.append({
            "exposed_units": count,
            "patients": len(here),
            "with_event": sum(events[patient] > 0 for patient in here),
            "events": sum(events[patient] for patient in here),
        })  # fmt: skip
    x = np.array(list(exposed.values()), np.float64)
    y = np.array([events[patient] > 0 for patient in exposed], np.float64)
    varies = len(x) > 1 and x.std() > 0 and y.std() > 0
    z = float(math.sqrt(len(x)) * np.corrcoef(x, y)[0, 1]) if varies else None
    p = None if z is None else math.erfc(abs(z) / math.sqrt(2))
    reason = None if varies else "all patients have the same number of exposed units, or the same outcome"
    return {"patients": rows, "z": z, "p": p, "reason": reason}


def _notes(name: str, outcome: Mapping[str, Any]) -> Iterator[str]:
    words = name.replace("_", " ")
    for kind in ("unadjusted", "adjusted"):
        if (model := outcome[kind]) is None:
            continue
        about, ratios = f"{words}, {kind}:", len(model["odds_ratios"])
        if model["reason"] is not None:
            yield f"{about} no odds ratio, because {model['reason']}."
            continue
        if model["patients"] < _FEW_PATIENTS:
            yield f"{about} with {model['patients']} patients the interval is too narrow and only a hint."
        if model["events"] < _FEW_EVENTS * ratios:
            yield f"{about} {model['events']} events are few for {ratios} odds ratios."
        if model["without_covariates"]:
            yield f"{about} {model['without_covariates']} units lack a value to adjust for."
    if outcome["trend"]["reason"] is not None:
        yield f"{words}: no test for trend, because {outcome['trend']['reason']}."
