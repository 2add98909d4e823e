"""What a budget leaves time for, on devices whose steps take exactly as long as the test says. Nothing is timed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR, assert_found, checked
from helpers.tiny import listed, manifest, write_bundle
from spinescore.runtime import BudgetExceeded, BundleError, Cancelled, Scorer, Study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.scoring.budget import Effort, alternatives
from spinescore.runtime.scoring.estimates import Durations

STUDY = (CERVICAL.radiograph, LUMBAR.radiograph)
NETWORK_MS = {"localizer": 10, "grader": 20}
WHOLE, ONE_PASS, PLAIN = 76, 50, 32  # 2 x (4 x 4 + 10) + 2 x 2 + 20; without a pass; and with one sample a pixel
ASK = 26


class Clock:
    """Seconds, which pass when the device says so."""

    def __init__(self):
        self.ms, self.factor = 0.0, 1.0

    def __call__(self):
        return self.ms / 1e3

    def passes(self, ms):
        self.ms += ms * self.factor


class Steps(HostDevice):
    """A host device by that clock: a warp takes n x n milliseconds, a network its own; steps run one by one."""

    def __init__(self):
        super().__init__(1)
        self.clock, self.times, self.before = Clock(), {}, lambda network: None

    def warp(self, rois, spec, out):
        super().warp(rois, spec, out)
        self.clock.passes(spec.antialias**2)

    def run(self, engine, inputs, outputs):
        self.before(engine.name)
        super().run(engine, inputs, outputs)
        self.clock.passes(NETWORK_MS[engine.name.split(".")[0].split("-")[0]])

    def mark(self, stage):
        self.times[stage] = self.clock.ms

    def marks_ms(self):
        return {stage: at - self.times["start"] for stage, at in self.times.items()}

    def capture(self, steps):
        steps(slice(0, 2))
        return steps


class Graph(Steps):
    """As a GPU has it: steps are recorded once, and replayed for both views as one unit."""

    recording = None

    def capture(self, steps):
        steps(slice(0, 2))
        self.recording = kept = []
        steps(slice(0, 2))
        self.recording = None

        def replay(views):
            for verb, arguments in kept:
                getattr(self, verb)(*arguments)

        return replay


def _recorded(verb):
    def call(self, *arguments):
        if self.recording is None:
            getattr(Steps, verb)(self, *arguments)
        else:
            self.recording.append((verb, arguments))

    return call


for name in ("warp", "decode", "boxes", "crops", "run", "mark", "mirror", "average"):
    setattr(Graph, name, _recorded(name))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("two") / "b", **{"localizer.passes": 2}))


def opened(bundle, kind=Steps, budget_ms=1e6, **options):
    device = kind()
    return Scorer(bundle, device, budget_ms=budget_ms, clock=device.clock, **options), device


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


@pytest.mark.parametrize("kind", [Steps, Graph])
def test_a_hard_budget_ends_what_cannot_be_kept(bundle, kind):
    scorer, device = opened(bundle, kind)
    with scorer:
        assert scorer.score(STUDY, PLAIN + 1, hard=True).within_budget
        with pytest.raises(
            BudgetExceeded, match=r"31 ms cannot be kept: .* at least 32.0|what is left takes 32.0 ms"
        ) as early:
            scorer.score(STUDY, PLAIN - 1, hard=True)
        assert (early.value.stages, early.value.report) == (("select", "upload"), None)
        device.clock.factor = 2.0
        began = device.clock.ms
        with pytest.raises(BudgetExceeded) as late:
            scorer.score(STUDY, PLAIN + 10, hard=True)
        spent = device.clock.ms - began
        device.clock.factor = 1.0
        assert scorer.score(STUDY).within_budget
    if kind is Graph:  # one unit: it comes late, but whole
        assert late.value.stages == ("select", "upload", "grade")
        assert late.value.report.timings_ms.total == pytest.approx(2 * PLAIN)
        assert late.value.report.within_budget is False
    else:  # the crops are not even cut
        assert late.value.stages == ("select", "upload", "localize")
        assert (late.value.report, spent) == (None, pytest.approx(22))
        assert late.value.timings_ms["localize"] == pytest.approx(22)


def test_cancelling_ends_the_study_at_the_next_stage_and_leaves_the_scorer_whole(bundle):
    scorer, device = opened(bundle)
    cancel = threading.Event()
    with scorer:
        first = scorer.score(STUDY, cancel=cancel)
        device.before = lambda network: cancel.set()
        began = device.clock.ms
        with pytest.raises(Cancelled, match="cancelled after select, upload, localize was done"):
            scorer.score(STUDY, cancel=cancel)
        assert device.clock.ms - began == pytest.approx(ASK)
        with pytest.raises(Cancelled, match="after nothing was done"):
            scorer.score(STUDY, cancel=cancel)
        device.before = lambda network: None
        again = scorer.score(STUDY, cancel=threading.Event())
    assert replace(again, timings_ms=None) == replace(first, timings_ms=None)


def test_who_must_not_wait_gets_nothing_where_another_study_is_scored(bundle):
    scorer, device = opened(bundle)
    seen = []
    cancelled, late = threading.Event(), Study(STUDY, read_ms=1.0)
    cancelled.set()

    def meanwhile(network):
        if not seen:
            seen.append(scorer.try_score(STUDY))
            with pytest.raises(Cancelled, match="after read was done"):  # who waits may give up
                scorer.score(late, cancel=cancelled, count_reading=True)
            with pytest.raises(BudgetExceeded, match="had passed after read"):
                scorer.score(late, 0.5, hard=True, count_reading=True)

    with scorer:
        device.before = meanwhile
        assert scorer.score(STUDY).total.value == scorer.try_score(STUDY).total.value
    assert seen == [None]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("50", TypeError),
        (True, TypeError),
    ],
)
def test_a_budget_is_a_number_above_0(bundle, wrong, kind):
    scorer, _ = opened(bundle, budget_ms=None)
    with scorer:
        for call in (scorer.score, scorer.try_score):
            with pytest.raises(kind, match="budget_ms must be a number of milliseconds above 0, got"):
                call(STUDY, wrong)
        with pytest.raises(ValueError, match="hard needs a budget_ms"):
            scorer.score(STUDY, hard=True)
    with pytest.raises(kind, match="budget_ms must be a number of milliseconds above 0"):
        Scorer.open(bundle.folder, "cpu", budget_ms=wrong)
    with pytest.raises(BundleError, match="budget_ms: expected a number"):
        Manifest.from_dict({**listed(manifest()), "budget_ms": wrong})


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


def test_an_error_of_a_budget_can_be_sent_to_another_process():
    import pickle

    error = pickle.loads(pickle.dumps(BudgetExceeded("late", {"read": 3.0})))
    assert (str(error), error.stages, error.report) == ("late", ("read",), None)


ARRAYS = {"cervical": CERVICAL.radiograph.pixels, "lumbar": LUMBAR.radiograph.pixels}


@pytest.mark.parametrize("kind", [Steps, Graph])
def test_a_scorer_opened_on_a_busy_machine_is_not_locked_out(bundle, kind):
    """Arrays state no facing: nothing was scored, so nothing was learnt."""
    device = kind()
    device.clock.factor = 20.0
    with Scorer(bundle, device, budget_ms=300, clock=device.clock) as scorer:
        device.clock.factor = 1.0
        found = [scorer.score(ARRAYS) for _ in range(4)]
        assert {region.reject.code for region in found[0].regions.values()} == {"no-time"}
        assert found[0].regions["lumbar"].reject.message.startswith("lumbar array does not state to which side")
        assert {region.reject and region.reject.code for region in found[2].regions.values()} != {"no-time"}
        assert found[3].skipped == () == scorer.score(STUDY).skipped


@pytest.mark.parametrize("kind", [Steps, Graph])
def test_what_was_skipped_because_of_a_busy_opening_is_back_with_the_next_study(bundle, kind):
    device = kind()
    device.clock.factor = 20.0
    with Scorer(bundle, device, budget_ms=WHOLE + 1, clock=device.clock) as scorer:
        device.clock.factor = 1.0
        assert scorer.score(STUDY).skipped == ("second-pass", "antialias")
        assert [scorer.score(STUDY, hard=hard).skipped for hard in (True, False)] == [(), ()]


@pytest.mark.parametrize("kind", [Steps, Graph])
def test_a_hard_call_of_a_scorer_without_a_budget_measures_nothing(bundle, kind):
    """Half of what the networks took in the self-test is what the steps take at least."""
    scorer, device = opened(bundle, kind, budget_ms=None)
    with scorer:
        began = device.clock.ms
        with pytest.raises(BudgetExceeded, match=r"what is left takes 15\.0 ms at least"):
            scorer.score(STUDY, 14, hard=True)
        assert device.clock.ms == began
        for effort in scorer._views.efforts:  # which takes no time on a CPU
            scorer._views.pipeline.prepare(effort)
        enough = {Steps: (ONE_PASS + 1, ("second-pass",)), Graph: (WHOLE + 1, ())}  # the first pass tells of the second
        budget_ms, skipped = enough[kind]
        report = scorer.score(STUDY, budget_ms, hard=True)
        assert (report.skipped, report.within_budget) == (skipped, True)


def test_a_hard_call_does_not_wait_for_the_self_test(tmp_path):
    folder = write_golden_bundle(tmp_path / "b")
    with Scorer.open(folder, "cpu", build="no", warm_up=False) as scorer:
        with pytest.raises(BudgetExceeded, match=r"has to pass its self-test first\. Call self_test") as caught:
            scorer.score(STUDY, 1e6, hard=True)
        assert caught.value.report is None
        scorer.self_test()
        assert scorer.score(STUDY, 1e6, hard=True).within_budget
