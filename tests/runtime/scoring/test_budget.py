"""What a budget leaves time for, on devices whose steps take exactly as long as the test says. Nothing is timed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.clocked import ASK, NETWORK_MS, ONE_PASS, PLAIN, STUDY, WHOLE, Graph, Steps, opened
from helpers.scoring import CERVICAL, LUMBAR, assert_found, checked
from helpers.tiny import listed, manifest, write_bundle
from spinescore.runtime import BudgetExceeded, Study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.scoring.budget import Effort, alternatives
from spinescore.runtime.scoring.estimates import Durations


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("two") / "b", **{"localizer.passes": 2}))


BUDGETS = [
    (1e6, (), WHOLE),
    (WHOLE + 1, (), WHOLE),
    (WHOLE - 1, ("second-pass",), ONE_PASS),
    (ONE_PASS - 1, ("second-pass", "antialias"), PLAIN),
    (PLAIN - 1, ("second-pass", "antialias"), PLAIN),
]


@pytest.mark.parametrize(("budget_ms", "skipped", "took"), BUDGETS)
@pytest.mark.parametrize("kind", [Steps, Graph])
def test_what_does_not_fit_is_skipped_in_order(bundle, kind, budget_ms, skipped, took):
    scorer, _ = opened(bundle, kind)
    with scorer:
        report = checked(scorer.score(STUDY, budget_ms))
    assert (report.skipped, report.budget_ms) == (skipped, budget_ms)
    assert report.timings_ms.total == pytest.approx(took)
    assert report.within_budget == (took <= budget_ms)
    said = f"For the budget of {budget_ms:g} ms the localizer looked once and not twice"
    assert [warning.startswith(said) for warning in report.warnings] == [True] * bool(skipped)
    if "antialias" not in skipped:
        assert_found(report.regions["cervical"], CERVICAL)
        assert_found(report.regions["lumbar"], LUMBAR)
    stages = report.timings_ms
    assert (stages.localize + stages.crop + stages.grade) == pytest.approx(took)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Two passes, each of which runs the localizer twice."""
    test_time = ([1.0], True, True)
    folder = tmp_path_factory.mktemp("averaged") / "b"
    return Bundle.open(write_bundle(folder, test_time=test_time, **{"localizer.passes": 2}))


AVERAGED = WHOLE + 2 * NETWORK_MS["localizer"]


@pytest.mark.parametrize(
    ("budget_ms", "skipped", "took"),
    [
        (AVERAGED + 1, (), AVERAGED),
        (AVERAGED - 1, ("test-time",), WHOLE),
        (WHOLE - 1, ("test-time", "second-pass"), ONE_PASS),
        (ONE_PASS - 1, ("test-time", "second-pass", "antialias"), PLAIN),
    ],
)
@pytest.mark.parametrize("kind", [Steps, Graph])
def test_the_extra_runs_are_skipped_first(averaged, kind, budget_ms, skipped, took):
    scorer, _ = opened(averaged, kind)
    with scorer:
        report = checked(scorer.score(STUDY, budget_ms))
        assert scorer.score(STUDY, 1e6).skipped == ()
    assert (report.skipped, report.timings_ms.total) == (skipped, pytest.approx(took))
    said = "the localizer's heatmaps were not averaged over scales and flips"
    assert [said in warning for warning in report.warnings] == [True] * bool(skipped)
    assert_found(report.regions["lumbar"], LUMBAR) if "antialias" not in skipped else None


def test_a_second_pass_does_without_its_extra_runs_where_the_first_was_slow(averaged):
    """On a CPU, which also tells what each of the two passes took."""
    plain, extra = 16 + NETWORK_MS["localizer"], NETWORK_MS["localizer"]
    scorer, device = opened(averaged, Steps)
    with scorer:
        scorer.score(STUDY)
        kinds = [("averaged", 2, True), ("pass", 2, True)]
        known = [scorer._views.durations.least([step]) for step in kinds]
        assert known == pytest.approx([plain + extra, plain])
        device.clock.factor = 1.5
        slow = 1.5 * (plain + extra)  # of the first pass; then there is time for a plain one
        report = scorer.score(STUDY, slow + plain + 4 + 20 + 1)
        assert report.skipped == ("test-time",)
        assert report.timings_ms.localize == pytest.approx(slow + 1.5 * plain)
        assert [scorer._views.durations.least([step]) for step in kinds] == known


def test_reading_counts_where_that_is_asked_for(bundle):
    scorer, _ = opened(bundle)
    with scorer:
        report = scorer.score(Study(STUDY, read_ms=30.0), ONE_PASS + 31, count_reading=True)
        assert (report.skipped, report.within_budget) == (("second-pass",), True)
        assert report.timings_ms.total == pytest.approx(ONE_PASS + 30)
        with pytest.raises(BudgetExceeded) as caught:
            scorer.score(Study(STUDY, read_ms=100.0), WHOLE, hard=True, count_reading=True)
        report = scorer.score(Study(STUDY, read_ms=100.0), WHOLE + 1, hard=True)
        assert (report.skipped, report.within_budget) == ((), True)
        assert (report.timings_ms.read, report.timings_ms.total) == (100, pytest.approx(100 + WHOLE))
    assert caught.value.timings_ms == {"read": 100.0}


def test_the_budget_of_the_call_then_the_scorers_then_the_bundles(bundle, tmp_path):
    assert (bundle.manifest.budget_ms, "budget_ms" in bundle.manifest.to_dict()) == (None, False)
    document = {**listed(manifest()), "budget_ms": 40.0}
    assert Manifest.from_dict(document).to_dict() == document
    own = replace(bundle, manifest=replace(bundle.manifest, budget_ms=40.0))
    for budget_ms, expected in ((None, 40.0), (60.0, 60.0)):
        scorer, _ = opened(own, budget_ms=budget_ms)
        with scorer:
            assert scorer.score(STUDY).budget_ms == expected
            assert scorer.score(STUDY, 90).budget_ms == 90
            assert scorer.crops(STUDY).report.skipped == ()
    scorer, _ = opened(bundle, budget_ms=None)
    with scorer:
        assert scorer.score(STUDY).budget_ms is None
        assert scorer.score(STUDY, PLAIN).skipped == ("second-pass", "antialias")  # by the study before


def test_what_was_never_seen_is_tried(bundle):
    scorer, device = opened(bundle, Graph, budget_ms=None)
    with scorer:
        report = scorer.score(STUDY, 20)
        assert (report.skipped, report.within_budget) == ((), False)
        assert scorer.score(STUDY, 20).skipped == ("second-pass", "antialias")
        assert device.clock.ms > 0


def test_a_device_without_graphs_drops_the_second_pass_when_the_first_was_slow(bundle):
    for kind, expected in ((Steps, ("second-pass",)), (Graph, ())):
        scorer, device = opened(bundle, kind)
        with scorer:
            device.clock.factor = 2.0
            assert scorer.score(STUDY, WHOLE + 10).skipped == expected


def test_a_machine_that_slows_down_is_followed_there_and_back(bundle):
    scorer, device = opened(bundle, Graph)
    with scorer:
        device.clock.factor = 2.0
        found = [scorer.score(STUDY, WHOLE + 10) for _ in range(20)]
        assert not found[0].skipped
        assert {report.skipped for report in found[-15:]} == {("second-pass", "antialias")}
        assert {report.within_budget for report in found[-15:]} == {True}
        device.clock.factor = 1.0
        found = [scorer.score(STUDY, WHOLE + 10) for _ in range(32)]
        assert {report.skipped for report in found[-2:]} == {()}


@pytest.mark.parametrize("tags", [{"facing": None}, {"region": None, "facing": None}])
def test_a_picture_is_asked_where_there_is_time_and_never_guessed(bundle, tags):
    study = [replace(CERVICAL.radiograph, **tags), LUMBAR.radiograph]
    scorer, _ = opened(bundle)
    with scorer:
        report = checked(scorer.score(study, ASK + PLAIN + 1))
        assert report.skipped == ("second-pass", "evidence", "antialias")  # of other turns, since these peaks are low
        assert (report.regions["cervical"].status, report.within_budget) == ("scored", True)
        report = checked(scorer.score(study, ASK + PLAIN - 1))
    region = report.regions["cervical"]
    assert (region.status, region.reject.code, report.within_budget) == ("rejected", "no-time", True)
    region_too = "its region, or " if "region" in tags else ""
    said = f"cervical.dcm does not state {region_too}to which side the patient looks (facing), and the budget of "
    assert region.reject.message.startswith(said)
    assert ("region= and facing= of" in region.reject.message) == bool(region_too)
    assert region.reject.message.endswith(f"or give a budget of about {ASK + PLAIN} ms.")
    assert "evidence" in report.skipped
    assert report.regions["lumbar"].status == "scored"


def test_of_several_radiographs_the_first_is_taken_where_there_is_no_time_to_compare(bundle):
    other = replace(CERVICAL.radiograph, source="other.dcm")
    scorer, _ = opened(bundle)
    with scorer:
        report = checked(scorer.score([CERVICAL.radiograph, other], PLAIN + 10))
        assert report.regions["cervical"].radiograph.source == "cervical.dcm"
        assert "There was no time to compare the cervical radiographs; the first was taken." in report.warnings
        assert report.skipped == ("second-pass", "evidence", "antialias")


def test_a_comparison_is_not_worth_the_antialiasing(bundle):
    other = replace(CERVICAL.radiograph, source="other.dcm")
    scorer, _ = opened(bundle)
    with scorer:
        for budget_ms, skipped in ((2 * ASK + ONE_PASS, ("second-pass",)), (ASK + ONE_PASS - 1, ("evidence",))):
            report = checked(scorer.score([CERVICAL.radiograph, other], budget_ms + 1e-6))
            assert (report.skipped[-1:], report.within_budget) == (skipped, True)


def test_a_region_that_is_rejected_is_not_looked_at_again_without_time(bundle):
    wrong = replace(LUMBAR.radiograph, region="cervical")
    scorer, _ = opened(bundle)
    with scorer:
        assert scorer.score(wrong).regions["cervical"].reject.code == "wrong-region"
        report = checked(scorer.score(wrong, WHOLE + 1))
    assert report.regions["cervical"].reject.code == "low-confidence"
    assert report.skipped == ("evidence",)


def test_views_one_after_the_other_give_the_same(bundle):
    whole, _ = opened(bundle)
    apart, device = opened(bundle, effort=Effort(2, apart=True))
    with whole, apart:
        first, second = whole.score(STUDY), apart.score(STUDY, 2 * WHOLE + 1)
        assert replace(second, timings_ms=first.timings_ms, budget_ms=first.budget_ms) == first
        assert second.timings_ms.total == pytest.approx(2 * WHOLE)
        assert apart.score(STUDY, 2 * WHOLE - 1).skipped == ("second-pass",)
        device.clock.factor = 1.2  # the first view gets its second pass, the other one not
        assert apart.score(STUDY, 2 * WHOLE + 1).timings_ms.total == pytest.approx(1.2 * (WHOLE + ONE_PASS))


def test_alternatives_are_less_and_less():
    two = Effort(2)
    assert alternatives(two, True) == (two, Effort(1), Effort(1, False))
    assert alternatives(two, False) == (two, Effort(1))
    assert alternatives(Effort(1, False), True) == (Effort(1, False),)
    averaged = replace(two, test_time=True)
    assert alternatives(averaged, True) == (averaged, two, Effort(1), Effort(1, False))


def test_durations():
    found = Durations()
    two, one, report = ("pass", 2, True), ("pass", 1, True), ("report", 0, True)
    assert found.likely([two, report]) == 0
    found.learn([(one, 10.0), (report, 2.0)])
    assert found.least([two, report]) == 22  # of one view, twice
    found.learn([(two, 16.0), (two, 14.0), (report, 2.0)])
    assert found.least([two]) == 14
    assert found.least([("pass", 2, False)]) == 14
    for _ in range(32):
        found.learn([(two, 14.0), (report, 2.0)])
    assert found.likely([two, report]) == pytest.approx(16)
    for _ in range(3):
        found.learn([(two, 28.0), (report, 4.0)])
    assert found.likely([two, report]) == pytest.approx(16)  # fewer than a tenth
    found.learn([(two, 28.0), (report, 4.0)])
    assert found.likely([two, report]) == pytest.approx(32)
    assert found.least([two, report]) == 16
