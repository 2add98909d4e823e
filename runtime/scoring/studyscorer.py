"""A bundle that is open on an engine, and its studies one by one; `scorer` is the door that users see."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from spinescore.runtime.acceptance.repeats import Repeats
from spinescore.runtime.arguments import check_callable, check_event, check_flag
from spinescore.runtime.errors import DeviceError, SpineScoreError
from spinescore.runtime.logs import log_study
from spinescore.runtime.machine.processes import join_users, leave_users
from spinescore.runtime.opening.opened import EngineInUse
from spinescore.runtime.scoring.budget import Budget, Clock, OnStage, checked_ms
from spinescore.runtime.scoring.intake import GivenPoints, Keypoints, StudyInput, as_study, given_points
from spinescore.runtime.scoring.judgement import strictly
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.scoring.reporting import study_report, timed, with_findings
from spinescore.runtime.scoring.scoredquality import of_results
from spinescore.runtime.scoring.selection import select
from spinescore.runtime.scoring.turns import Turns
from spinescore.runtime.scoring.views import Crop, Views
from spinescore.runtime.study import Study

__all__ = ["ScoredCrops", "Session"]


@dataclass(frozen=True, eq=False)
class ScoredCrops:
    """The crops of every region that was scored, with the report that says what was not."""

    crops: tuple[Crop, ...]
    report: StudyReport


class Session:
    """Owns an engine and whatever else lives as long as a scorer. Safe from several threads; close it."""

    def __init__(self, engine: EngineInUse, max_imputed_per_region: int, budget_ms: float | None, clock: Clock) -> None:
        self.bundle, self.engine = engine.opened.bundle, engine
        self._clock, self._max_imputed = clock, max_imputed_per_region
        self._budget_ms = checked_ms(budget_ms) or self.bundle.manifest.budget_ms
        self._repeats: Repeats | None = None
        self._ends = ExitStack()
        self._ends.callback(leave_users)
        self._ends.callback(engine.close)
        self.turns = Turns(self._ends.close)
        join_users()

    @property
    def views(self) -> Views:
        return self.engine.opened.views

    def repeat_tests(self, studies: int | None, minutes: float | None) -> None:
        """Repeat the self-test every `studies` studies or `minutes` minutes, when no study is being scored."""
        self._repeats = Repeats(self._test_if_idle, studies, minutes)
        self._ends.callback(self._repeats.close)

    def budget(
        self,
        study: StudyInput,
        budget_ms: float | None,
        hard: bool,
        cancel: threading.Event | None,
        count_reading: bool,
        on_stage: OnStage | None,
    ) -> Budget:
        """The budget of a call, which counts from now. Raises `ValueError`."""
        budget_ms = checked_ms(budget_ms) or self._budget_ms
        check_flag("hard", hard)
        _check_caller(cancel, on_stage)
        if hard and budget_ms is None:
            raise ValueError("hard needs a budget_ms, here or where the scorer is opened")
        read_ms = (study.read_ms or 0.0) if isinstance(study, Study) and count_reading else 0.0
        return Budget(budget_ms, hard, read_ms, self.views.durations, self._clock, cancel, on_stage)

    def without_budget(self, cancel: threading.Event | None = None, on_stage: OnStage | None = None) -> Budget:
        _check_caller(cancel, on_stage)
        return Budget(None, False, 0.0, self.views.durations, self._clock, cancel, on_stage)

    def score(
        self, study: StudyInput, keypoints: Keypoints | None, budget: Budget, strict: bool, with_crops: bool = False
    ) -> ScoredCrops:
        """Wait until no other study is being scored, and score this one."""
        check_flag("strict", strict)
        budget.go_on()
        checked, given = as_study(study), given_points(keypoints)
        with self.turns.turn(budget.acquire):
            return self._scored(checked, given, budget, strict, with_crops)

    def try_score(
        self, study: StudyInput, keypoints: Keypoints | None, budget: Budget, strict: bool
    ) -> ScoredCrops | None:
        """Score the study if no other one is being scored, else return None at once."""
        check_flag("strict", strict)
        with self.turns.turn_if_free() as free:
            return self._scored(as_study(study), given_points(keypoints), budget, strict, False) if free else None

    def wait_for_check(self) -> tuple[str, ...]:
        """Wait until this CPU's engines are checked, and take the one that was accepted; returns the warnings."""
        self.turns.check_may_wait()
        warnings = self.engine.wait()
        with suppress(DeviceError), self.turns.turn():  # closed meanwhile
            self._renew()
        return warnings

    def test(self) -> None:
        """Test the engine, and take another one if it fails. In a turn; raises as `EngineInUse.test`."""
        if self.engine.test():
            self.time_steps()

    def time_steps(self) -> None:
        """Time the steps if there is a budget to divide. In a turn."""
        if self._budget_ms is not None:
            self.engine.caller.begin("the steps are timed, for the budget")
            self.views.warm_up(self.without_budget(self.engine.caller.cancel))

    def _scored(self, study: Study, given: GivenPoints, budget: Budget, strict: bool, with_crops: bool) -> ScoredCrops:
        engine = self.engine
        engine.caller.cancel = budget.cancel  # of another engine that this study has to wait for, too
        try:
            self._make_ready(budget)
            return self._with_engine(study, given, budget, strict, with_crops)
        finally:
            engine.caller.cancel = None
            self.views.device.forget()
            budget.end()

    def _make_ready(self, budget: Budget) -> None:
        """Take an engine that was built meanwhile, and test one that is not trusted; a hard budget has no time."""
        if budget.hard:
            if not self.engine.opened.trusted:
                raise budget.exceeded(
                    ": the engine has to pass its self-test first",
                    next_step="Call self_test before the first hard call, or open the scorer with warm_up.",
                )
            return
        if self._renew():
            budget.excuse()
        if not self.engine.opened.trusted:
            self.test()
            budget.excuse()

    def _renew(self) -> bool:
        renewed = self.engine.renew()
        if renewed:
            self.time_steps()
        return renewed

    def _with_engine(
        self, study: Study, given: GivenPoints, budget: Budget, strict: bool, with_crops: bool
    ) -> ScoredCrops:
        views, localizer = self.views, self.bundle.manifest.localizer
        budget.durations = views.durations
        budget.go_on()
        budget.begin("select")
        selection = select(study, localizer, given, views.within(budget, len(study.radiographs)), strict)
        selection.warnings.extend((*self.engine.warnings, *views.device.warnings))
        budget.done("select")
        results, stages_ms = views.score(selection.chosen, given, budget)
        budget.begin("report")
        selection.follow({region: result.chosen for region, result in results.items()})
        selection.findings.extend(of_results(results, localizer.min_confidence))
        if strict:
            results = strictly(results, selection.findings)
        crops = views.crops(results) if with_crops else ()
        report = study_report(study, self.bundle, self.engine.opened.info, selection, results, self._max_imputed)
        report = timed(with_findings(report, self.engine.opened.findings), study.read_ms, stages_ms, budget)
        log_study(report)
        self.engine.opened.count_study()
        if self._repeats is not None:
            self._repeats.count_study()
        if budget.hard and not report.within_budget:
            raise budget.exceeded(report=report)
        return ScoredCrops(crops, report)

    def _test_if_idle(self) -> bool:
        """What `Repeats` calls: false if a study is being scored."""
        with suppress(SpineScoreError), self.turns.turn_if_free() as free:  # the next study tests again, and raises it
            if free:
                self.test()
            return free
        return True


def _check_caller(cancel: threading.Event | None, on_stage: OnStage | None) -> None:
    check_event("cancel", cancel)
    check_callable("on_stage", on_stage)
