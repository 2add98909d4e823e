"""Hard budgets, cancelling, and scorers that were opened on a busy machine, by a clock of the test's own."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from helpers.clocked import ASK, ONE_PASS, PLAIN, STUDY, WHOLE, Graph, Steps, opened
from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import listed, manifest, write_bundle
from spinescore.runtime import BudgetExceeded, BundleError, Cancelled, Scorer, Study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.manifest import Manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("two") / "b", **{"localizer.passes": 2}))


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
