"""On the driver double: with a budget a graph for each effort is captured at opening, and one of them is launched."""

from __future__ import annotations

from on_double import CONTROL, assert_everything_freed, assert_same, bundle, opened, study

from spinescore.runtime import Scorer
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.scoring.budget import Effort


def case_efforts():
    """A study gives the host's report through the graph of each effort; no graph is captured later."""
    tested = bundle(**{"localizer.passes": 2})
    graphs = CONTROL.calls("cuGraphInstantiateWithFlags")
    with Scorer(tested, opened(), budget_ms=1e9) as cuda, Scorer(tested, HostDevice(1)) as host:
        assert CONTROL.calls("cuGraphInstantiateWithFlags") - graphs == 3
        for effort, skipped in (
            (Effort(2), ()),
            (Effort(1), ("second-pass",)),
            (Effort(1, antialias=False), ("second-pass", "antialias")),
            (Effort(2), ()),
        ):
            launches = CONTROL.calls("cuGraphLaunch")
            cuda.give(effort)
            host.give(effort)
            report = cuda.score(study(), 1e9)
            assert CONTROL.calls("cuGraphLaunch") - launches == 1
            assert (report.skipped, report.within_budget) == (skipped, True)
            assert_same(report, host.score(study(), 1e9))
        assert CONTROL.calls("cuGraphInstantiateWithFlags") - graphs == 3
    assert_everything_freed()


def case_averaging_is_a_graph_of_its_own():
    """Four efforts, four graphs; what is skipped first is the averaging."""
    tested = bundle(test_time=([1.0, 1.5], True, True), **{"localizer.passes": 2})
    graphs = CONTROL.calls("cuGraphInstantiateWithFlags")
    with Scorer(tested, opened(), budget_ms=1e9) as cuda, Scorer(tested, HostDevice(1)) as host:
        assert CONTROL.calls("cuGraphInstantiateWithFlags") - graphs == 4
        for effort, skipped in (
            (Effort(2, test_time=True), ()),
            (Effort(2), ("test-time",)),
            (Effort(1, antialias=False), ("test-time", "second-pass", "antialias")),
        ):
            cuda.give(effort)
            host.give(effort)
            report = cuda.score(study(), 1e9)
            assert report.skipped == skipped
            assert_same(report, host.score(study(), 1e9))
        assert CONTROL.calls("cuGraphInstantiateWithFlags") - graphs == 4
    assert_everything_freed()
