"""Verdicts on a change: comparable corners, the time of the definition, the error, the expected change."""

import itertools
import json
import math
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime.followup import Rules, compare, comparison_schema
from spinescore.runtime.followup.comparisontext import comparison_summary
from spinescore.runtime.scoring.expected import disc_distribution

FUSED = (3,) * 12
TWO_YEARS = ("20220110", "20240110")


def pair(before, after, days=TWO_YEARS, rules=None, **about):
    """The comparison of two lumbar spines under a normal cervical one."""
    first = made_report({"cervical": NORMAL, "lumbar": before}, "1", days[0])
    second = made_report({"cervical": NORMAL, "lumbar": after}, "2", days[1], **about)
    found = compare(first, second, rules)
    jsonschema.validate(json.loads(found.to_json()), comparison_schema())
    return found


def hidden(grades, *places):
    return changed(grades, **{f"at{place}": None for place in places})


@pytest.mark.parametrize(
    ("before", "after", "change", "possible"),
    [
        (FUSED, hidden(FUSED, 4, 5), 0, (-6, 0)),  # nothing changed; imputing gave nothing either, but elsewhere:
        (changed(FUSED, at0=0, at1=0), hidden(changed(FUSED, at0=0, at1=0), 0, 1), 0, (0, 6)),  # imputing gave +6
        (changed(NORMAL, at8=3, at9=3, at4=1), hidden(NORMAL, 8, 9), -1.2, (-7, -1)),
        (hidden(NORMAL, 0), hidden(changed(NORMAL, at2=3), 11), 3.6, (0, 6)),
        (NORMAL, hidden(changed(NORMAL, at0=2), 4, 5, 6), 12 / 9 * 2, (2, 11)),
        (NORMAL, hidden(changed(NORMAL, at0=2), 4, 5, 6, 7), None, (2, 14)),  # more than 3 of 12 are not comparable
        (hidden(NORMAL, 0, 1), hidden(NORMAL, 2, 3), None, (-6, 6)),
    ],
)
def test_the_change_is_that_of_comparable_corners(before, after, change, possible):
    found = pair(before, after)
    expected = None if change is None else pytest.approx(change, abs=1e-3)
    assert found.regions["lumbar"].total.change == expected
    assert found.total.change == expected
    assert found.total.possible == possible


@pytest.mark.parametrize(
    ("before", "after", "verdict", "met"),
    [
        (NORMAL, changed(NORMAL, at0=2), "progression", [False, False]),
        (NORMAL, changed(NORMAL, at0=1), "no progression", [False, False]),
        (NORMAL, NORMAL, "no progression", [True, True]),
        (NORMAL, hidden(NORMAL, 4), "undecided", [None, None]),
        (FUSED, hidden(FUSED, 4, 5), "no progression", [True, True]),
        (hidden(NORMAL, 4, 5), changed(NORMAL, at0=2), "undecided", [None, None]),
        (NORMAL, hidden(changed(NORMAL, at0=2), 4), "progression", [False, False]),
        (changed(NORMAL, at4=3, at5=3), hidden(changed(NORMAL, at0=1), 4, 5), "no progression", [None, None]),
        (NORMAL, hidden(NORMAL, 0, 1, 2, 3), None, [None, None]),
    ],
)
def test_missing_corners_leave_a_verdict_open_where_they_decide_it(before, after, verdict, met):
    found = pair(before, after).progression
    assert found.verdict == verdict
    assert found.progressed is {"progression": True, "no progression": False}.get(verdict)
    assert [rule.met for rule in found.no_progression] == met
    assert (found.reason is None) == (verdict in ("progression", "no progression"))


@pytest.mark.parametrize(
    ("followup", "verdict", "has_rate", "words"),
    [
        ("20220119", None, False, "0.0 years lie outside of the 1.5 to 2.5 years"),
        ("20221101", None, False, "outside"),
        ("20230110", None, True, "1.0 years lie outside"),
        ("20230711", "progression", True, "in 1.5 to 2.5 years"),
        ("20240710", "progression", True, "in 1.5 to 2.5 years"),
        ("20250110", None, True, "3.0 years lie outside"),
        ("20360110", None, True, "14.0 years lie outside"),
        ("20220110", None, False, "both studies are of one day"),
        ("20200110", None, False, "the follow-up is the older study"),
        (None, None, False, "a study has no date"),
    ],
)
def test_progression_has_a_time(followup, verdict, has_rate, words):
    found = pair(NORMAL, changed(NORMAL, at0=2), ("20220110", followup))
    assert found.progression.verdict == verdict
    assert found.progression.progressed is (True if verdict else None)
    assert (found.progression.rate is not None) == has_rate
    assert found.total.change == 2
    assert words in comparison_summary(found)


@pytest.mark.parametrize(
    ("followup", "verdict"), [("20360110", "no progression"), ("20230110", "progression"), ("20220210", None)]
)
def test_outside_of_the_window_the_rate_decides_if_it_is_asked_to(followup, verdict):
    found = pair(NORMAL, changed(NORMAL, at0=2), ("20220110", followup), Rules(judge_by_rate=True)).progression
    assert (found.verdict, found.basis) == (verdict, "rate" if verdict else None)
    assert found.rate is None or (found.rate >= 2) == (verdict == "progression")


def test_a_rate_by_missing_corners_is_as_open_as_the_change():
    rules = Rules(judge_by_rate=True)
    assert pair(NORMAL, hidden(NORMAL, 4), ("20220110", "20320110"), rules).progression.verdict == "no progression"
    assert pair(NORMAL, hidden(NORMAL, 4), ("20220110", "20241201"), rules).progression.verdict == "undecided"


@pytest.mark.parametrize(
    ("sdc", "beyond", "words"),
    [(1.9, True, "+2 is beyond the error"), (2.0, False, "+2 is within the error"), (None, None, "is not known")],
)
def test_the_error_of_measurement_stands_beside_the_verdict(sdc, beyond, words):
    found = pair(NORMAL, changed(NORMAL, at0=2), rules=Rules(sdc=sdc))
    assert found.progression.beyond_error is beyond
    assert words in comparison_summary(found)


def test_the_bundles_own_error_counts_if_none_is_given():
    def stating(report, value):
        return replace(report, bundle=replace(report.bundle, smallest_detectable_change=value))

    first = stating(made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20220110"), 1.9)
    second = stating(made_report({"cervical": NORMAL, "lumbar": changed(NORMAL, at0=2)}, "2", "20240110"), 1.9)
    found = compare(first, second).progression
    assert (found.sdc, found.beyond_error) == (1.9, True)
    assert compare(first, second, Rules(sdc=2.5)).progression.sdc == 2.5
    other = replace(second, bundle=replace(second.bundle, sha256="c" * 64))
    assert compare(first, other).progression.sdc is None  # what two bundles differ by is in no bundle's error


def test_a_fall_can_be_beyond_the_error():
    assert pair(changed(NORMAL, at0=2), NORMAL, rules=Rules(sdc=1)).progression.beyond_error is True


def test_events_of_a_region_that_was_not_scored_are_not_0():
    first = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20220110")
    second = made_report({"cervical": None, "lumbar": changed(NORMAL, at0=2, at4=1)}, "2", "20240110")
    found = compare(first, second)
    jsonschema.validate(json.loads(found.to_json()), comparison_schema())
    assert (found.corners.comparable, found.corners.change) == (12, 3)
    assert found.corners.new_syndesmophytes is found.corners.growth is found.corners.lower is None
    assert found.units.new_syndesmophytes is found.units.growth is found.units.new_bridges is None
    lumbar, cervical = found.regions["lumbar"], found.regions["cervical"]
    assert (lumbar.corner_counts.new_syndesmophytes, lumbar.unit_counts.new_syndesmophytes) == (1, 1)
    assert (cervical.corner_counts.comparable, cervical.corner_counts.growth, cervical.corner_counts.change) == (
        0, None, None,
    )  # fmt: skip
    assert "12 of 24 comparable, their change +3" in comparison_summary(found)


def test_what_the_networks_expect_of_a_change_by_enumeration():
    before = changed(NORMAL, at0=2, at3=None, at2=None)
    after = changed(NORMAL, at0=3, at1=3, at5=1, at2=0, at3=1)
    found = pair(before, after).regions["lumbar"].total
    first = made_report({"cervical": NORMAL, "lumbar": before}).regions["lumbar"].discs
    second = made_report({"cervical": NORMAL, "lumbar": after}).regions["lumbar"].discs
    distribution = {0: 1.0}
    for number in (0, 2, 3, 4, 5):  # the second disc is not comparable
        p, q = (
            disc_distribution(np.array([corner.probabilities for corner in discs[number].corners]))
            for discs in (first, second)
        )
        added = {}
        for (total, known), a, b in itertools.product(distribution.items(), range(7), range(7)):
            added[total + b - a] = added.get(total + b - a, 0.0) + known * p[a] * q[b]
        distribution = added
    mean = sum(total * known for total, known in distribution.items())
    assert found.expected.mean == pytest.approx(1.2 * mean, abs=1e-3)
    assert found.expected.sd == pytest.approx(
        1.2 * sum(known * (total - mean) ** 2 for total, known in distribution.items()) ** 0.5, abs=1e-3
    )
    low, high = (bound / 1.2 for bound in found.expected.interval)
    assert sum(known for total, known in distribution.items() if total < low - 1e-6) <= 0.025
    assert sum(known for total, known in distribution.items() if total > high + 1e-6) <= 0.025


def test_a_study_against_itself_expects_no_change():
    found = pair(changed(NORMAL, at0=2), changed(NORMAL, at0=2)).total
    assert found.expected.mean == pytest.approx(0, abs=1e-9)
    assert found.expected.interval[0] == -found.expected.interval[1]


def test_without_a_change_nothing_is_expected():
    found = pair(NORMAL, hidden(NORMAL, 0, 1, 2, 3))
    assert (found.total.expected, found.regions["lumbar"].total.expected) == (None, None)
    assert found.regions["cervical"].total.expected is not None


def test_visits_scored_with_different_bundles_are_said_to_be():
    assert pair(NORMAL, NORMAL).same_bundle
    found = pair(NORMAL, NORMAL, sha256="c" * 64)
    assert not found.same_bundle
    assert any("different bundles" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("rules", "judged"),
    [(Rules(), False), (Rules(rate_years=1), True), (Rules(window_years=(1, 1)), True), (Rules(rate_years=4), False)],
)
def test_the_window_lies_about_the_years_of_the_definition(rules, judged):
    found = pair(NORMAL, changed(NORMAL, at0=2), ("20230110", "20240110"), rules).progression
    assert (found.verdict == "progression") == judged
    assert found.window_years == rules.window


@pytest.mark.parametrize(
    ("rule", "fault", "words"),
    [
        ({"progression_units": math.nan}, ValueError, "progression_units and no_progression_units must be numbers"),
        ({"progression_units": "2"}, TypeError, "got str '2'"),
        ({"no_progression_units": (0, math.inf)}, ValueError, "got inf"),
        ({"rate_years": 0}, ValueError, "rate_years must be a number of years above 0"),
        ({"window_years": (3, 1)}, ValueError, "window_years must be from 0 on, the least first, got 3 and 1"),
        ({"window_years": (1, 2, 3)}, ValueError, "window_years is the least and the greatest number of years"),
        ({"min_rate_years": -1}, ValueError, "min_rate_years must be a number from 0 on, got -1"),
        ({"max_not_comparable": 12}, ValueError, "max_not_comparable must be from 0 to 11"),
        ({"sdc": -0.5}, ValueError, "sdc must be a number from 0 on, got -0.5"),
    ],
)
def test_a_rule_by_which_nothing_can_be_judged_is_refused(rule, fault, words):
    with pytest.raises(fault, match=words):
        Rules(**rule)
