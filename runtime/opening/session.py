"""Everything that lives as long as a `Scorer`: its engine, the turns of its callers, and the repeated self-tests."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress

from spinescore.runtime.acceptance.repeats import Repeats
from spinescore.runtime.arguments import check_callable, check_event, check_flag
from spinescore.runtime.errors import DeviceError, SpineScoreError
from spinescore.runtime.machine.processes import join_users, leave_users
from spinescore.runtime.opening.inuse import EngineInUse
from spinescore.runtime.scoring.budget import Budget, OnStage, checked_ms
from spinescore.runtime.scoring.intake import GivenPoints, Keypoints, StudyInput, as_study, given_points
from spinescore.runtime.scoring.studyscorer import ScoredCrops
from spinescore.runtime.scoring.turns import Turns
from spinescore.runtime.study import Study

__all__ = ["Session"]


class Session:
    """Owns the engine in use, and scores one study at a time on it. Safe from several threads; close its `turns`.

    Nothing in here refers to the `Scorer`, so that one that is not closed can be garbage-collected.
    """

    def __init__(self, engine: EngineInUse, budget_ms: float | None) -> None:
        """Own `engine` from here on; it is closed here if `budget_ms` is not valid. Raises `ValueError`."""
        try:
            self._budget_ms = checked_ms(budget_ms) or engine.scorer.bundle.manifest.budget_ms
        except BaseException:
            engine.close()
            raise
        self.engine = engine
        self._repeats: Repeats | None = None
        self._ends = ExitStack()
        self._ends.callback(leave_users)
        self._ends.callback(engine.close)
        self.turns = Turns(self._ends.close)
        join_users()

    def budget(
        self,
        study: StudyInput,
        budget_ms: float | None,
        hard: bool,
        cancel: threading.Event | None,
        count_reading: bool,
        on_stage: OnStage | None,
    ) -> Budget:
        """Return the budget of a call, which counts from now. Raises `TypeError` and `ValueError`."""
        budget_ms = checked_ms(budget_ms) or self._budget_ms
        check_flag("hard", hard)
        check_flag("count_reading", count_reading)
        _check_caller(cancel, on_stage)
        if hard and budget_ms is None:
            raise ValueError("hard needs a budget_ms, in this call or in Scorer.open")
        read_ms = (study.read_ms or 0.0) if isinstance(study, Study) and count_reading else 0.0
        return self.engine.scorer.budget(budget_ms, hard, read_ms, cancel, on_stage)

    def without_budget(self, cancel: threading.Event | None, on_stage: OnStage | None) -> Budget:
        _check_caller(cancel, on_stage)
        return self.engine.scorer.budget(cancel=cancel, on_stage=on_stage)

    def score(
        self, study: StudyInput, keypoints: Keypoints | None, budget: Budget, strict: bool, with_crops: bool = False
    ) -> ScoredCrops:
        """Wait until no other study is being scored, and score this one."""
        check_flag("strict", strict)
        budget.go_on()
        checked, given = as_study(study), given_points(keypoints)
        with self.turns.turn(budget.acquire):
            return self._score(checked, given, budget, strict, with_crops)

    def try_score(
        self, study: StudyInput, keypoints: Keypoints | None, budget: Budget, strict: bool
    ) -> ScoredCrops | None:
        """Score the study if no other one is being scored, else return None immediately."""
        check_flag("strict", strict)
        with self.turns.turn_if_free() as free:
            return self._score(as_study(study), given_points(keypoints), budget, strict) if free else None

    def wait_for_check(self) -> tuple[str, ...]:
        """Wait until this CPU's engines are checked, and take the one that was accepted; return the warnings."""
        self.turns.check_may_wait()
        warnings = self.engine.wait()
        with suppress(DeviceError), self.turns.turn():  # closed meanwhile
            self.engine.renew()
            self.time_steps()
        return warnings

    def _score(
        self, study: Study, given: GivenPoints, budget: Budget, strict: bool, with_crops: bool = False
    ) -> ScoredCrops:
        engine = self.engine
        engine.scorer.caller.cancel = budget.cancel  # also of another engine that this study has to wait for
        try:
            self._make_ready(budget)
            scored = engine.scorer.score(
                study, given, budget, strict=strict, with_crops=with_crops, warnings=engine.warnings
            )
        finally:
            engine.scorer.caller.cancel = None
            budget.end()
        if self._repeats is not None:
            self._repeats.count_study()
        if budget.hard and not scored.report.within_budget:
            raise budget.exceeded(report=scored.report)
        return scored

    def _make_ready(self, budget: Budget) -> None:
        """Take an engine that was made meanwhile, and test one that is not trusted; a hard budget has no time."""
        if budget.hard:
            if not self.engine.scorer.trusted:
                raise budget.exceeded(
                    ": the engine has to pass its self-test first",
                    next_step="Call self_test before the first hard call, or open the scorer with warm_up.",
                )
            return
        delayed = self.engine.renew()
        if not self.engine.scorer.trusted:
            self.engine.test()
            delayed = True
        if self.time_steps() or delayed:
            budget.excuse()

    def test(self) -> None:
        """Test the engine, and take another one if it fails. In a turn; raises as `EngineInUse.test`."""
        self.engine.test()
        self.time_steps()

    def time_steps(self) -> bool:
        """Time the engine's steps if there is a budget to divide and they were not timed; return whether they were now.

        In a turn. If this is cancelled, the next study does it.
        """
        scorer = self.engine.scorer
        needed = self._budget_ms is not None and not scorer.steps_timed
        if needed:
            scorer.time_steps()
        return needed

    def repeat_tests(self, studies: int | None, minutes: float | None) -> None:
        """Repeat the self-test every `studies` studies or `minutes` minutes, when no study is being scored."""
        self._repeats = Repeats(self._test_if_idle, studies, minutes)
        self._ends.callback(self._repeats.close)

    def _test_if_idle(self) -> bool:
        """Test the engine, as `Repeats` asks; return false if a study is being scored."""
        with suppress(SpineScoreError), self.turns.turn_if_free() as free:  # the next study tests again, and raises it
            if free:
                self.test()
            return free
        return True


def _check_caller(cancel: threading.Event | None, on_stage: OnStage | None) -> None:
    check_event("cancel", cancel)
    check_callable("on_stage", on_stage)
