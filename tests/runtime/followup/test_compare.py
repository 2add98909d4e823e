"""The rules of change: totals, progression, syndesmophytes per corner and per unit, bridges, missing grades."""

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime import InputRejected, followup
from spinescore.runtime.followup import Rules, compare, comparison_schema
from spinescore.runtime.followup.comparisontext import comparison_summary
from spinescore.runtime.study import SITES

VALIDATOR = jsonschema.Draft202012Validator(comparison_schema())
GRADES = st.lists(st.sampled_from([0, 1, 2, 3, None]), min_size=12, max_size=12)
REGIONS = st.fixed_dictionaries({"cervical": GRADES | st.none(), "lumbar": GRADES | st.none()})


def checked(baseline, followup, rules=None):
    """The comparison, after a check of its JSON."""
    found = compare(baseline, followup, rules)
    VALIDATOR.validate(json.loads(found.to_json()))
    return found


def lumbar(baseline, followup, **about):
    """Two studies with a normal cervical spine, two years (731 days) apart."""
    first = made_report({"cervical": NORMAL, "lumbar": baseline}, "1", "20220110")
    second = made_report({"cervical": NORMAL, "lumbar": followup}, "2", "20240111", **about)
    return checked(first, second)


def corners(comparison):
    return {corner.site: corner for corner in comparison.corner_changes()}


def test_the_schema_is_valid_and_the_door_leads_there():
    jsonschema.Draft202012Validator.check_schema(comparison_schema())
    assert all(hasattr(followup, name) for name in followup.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = followup.nothing


@pytest.mark.parametrize(
    ("before", "after", "new", "growth"),
    [
        (0, 0, False, False), (0, 1, False, False), (0, 2, True, False), (0, 3, True, False),
        (1, 1, False, False), (1, 2, True, False), (1, 3, True, False), (2, 2, False, False),
        (2, 3, False, True), (3, 3, False, False), (3, 2, False, False), (2, 1, False, False), (3, 0, False, False),
    ],
)  # fmt: skip
def test_what_a_corner_does(before, after, new, growth):
    found = lumbar(changed(NORMAL, at4=before), changed(NORMAL, at4=after))
    corner = corners(found)["L2-inferior"]
    assert (corner.baseline, corner.followup, corner.change) == (before, after, after - before)
    assert (corner.new_syndesmophyte, corner.growth, corner.not_comparable) == (new, growth, None)
    unit = next(unit for unit in found.unit_changes() if unit.level == "L2/L3")
    assert (unit.new_syndesmophyte, unit.growth, unit.new_bridge) == (new, growth, False)
    assert unit.total.change == found.total.change == found.regions["lumbar"].total.change == after - before
    assert found.regions["cervical"].total.change == 0
    assert (found.corners.new_syndesmophytes, found.units.new_syndesmophytes) == (new, new)
    assert (found.corners.growth, found.units.growth) == (growth, growth)
    assert found.corners.lower == (after < before)
    assert found.corners.comparable == 24


def test_a_unit_has_what_one_of_its_corners_has():
    found = lumbar(changed(NORMAL, at0=2, at1=0, at2=2, at3=2), changed(NORMAL, at0=3, at1=3, at2=3, at3=3))
    first, second = found.regions["lumbar"].units[:2]
    assert (first.new_syndesmophyte, first.growth, first.new_bridge) == (True, True, True)
    assert (second.new_syndesmophyte, second.growth, second.new_bridge) == (False, True, True)
    assert (first.total.change, second.total.change) == (4, 2)
    assert (found.corners.new_syndesmophytes, found.corners.growth) == (1, 3)
    assert (found.units.new_syndesmophytes, found.units.growth, found.units.new_bridges) == (1, 2, 2)


def test_a_bridge_that_was_there_is_not_new():
    found = lumbar(changed(NORMAL, at0=3, at1=3), changed(NORMAL, at0=3, at1=3))
    assert found.units.new_bridges == 0


def test_corners_that_are_not_comparable_say_why_and_count_nowhere():
    found = lumbar(changed(NORMAL, at4=None, at5=1), changed(NORMAL, at4=2, at5=1, at6=None))
    first, second = corners(found)["L2-inferior"], corners(found)["L3-inferior"]
    assert (first.followup, first.change, first.new_syndesmophyte, first.growth) == (2, None, None, None)
    assert first.not_comparable == "baseline: imputed"
    assert second.not_comparable == "follow-up: imputed"
    unit = found.regions["lumbar"].units[2]
    assert (unit.new_syndesmophyte, unit.growth, unit.new_bridge) == (None, None, False)
    assert (found.corners.comparable, found.corners.change, found.corners.not_comparable) == (22, 0, 2)
    assert found.units.not_comparable == 2
    assert (found.total.baseline, found.total.followup) == (
        pytest.approx(12 / 11, abs=0.001),
        pytest.approx(36 / 11, abs=0.001),
    )
    assert found.total.change == 0
    assert found.total.possible == (3 - 4, 6 - 1)
    assert sum("region's mean" in warning for warning in found.warnings) == 2


def test_without_a_total_there_is_no_change_but_a_range():
    first = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20220110")
    second = made_report({"cervical": changed(NORMAL, at0=2), "lumbar": None}, "2", "20240111")
    found = checked(first, second)
    assert (found.total.change, found.total.possible) == (None, (2, 38))
    assert (found.progression.progressed, found.progression.rate) == (None, None)
    assert [rule.met for rule in found.progression.no_progression] == [None, None]
    assert found.regions["cervical"].total.change == 2
    assert corners(found)["L5-inferior"].not_comparable == "follow-up: region rejected (low-confidence)"
    assert found.regions["lumbar"].units[0].total.possible == (0, 6)
    assert found.units.not_comparable == 6


@pytest.mark.parametrize(
    ("units", "progressed", "met"),
    [(0, False, [True, True]), (1, False, [False, False]), (2, True, [False, False]), (3, True, [False, False])],
)
def test_progression(units, progressed, met):
    found = lumbar(NORMAL, changed(NORMAL, at2=min(units, 2), at4=max(0, units - 2)))
    assert found.progression.progressed is progressed
    assert [rule.met for rule in found.progression.no_progression] == met
    assert found.interval_days == 731
    assert found.progression.rate == pytest.approx(units * 2 * 365.25 / 731, abs=1e-3)


def test_the_rules_are_parameters():
    first = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20220110")
    second = made_report({"cervical": NORMAL, "lumbar": changed(NORMAL, at2=1)}, "2", "20230110")
    found = checked(first, second, Rules(1.0, (1.0,), 1.0)).progression
    assert (found.progressed, found.rate) == (True, pytest.approx(365.25 / 365, abs=1e-3))
    assert [(rule.units, rule.met) for rule in found.no_progression] == [(1.0, True)]


@pytest.mark.parametrize(
    ("about", "code", "words"),
    [
        ({}, None, None),
        ({"patient": None}, "patient-unknown", "names no patient"),
        ({"sha256": "c" * 64}, "different-scorers", "different bundles"),
        ({"localizer": "narrow"}, "different-scorers", "different localizers of the bundle (its own, narrow)"),
        ({"day": None}, "no-study-date", "no date"),
        ({"day": "20249931"}, "no-study-date", "no date"),
        ({"day": "20200101"}, "dates-out-of-order", "not later"),
        ({"day": "20220110"}, "same-day", "of one day"),
        ({"day": "20220110", "uid": "1"}, "same-study", "same study"),
    ],
)
def test_what_makes_a_comparison_doubtful_is_a_warning(about, code, words):
    first = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "1", "20220110")
    second = made_report({"cervical": NORMAL, "lumbar": NORMAL}, **{"uid": "2", "day": "20240111", **about})
    found = checked(first, second)
    assert [notice.message for notice in found.notices] == list(found.warnings)
    known = {notice.code: notice.message for notice in found.notices}
    assert words in known[code] if code else not known
    if about.get("day") is not None or "day" in about:
        assert found.progression.rate is None


def test_different_patients_are_refused():
    first, second = (made_report({"cervical": NORMAL, "lumbar": NORMAL}, patient=key) for key in ("a", "b"))
    with pytest.raises(InputRejected, match="different patients") as caught:
        compare(first, second)
    assert caught.value.code == "two-patients"


@given(before=REGIONS, after=REGIONS)
def test_the_change_is_possible_and_the_counts_are_those_of_the_corners(before, after):
    first, second = made_report(before, "1", "20220110"), made_report(after, "2", "20240111")
    found = compare(first, second)
    for total in (found.total, *(region.total for region in found.regions.values())):
        assert total.possible[0] <= total.possible[1]
    for unit in found.unit_changes():
        assert unit.total.change is None or unit.total.possible == (unit.total.change, unit.total.change)
    for region in found.regions.values():
        counts = region.corner_counts
        if region.total.change is None:
            assert counts.not_comparable > 3
            assert found.total.change is None
        else:
            assert region.total.change == pytest.approx(12 / counts.comparable * counts.change, abs=1e-3)
    assert tuple(corner.site for corner in found.corner_changes()) == SITES["cervical"] + SITES["lumbar"]
    missing = [corner for corner in found.corner_changes() if corner.not_comparable]
    assert len(missing) == found.corners.not_comparable == 24 - found.corners.comparable
    assert all(None in (corner.baseline, corner.followup) for corner in missing)
    for region in found.regions.values():
        units, events = region.unit_counts.new_syndesmophytes, region.corner_counts.new_syndesmophytes
        assert (units is None) == (events is None) == (region.corner_counts.comparable == 0)
        assert units is None or units <= events <= 2 * units
    back = compare(second, first)
    assert back.total.possible == (-found.total.possible[1], -found.total.possible[0])
    if found.total.change is not None:
        assert back.total.change == pytest.approx(-found.total.change)


def test_the_text_names_what_happened():
    first = made_report({"cervical": NORMAL, "lumbar": changed(NORMAL, at0=2, at1=2)}, "1", "20220110")
    second = made_report({"cervical": None, "lumbar": changed(NORMAL, at0=3, at1=3, at3=1, at5=2)}, "2", "20240111")
    text = comparison_summary(compare(first, second))
    assert text.isascii()
    assert all(site in text for site in SITES["cervical"] + SITES["lumbar"])
    for words in ("growth, new bridge", "erosion, sclerosis or squaring", "new syndesmophyte",
                  "rejected (low-confidence)", "4 -> 9, change +5", "no total, no change to give, possible +5 to +41",
                  "731 days", "12 of 24 comparable, their change +5", "new bridges 1"):  # fmt: skip
        assert words in text
    whole = comparison_summary(compare(first, replace(second, regions=first.regions, total=first.total)))
    assert "no progression of 2 units or more in 1.5 to 2.5 years" in whole
    assert "change above 0: no; above 0.5: no" in whole
    assert "by the network's own probabilities" in whole
    assert "the smallest detectable change is not known" in whole
    assert "+0.00 per 2 years" in whole
