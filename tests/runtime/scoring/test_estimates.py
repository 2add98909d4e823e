"""Under any load before, a scorer soon chooses as one that was opened quietly; by a made machine and its clock.

The machine runs a study's steps as the pipeline does, a step at a time as on a CPU or all in one graph. A load is a
factor for each kind of step and study. Nothing is timed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinescore.runtime.errors import BudgetExceeded
from spinescore.runtime.scoring.budget import Budget, Effort, Launches, alternatives
from spinescore.runtime.scoring.estimates import Durations

QUIET = {"pass": 1.0, "averaged": 1.0, "crop": 1.0, "grade": 1.0, "evidence": 1.0, "report": 1.0}
FULL = Effort(2, test_time=True)
EFFORTS = alternatives(FULL, antialiased=True)
TOOK_MS = {("pass", True): 13.0, ("pass", False): 5.5, ("averaged", True): 40.0, ("crop", True): 4.0}
TOOK_MS |= {("crop", False): 1.0, ("grade", True): 20.0, ("evidence", True): 27.0, ("report", True): 0.5}
PLAINEST = ("pass", "crop", "grade", "report")
RECOVERY = 20


@dataclass(frozen=True)
class Outcome:
    """What a study got: how it was run (None if its pictures could not be asked), what was skipped, and when."""

    effort: Effort | None
    asked: bool
    skipped: tuple[str, ...]
    ms: float
    given_up: bool = False

    @property
    def choice(self):
        return self.effort, self.asked, self.skipped


@dataclass
class Machine:
    """A scorer's steps, with a clock in milliseconds."""

    graphs: bool = False
    now_ms: float = 0.0
    load: dict[str, float] = field(default_factory=lambda: QUIET)
    # An averaged pass takes 40 ms, a plain one 13 ms.
    durations: Durations = field(default_factory=lambda: Durations(3.0))

    def open(self, load):
        """As `Views.warm_up`."""
        self.load = load
        for effort in (FULL, replace(FULL, test_time=False), EFFORTS[-1]):
            launches = Launches(effort, 2)
            self.durations.learn([(step, self._ms(step)) for step in launches.steps[:-1]])
        self.durations.learn([(("evidence", 1, True), self._ms(("evidence", 1, True)))])

    def score(self, budget_ms, load=QUIET, *, views=2, states_facing=True, hard=False):
        self.load = load
        budget = Budget(budget_ms, hard, 0.0, self.durations, lambda: self.now_ms / 1e3)
        began_ms = self.now_ms
        try:
            effort, asked = self._study(budget, views, states_facing)
            budget.finish()
            given_up = hard and self.now_ms - began_ms > budget_ms
        except BudgetExceeded:
            effort, asked, given_up = None, False, True
        finally:
            budget.end()
        return Outcome(effort, asked, budget.skipped, self.now_ms - began_ms, given_up)

    def _study(self, budget, views, states_facing):
        budget.go_on()
        if not states_facing:
            if not budget.allows_evidence(1, EFFORTS, views, needed=True):
                return None, False
            budget.ask(1, lambda: self._run(("evidence", 1, True)))
        budget.done("upload")
        effort = budget.choose(EFFORTS, views, FULL)
        launches = Launches(effort, views)
        stages_ms = self._launch(launches, effort, budget.boundary(launches))
        budget.done("grade")
        budget.took += launches.took(stages_ms)
        self._run(launches.steps[-1])
        return effort, not states_facing

    def _launch(self, launches, effort, boundary):
        boundary("localize")
        ask = (lambda stage: True) if self.graphs else boundary
        first, crop, grade = launches.one
        began_ms = self.now_ms
        self._run(first)
        if effort.passes == 2 and ask("second-pass"):
            self._run(first if not effort.test_time or ask("test-time") else launches.plain)
        localized_ms = self.now_ms
        ask("crop")
        self._run(crop)
        cropped_ms = self.now_ms
        ask("grade")
        self._run(grade)
        return {
            "localize": localized_ms - began_ms,
            "crop": cropped_ms - localized_ms,
            "grade": self.now_ms - cropped_ms,
        }

    def _run(self, step):
        self.now_ms += self._ms(step)

    def _ms(self, step):
        name, views, antialias = step
        share = views / 2 if name in ("pass", "averaged", "crop", "grade") else 1.0
        return TOOK_MS[name, antialias] * share * self.load[name]


def opened(graphs=False, load=QUIET, timed=True):
    machine = Machine(graphs)
    if timed:
        machine.open(load)
    return machine


def common(factor):
    return dict.fromkeys(QUIET, factor)


FACTORS = st.sampled_from([1.0, 1.3, 2.0, 5.0, 20.0, 60.0])
LOADS = st.one_of(FACTORS.map(common), st.fixed_dictionaries(dict.fromkeys(QUIET, FACTORS)))
# For so many studies a load: bursts, and steps that are slow for a while.
PATTERNS = st.lists(st.tuples(st.integers(1, 60), LOADS), max_size=4)
BUDGETS = st.integers(2, 320).map(lambda half: half / 2 + 0.3)


def settled_machine(budget_ms, graphs, **study):
    """A machine that has run everything in quiet, and what it does with a study."""
    machine = opened(graphs)
    for effort in EFFORTS:
        launches = Launches(effort, study["views"])
        machine.durations.learn([(step, machine._ms(step)) for step in launches.steps])
    return machine, machine.score(budget_ms, **study).choice


@settings(max_examples=100, deadline=None)
@given(
    opening=LOADS,
    pattern=PATTERNS,
    budget_ms=BUDGETS,
    before_ms=st.one_of(st.none(), BUDGETS),
    graphs=st.booleans(),
    timed=st.booleans(),
    views=st.sampled_from([1, 2]),
    states_facing=st.booleans(),
)
def test_after_20_quiet_studies_the_choice_is_that_of_a_scorer_opened_quietly(
    opening, pattern, budget_ms, before_ms, graphs, timed, views, states_facing
):
    study = {"views": views, "states_facing": states_facing}
    machine = opened(graphs, opening, timed)
    for count, load in pattern:
        for _ in range(count):
            machine.score(before_ms or budget_ms, load, **study)
    for _ in range(RECOVERY):
        machine.score(budget_ms, **study)
    _, expected = settled_machine(budget_ms, graphs, **study)
    choices, tries = [], []
    for number in range(30):
        choices.append(machine.score(budget_ms, **study).choice)
        if machine.durations.tried_last:
            tries.append(number)
    assert {choice for number, choice in enumerate(choices) if number not in tries} == {expected}
    assert all(later - before > 1 for before, later in pairwise(tries))
    assert len(tries) <= 8


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("step", ["pass", "averaged", "evidence"])
def test_a_step_that_alone_was_slow_for_long_is_back_within_20_studies(graphs, step):
    """It was slow at opening and in all its tries, while the other steps were quick."""
    slow = QUIET | {step: 20.0}
    for busy, half in itertools.product((45, 200), range(60, 320, 25)):
        machine = opened(graphs, slow)
        for _ in range(busy):
            machine.score(half / 2 + 0.3, slow, states_facing=False)
        for _ in range(RECOVERY):
            machine.score(half / 2 + 0.3, states_facing=False)
        _, expected = settled_machine(half / 2 + 0.3, graphs, views=2, states_facing=False)
        choice = machine.score(half / 2 + 0.3, states_facing=False).choice
        assert machine.durations.tried_last or choice == expected


def test_a_step_that_takes_its_typical_time_is_tried_less_and_less():
    machine, _ = settled_machine(115.3, True, views=2, states_facing=True)  # two averaged passes do not fit
    tries = []
    for number in range(400):
        machine.score(100.3)
        if machine.durations.tried_last:
            tries.append(number)
    assert [later - before for before, later in pairwise(tries)] == [16, 16, 31, 61, 121, 121]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("states_facing", [False, True])
def test_in_constant_conditions_tries_are_few_and_never_two_in_a_row(graphs, views, states_facing):
    study = {"views": views, "states_facing": states_facing}
    for half in range(1, 320, 7):
        machine, expected = settled_machine(half / 2 + 0.3, graphs, **study)
        found = [machine.score(half / 2 + 0.3, **study).choice for _ in range(150)]
        others = [number for number, choice in enumerate(found) if choice != expected]
        assert all(later - before > 1 for before, later in pairwise(others))
        assert len(others) <= (12 if expected[0] else 24)  # where nothing had time, there is nothing to lose


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_hard_budget_that_can_be_kept_is_kept_and_another_given_up_in_time(graphs, factor):
    for half in range(1, 320, 7):
        budget_ms = half / 2 + 0.3
        machine = opened(graphs, common(factor))
        found = [machine.score(budget_ms, common(factor), hard=True) for _ in range(45)]
        plainest_ms = factor * sum(TOOK_MS[name, name not in ("pass", "crop")] for name in PLAINEST)
        if budget_ms > plainest_ms:
            assert not any(one.given_up for one in found[1:])  # how long a report takes, the first study tells
        elif budget_ms < plainest_ms - factor * TOOK_MS["report", True]:
            assert all(one.given_up for one in found)
            late = [number for number, one in enumerate(found) if one.ms > budget_ms]
            assert len(late) <= 3  # tries
            assert not late or late[0] == 15


@pytest.mark.parametrize("graphs", [False, True])
def test_hard_calls_alone_recover_from_a_busy_opening(graphs):
    for half in range(1, 320, 7):
        budget_ms = half / 2 + 0.3
        machine = opened(graphs, common(30.0))
        for _ in range(RECOVERY):
            machine.score(budget_ms, common(30.0), hard=True)
        found = [machine.score(budget_ms, hard=True) for _ in range(RECOVERY)][-2:]
        machine, _ = settled_machine(budget_ms, graphs, views=2)
        assert machine.score(budget_ms, hard=True).choice in [one.choice for one in found]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), graphs=st.booleans(), budget_ms=BUDGETS)
def test_a_noisy_machine_is_late_in_few_studies(seed, graphs, budget_ms):
    """Steps take up to a quarter longer, one in 30 studies three times as long."""
    random = Random(seed)
    machine = opened(graphs)
    late = 0
    for _ in range(200):
        slow = 3.0 if random.random() < 1 / 30 else 1.0
        one = machine.score(budget_ms, {name: slow * random.uniform(1.0, 1.25) for name in QUIET})
        late += one.ms > budget_ms
    if budget_ms > 1.25 * sum(TOOK_MS[name, name not in ("pass", "crop")] for name in PLAINEST):
        assert late <= 40


SOFT_BUDGETS = [half / 2 + 0.3 for half in range(1, 320, 29)]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("states_facing", [False, True])
@pytest.mark.parametrize("calls", [1, 2, 15])
def test_hard_calls_that_were_given_up_leave_a_scorer_as_it_was_opened(graphs, states_facing, calls):
    for budget_ms in SOFT_BUDGETS:
        machine, fresh = opened(graphs), opened(graphs)
        nothing = [machine.score(0.8, states_facing=states_facing, hard=True) for _ in range(calls)]
        assert {one.effort for one in nothing} == {None}
        found = [one.score(budget_ms, states_facing=states_facing).choice for one in (machine, fresh)]
        assert found[0] == found[1]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("hard_ms", [15.3, 29.8, 58.8, 87.8])
def test_a_scorer_that_has_seen_only_hard_calls_chooses_sensibly(graphs, hard_ms):
    """As one that was opened freshly or knows all steps; after many calls one study may try what they passed over."""
    for budget_ms in SOFT_BUDGETS:
        fresh, (_, settled) = opened(graphs).score(budget_ms).choice, settled_machine(budget_ms, graphs, views=2)
        for calls, tries in ((3, 0), (20, 1)):
            machine = opened(graphs)
            for _ in range(calls):
                machine.score(hard_ms, hard=True)
            assert [machine.score(budget_ms).choice for _ in range(tries + 1)][tries] in (fresh, settled)
