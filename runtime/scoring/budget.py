"""The latency budget of a study: which steps there is time for, and which are skipped.

If there is no time for all steps, these are skipped, in this order (`SKIPPABLE`):

    test-time    Each pass runs the localizer once, at its input's own size, and averages nothing. On a CPU this is
                 decided again before the second pass.
    second-pass  The localizer makes one pass. On a CPU this is decided again after the first pass. On a GPU all steps
                 of a study are one graph, and the graph is chosen before it is launched.
    evidence     The localizer is not asked about a picture and its mirror image if the study can be scored without. Of
                 several radiographs of a region the first is taken, with a warning. A radiograph that is rejected for
                 low confidence is not compared with the other region.
    antialias    The networks' inputs have one sample a pixel, and not the manifest's n x n.

Region and facing are never guessed. If the header does not state them, the localizer is asked, as long as there is time
for the plainest way to score after that. If there is not, the radiograph is rejected (`no-time`).

The likely time of a step comes from the earlier studies of this scorer (`estimates`). The budget counts from the call:
waiting for another study uses it, too, and so does reading (`Study.read_ms`) if the caller asks for that. If an engine
is replaced or tested in a call, nothing is skipped because of the time that this takes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from spinescore.runtime.arguments import check_number
from spinescore.runtime.errors import BudgetExceeded, Cancelled, SpineScoreError
from spinescore.runtime.notices import notice
from spinescore.runtime.scoring.estimates import Durations, Step
from spinescore.runtime.scoring.launches import REPORT, SKIPPABLE, Effort, Launches, Skippable, alternatives

if TYPE_CHECKING:
    from spinescore.runtime.scoring.report import StudyReport

__all__ = [
    "SKIPPABLE",
    "STAGES",
    "Boundary",
    "Budget",
    "Clock",
    "Effort",
    "Launches",
    "OnStage",
    "Skippable",
    "Stage",
    "alternatives",
    "checked_ms",
]


Answer = TypeVar("Answer")
Stage = Literal["select", "upload", "localize", "crop", "grade", "report"]
STAGES: tuple[Stage, ...] = ("select", "upload", "localize", "crop", "grade", "report")
OnStage = Callable[[str, int, int], object]  # the stage that begins, its number from 1, and the number of stages

Clock = Callable[[], float]  # seconds, as time.perf_counter
Boundary = Callable[[str], bool]  # gets the next stage, and returns whether to run it

_SKIPPED = {
    "test-time": "the localizer's heatmaps were not averaged over scales and flips",
    "second-pass": "the localizer looked once and not twice",
    "evidence": "pictures were not asked for what their headers do not tell",
    "antialias": "the networks' inputs were sampled once a pixel",
}
_NEXT_STEP = "Give a larger budget, or make a plan with spinescore plan."
_BEFORE = {"second-pass": "localize", "crop": "localize", "grade": "crop"}


def checked_ms(budget_ms: object, name: str = "budget_ms") -> float | None:
    """Return the budget as a float, or None. Raises `TypeError` for no number, `ValueError` for one not above 0."""
    if budget_ms is None:
        return None
    return check_number(name, budget_ms, "a number of milliseconds above 0")


class Budget:
    """The time that one study has, and its caller's wish to cancel. A study may have no budget (`ms` is None)."""

    def __init__(
        self,
        budget_ms: float | None,
        hard: bool,
        read_ms: float,
        durations: Durations,
        clock: Clock,
        cancel: threading.Event | None = None,
        on_stage: OnStage | None = None,
    ) -> None:
        self.ms, self.hard, self.durations, self.cancel = budget_ms, hard and budget_ms is not None, durations, cancel
        self._on_stage, self._stage, self._thread = on_stage, 0, threading.get_ident()
        self.took: list[tuple[Step, float]] = []
        self.stages_ms: dict[str, float] = {}  # of localize, crop and grade, over all launches
        self._skipped = dict.fromkeys(SKIPPABLE, False)
        self._passed_over: set[Step] = set()
        self._excused_ms, self._over = 0.0, False
        self._tried: bool | None = None  # None until `_is_tried` decides it
        self.read_ms, self._clock, self._started = read_ms, clock, clock()
        self._done: dict[str, float] = {"read": read_ms} if read_ms else {}

    @property
    def elapsed_ms(self) -> float:
        """The time since the call, and the time of reading if that counts."""
        return self.read_ms + (self._clock() - self._started) * 1e3

    @property
    def left_ms(self) -> float:
        return math.inf if self.ms is None else self.ms - self.elapsed_ms + self._excused_ms

    def excuse(self) -> None:
        """Skip nothing because of the time so far, which a new engine or a self-test took. The study is late anyway."""
        self._excused_ms = self.elapsed_ms

    @property
    def skipped(self) -> tuple[Skippable, ...]:
        return tuple(name for name in SKIPPABLE if self._skipped[name])

    @property
    def warnings(self) -> list[str]:
        """The warning on the skipped steps, if there are any."""
        effects = [_SKIPPED[name] for name in self.skipped]
        reason = "By its plan" if self.ms is None else f"For the budget of {self.ms:g} ms"
        text = f"{reason} {' and '.join(effects)}."
        return [notice("steps-skipped", text, steps=list(self.skipped), budget_ms=self.ms)] if effects else []

    def acquire(self, lock: threading.Lock) -> None:
        """Wait for the scorer's lock. Raises as `go_on` does, while it waits."""
        self.go_on()
        while not lock.acquire(timeout=-1 if self.cancel is None and not self.hard else 0.01):
            self.go_on()

    def done(self, stage: str) -> None:
        """Note that a stage is finished."""
        self._done[stage] = self.elapsed_ms

    def go_on(self, needed: Iterable[Step] = ()) -> None:
        """Check, between two stages, that the study may go on. `needed` are the next steps that cannot be skipped.

        Raises `Cancelled`. Raises `BudgetExceeded` if a hard budget is used up, or is too short for those steps even if
        they are as fast as they ever were.
        """
        self._heed()
        steps = tuple(needed)
        if steps and self._is_tried():
            steps = ()
        least = self.durations.least(steps)
        if self.hard and self.left_ms < least:
            self._passed_over.update(steps)
            raise self.exceeded(f", and what is left takes {least:.1f} ms at least" if least else "")

    def begin(self, stage: Stage) -> None:
        """Tell the caller, in its thread, that a stage begins, once and in order. Raises `Cancelled`."""
        self._heed()
        if self._on_stage is not None and threading.get_ident() == self._thread:
            number = STAGES.index(stage) + 1
            if number > self._stage:
                self._stage = number
                self._on_stage(stage, number, len(STAGES))

    def choose(self, efforts: Sequence[Effort], views: int, full: Effort) -> Effort:
        """Return the first effort that there is time for, or the last; note what it skips of the full effort."""
        chosen = next((effort for effort in efforts if self._fits(Launches(effort, views).steps)), efforts[-1])
        self._skipped["test-time"] |= chosen.test_time < full.test_time
        self._skipped["second-pass"] |= chosen.passes < full.passes
        self._skipped["antialias"] |= chosen.antialias < full.antialias
        return chosen

    def allows_evidence(self, networks: int, efforts: Sequence[Effort], views: int, needed: bool = False) -> bool:
        """Whether there is time to ask for evidence, and then to score the views with the last effort.

        If there is not, that is noted. `needed` evidence is always asked for in a study that is tried: if there is no
        time for it, there is none for any effort.
        """
        if needed and self._is_tried():
            return True
        later = Launches(efforts[-1], views).steps if views else [REPORT]
        allowed = self._allows("evidence", [_evidence(networks), *later])
        if needed and not allowed:
            self._passed_over.update(step for effort in efforts for step in Launches(effort, views).steps)
        return allowed

    def needs_ms(self, networks: int, efforts: Sequence[Effort], views: int) -> float:
        """Return a budget that would be enough to ask for evidence now and then score with the last effort."""
        likely_ms = self.durations.likely([_evidence(networks), *Launches(efforts[-1], views).steps], hard=True)
        return self.elapsed_ms - self._excused_ms + likely_ms

    def ask(self, networks: int, look: Callable[[], Answer]) -> Answer:
        """Return what `look` sees in a picture. Its time is learnt immediately, for the next steps of this study."""
        began_ms = self.elapsed_ms
        answer = look()
        took = [(_evidence(networks), self.elapsed_ms - began_ms)]
        self.durations.note(took)
        self.took += took
        self.done("evidence")
        return answer

    def boundary(self, launches: Launches) -> Boundary:
        """Return the function for a pipeline to call before each stage, from any thread. It raises as `go_on` does."""
        deciding = threading.Lock()

        def before(stage: str) -> bool:
            if stage == "localize":
                launches.begin(self.elapsed_ms)
            elif stage in _BEFORE:
                self.done(_BEFORE[stage])
                with deciding:
                    launches.localized(self.elapsed_ms)
            needed = launches.needed(stage)
            try:
                self.go_on(needed)
            except SpineScoreError:
                self.took += launches.so_far()
                raise
            if stage not in ("second-pass", "test-time"):
                self.begin(cast(Stage, stage))
                return True
            name = cast(Skippable, stage)
            step = launches.plain if name == "second-pass" else launches.one[0]
            now_ms = {launches.one[0]: launches.first_ms[-1]}
            with deciding:  # once for all views of a launch: a device may run them side by side
                if name not in launches.decided:
                    launches.decided[name] = self._allows(name, [step, *needed], now_ms)
                    if not launches.decided[name]:
                        launches.without(name)
                return launches.decided[name]

        return before

    def launched(self, launches: Launches, stages_ms: Mapping[str, float]) -> None:
        """Note that launches are over, with their times of localize, crop and grade."""
        self.done("grade")
        self.took += launches.took(stages_ms)
        self.stages_ms = {stage: self.stages_ms.get(stage, 0.0) + ms for stage, ms in stages_ms.items()}

    def finish(self) -> float:
        """Learn the steps of a study that is over; return the milliseconds that it took in all."""
        elapsed_ms = self.elapsed_ms
        if self.took:
            self.took.append((REPORT, elapsed_ms - max(self._done.values())))
        self.end()
        return elapsed_ms

    def end(self) -> None:
        """Learn the steps of a study that is over or given up. Calling it twice is no error."""
        if not self._over:
            self._over = True
            self.durations.end(self.took, self._passed_over, self._is_tried(), self.hard)

    def exceeded(
        self, more: str = "", report: StudyReport | None = None, next_step: str = _NEXT_STEP
    ) -> BudgetExceeded:
        """Return the error for a hard budget, with the stages that were finished."""
        done = {stage: round(ms, 3) for stage, ms in self._done.items()}
        return BudgetExceeded(
            f"The budget of {self.ms:g} ms cannot be kept: {self.elapsed_ms:.1f} ms had passed after "
            f"{', '.join(done) or 'nothing'}{more}. {next_step}",
            done,
            report,
        )

    def _heed(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"Scoring was cancelled after {', '.join(self._done) or 'nothing'} was done.")

    def _allows(self, name: Skippable, steps: Sequence[Step], now_ms: Mapping[Step, float] | None = None) -> bool:
        fits = self._fits(steps, now_ms)
        self._skipped[name] |= not fits
        return fits

    def _fits(self, steps: Sequence[Step], now_ms: Mapping[Step, float] | None = None) -> bool:
        if self.ms is None or self.durations.likely(steps, self.hard, now_ms) <= self.left_ms:
            return True
        self._passed_over.update(steps)
        return False

    def _is_tried(self) -> bool:
        """Whether this study is scored however long it takes, because there was no time for the studies before it."""
        if self._tried is None:
            self._tried = self.ms is not None and self.durations.is_stuck(self.hard)
        return self._tried


def _evidence(networks: int) -> Step:
    return ("evidence", networks, True)
