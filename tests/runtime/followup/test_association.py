"""Odds ratios of exposed units, compared with plain statsmodels and with a true one; cases without one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import cv2
import jsonschema
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy.stats import norm

from spinescore.runtime.followup.association import associate, association_schema
from spinescore.runtime.followup.associationinput import Study, Unit
from spinescore.runtime.followup.associationtext import forest_figure, markdown
from spinescore.runtime.outputs.figures import rendered

SCHEMA = jsonschema.Draft202012Validator(association_schema())


def cohort(patients: int = 60, odds_ratio: float = 4.0, seed: int = 0) -> Study:
    """Units of patients who share a risk, with age and CRP to adjust for."""
    rng = np.random.default_rng(seed)
    units = []
    for patient in range(patients):
        age, shared = rng.normal(45, 10), rng.normal()
        for level in ("C2/C3", "C3/C4", "C4/C5", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"):
            exposed, crp = bool(rng.random() < 0.3), float(rng.gamma(2, 5))
            logit = -1.5 + math.log(odds_ratio) * exposed + 0.03 * (age - 45)
            hidden = math.sqrt(0.2) * shared + math.sqrt(0.8) * rng.normal()
            event = bool(norm.cdf(hidden) < 1 / (1 + math.exp(-logit)))
            free = bool(rng.random() < 0.7)
            units.append(Unit(f"{patient}", level, 730, exposed, event if free else None, None if free else event,
                              (age, crp)))  # fmt: skip
    return Study(tuple(units), ("age", "crp"), {})


def check(study: Study) -> dict[str, Any]:
    """The document fits its schema, survives JSON, can be shown, and has no number without data."""
    document = associate(study)
    SCHEMA.validate(document)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert "nan" not in markdown(document).lower()
    assert "inf " not in markdown(document).lower()
    for outcome in document["outcomes"].values():
        for model in filter(None, (outcome["unadjusted"], outcome["adjusted"])):
            assert (model["reason"] is None) == bool(model["odds_ratios"])
    return document


def frame(study: Study, outcome: str) -> pd.DataFrame:
    rows = [
        {"y": int(getattr(u, outcome)), "exposure": int(u.exposed), "patient": u.patient, "age": a, "crp": c}
        for u in study.units
        for a, c in [u.covariates]
        if getattr(u, outcome) is not None
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("outcome", ["new_syndesmophyte", "growth"])
@pytest.mark.parametrize(("model", "formula"), [("unadjusted", ""), ("adjusted", " + age + crp")])
def test_odds_ratios_are_those_of_statsmodels(outcome: str, model: str, formula: str) -> None:
    study = cohort()
    found = check(study)["outcomes"][outcome][model]
    fitted = smf.gee(
        f"y ~ exposure{formula}",
        "patient",
        frame(study, outcome),
        family=sm.families.Binomial(),
        cov_struct=sm.cov_struct.Exchangeable(),
    ).fit(maxiter=200)
    bounds = np.exp(fitted.conf_int())
    assert [ratio["column"] for ratio in found["odds_ratios"]] == list(fitted.params.index[1:])
    for ratio in found["odds_ratios"]:
        name = ratio["column"]
        assert ratio["odds_ratio"] == pytest.approx(math.exp(fitted.params[name]), rel=1e-4)
        assert (ratio["low"], ratio["high"]) == pytest.approx(tuple(bounds.loc[name]), rel=1e-3)
        assert ratio["p"] == pytest.approx(fitted.pvalues[name], rel=1e-2)
    assert found["correlation"] == pytest.approx(fitted.cov_struct.dep_params, abs=1e-4)


@pytest.mark.parametrize("odds_ratio", [1.0, 4.0])
def test_a_known_odds_ratio_is_found(odds_ratio: float) -> None:
    """The adjusted model, because age has an effect, is within four standard errors of the truth."""
    (ratio, age, _) = check(cohort(200, odds_ratio))["outcomes"]["new_syndesmophyte"]["adjusted"]["odds_ratios"]
    for found, truth in ((ratio, odds_ratio), (age, math.exp(0.03))):
        error = math.log(found["high"] / found["low"]) / (2 * 1.96)
        assert abs(math.log(found["odds_ratio"] / truth)) < 4 * error
        assert error < 0.3


def test_table_share_and_counts_by_hand() -> None:
    study = cohort()
    data = frame(study, "new_syndesmophyte")
    found = check(study)["outcomes"]["new_syndesmophyte"]
    assert found["table"] == pd.crosstab(data.exposure, data.y).to_numpy().tolist()
    unexposed = int(data.y[data.exposure == 0].sum())
    assert found["in_unexposed"] == {"events": unexposed, "of": data.y.sum(), "share": unexposed / data.y.sum()}
    text = markdown(associate(study))
    assert f"{unexposed} of {data.y.sum()} ({100 * unexposed / data.y.sum():.1f} %) arose in units without" in text


def test_trend_is_that_of_a_logistic_score_test() -> None:
    """Cochran and Armitage's test is the score test of logistic regression on the number of exposed units."""
    study = cohort()
    found = check(study)["outcomes"]["new_syndesmophyte"]["trend"]
    data = frame(study, "new_syndesmophyte").groupby("patient").agg({"exposure": "sum", "y": "max"})
    null = sm.GLM(data.y, np.ones((len(data), 1)), family=sm.families.Binomial()).fit()
    statistic, p, *_ = null.score_test(exog_extra=data[["exposure"]].to_numpy(float))
    assert found["z"] ** 2 == pytest.approx(np.asarray(statistic).item(), rel=1e-6)
    assert found["p"] == pytest.approx(np.asarray(p).item(), rel=1e-6)
    assert sum(row["patients"] for row in found["patients"]) == len(data)
    assert sum(row["with_event"] for row in found["patients"]) == data.y.sum()


def test_scale_and_place_of_a_covariate_change_nothing_else() -> None:
    study = cohort()
    moved = tuple(
        Unit(u.patient, u.level, u.interval_days, u.exposed, u.new_syndesmophyte, u.growth,
             (1e6 + 1e3 * (u.covariates[0] or 0), u.covariates[1]))
        for u in study.units
    )  # fmt: skip
    one, other = (
        check(s)["outcomes"]["new_syndesmophyte"]["adjusted"]["odds_ratios"]
        for s in (study, Study(moved, study.covariates, {}))
    )
    for figure in ("odds_ratio", "low", "high", "p"):
        assert other[0][figure] == pytest.approx(one[0][figure], rel=1e-6)
    assert other[1]["odds_ratio"] ** 1000 == pytest.approx(one[1]["odds_ratio"], rel=1e-6)


def changed(change: Callable[[Unit], tuple[bool, bool, tuple[float | None, ...]]], patients: int = 30) -> Study:
    """A cohort in which `change` sets the exposure, event and covariates of each unit."""
    units = []
    for unit in cohort(patients).units:
        exposed, event, covariates = change(unit)
        units.append(Unit(unit.patient, unit.level, 730, exposed, event, None, covariates))
    return Study(tuple(units), ("age", "crp"), {})


def old(unit: Unit) -> bool:
    return (unit.covariates[0] or 0) > 45


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda u: (u.exposed, False, u.covariates), "no unit has the event"),
        (lambda u: (u.exposed, True, u.covariates), "every unit has the event"),
        (lambda u: (False, bool(u.new_syndesmophyte), u.covariates), "no unit is exposed"),
        (lambda u: (True, bool(u.new_syndesmophyte), u.covariates), "every unit is exposed"),
        (lambda u: (u.exposed, u.exposed and bool(u.new_syndesmophyte), u.covariates), "no unexposed unit has the"),
        (lambda u: (u.exposed, not u.exposed and bool(u.new_syndesmophyte), u.covariates), "no exposed unit has the"),
        (lambda u: (u.exposed, u.exposed or bool(u.new_syndesmophyte), u.covariates), "every exposed unit has the"),
    ],
)  # fmt: skip
def test_what_has_no_odds_ratio_says_why(change: Any, reason: str) -> None:
    document = check(changed(change))
    outcome = document["outcomes"]["new_syndesmophyte"]
    for model in ("unadjusted", "adjusted"):
        assert reason in outcome[model]["reason"]
        assert any(f"{model}: no odds ratio, because" in note and reason in note for note in document["notes"])
    assert sum(map(sum, outcome["table"])) == 30 * 8
    assert forest_figure(document) is None


def tiny(unit: Unit) -> float:
    return (unit.covariates[1] or 0) * 1e-9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda u: (u.exposed, old(u), u.covariates), "separate the units with the event"),  # complete
        (lambda u: (u.exposed, old(u) and bool(u.new_syndesmophyte), (old(u), 1.5)), "is the same in all units"),
        (lambda u: (u.exposed, old(u) and bool(u.new_syndesmophyte), (old(u), u.covariates[1])), "separate the units"),
        (lambda u: (u.exposed, bool(u.new_syndesmophyte), (3.0, u.covariates[1])), "age is the same in all units"),
        (
            lambda u: (u.exposed, bool(u.new_syndesmophyte), (2.0 * u.exposed, u.covariates[1])),
            "follows from the others",
        ),
        (lambda u: (u.exposed, bool(u.new_syndesmophyte), (float(ord(u.level[1])), tiny(u))), "crp in a smaller unit"),
        (lambda u: (u.exposed, bool(u.new_syndesmophyte), (None, u.covariates[1])), "no unit is at risk"),
    ],
)
def test_what_cannot_be_adjusted_keeps_the_unadjusted_one(change: Any, reason: str) -> None:
    outcome = check(changed(change))["outcomes"]["new_syndesmophyte"]
    assert outcome["unadjusted"]["reason"] is None
    assert reason in outcome["adjusted"]["reason"]


def test_few_patients_have_no_interval() -> None:
    for patients in (1, 2):
        document = check(cohort(patients, seed=3))
        assert "too few patients" in document["outcomes"]["new_syndesmophyte"]["unadjusted"]["reason"]
    assert any("the interval is too narrow" in note for note in check(cohort(20))["notes"])


def test_one_unit_of_each_patient_needs_no_correlation() -> None:
    units = [unit for unit in cohort(300).units if unit.level == "L1/L2"]
    study = Study(tuple(units), ("age", "crp"), {})
    model = check(study)["outcomes"]["new_syndesmophyte"]["unadjusted"]
    data = frame(study, "new_syndesmophyte")
    fitted = smf.logit("y ~ exposure", data).fit(disp=0)
    assert model["correlation"] is None
    assert model["odds_ratios"][0]["odds_ratio"] == pytest.approx(math.exp(fitted.params["exposure"]), rel=1e-5)


def test_units_without_a_covariate_leave_the_adjusted_model_alone() -> None:
    study = cohort()
    units = tuple(
        Unit(u.patient, u.level, 730, u.exposed, u.new_syndesmophyte, u.growth, (None, 1.0)) if i % 10 == 0 else u
        for i, u in enumerate(study.units)
    )
    whole, part = check(study), check(Study(units, study.covariates, {}))
    models = part["outcomes"]["new_syndesmophyte"]
    assert models["unadjusted"] == whole["outcomes"]["new_syndesmophyte"]["unadjusted"]
    missing = models["adjusted"]["without_covariates"]
    assert 0 < missing == models["unadjusted"]["units"] - models["adjusted"]["units"]
    assert any(f"{missing} units lack a value to adjust for" in note for note in part["notes"])


def test_the_forest_plot_is_grey_and_follows_the_figures() -> None:
    document = associate(cohort())
    data, again, other = (rendered(forest_figure(one)) for one in (document, document, associate(cohort(seed=1))))
    assert data == again
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (picture == picture[..., :1]).all()
    assert data != other
