"""The latency budget of a study: what there is time for, and what is skipped.

What is skipped, in this order, where the whole does not fit (`SKIPPABLE`):

    test-time    each pass runs the localizer once, at its input's own size, and averages nothing. Asked again on a CPU
                 before the second pass.
    second-pass  the localizer looks once. Asked again on a CPU when the first pass is over; on a GPU a study's steps
                 are one graph, and one of the graphs is chosen before it is launched.
    evidence     pictures are not asked, as they are and mirrored, for what can be done without: of several radiographs
                 of a region the first is taken, with a warning; one that is rejected for low confidence is not
                 compared with the other region.
    antialias    one sample for each pixel of the networks' inputs in place of the manifest's n x n.

Region and facing are never guessed: where the header does not tell them the picture is asked even if nothing else than
the plainest way to score has time after that, and where that has none the radiograph is rejected (`no-time`).

A step is given the time that it is likely to take, by how long this scorer's steps have taken so far (`estimates`). The
budget counts from the call: waiting for another study uses it too, and so does reading (`Study.read_ms`) if the caller
asks for that. Where an engine is replaced or tested within a call, nothing more is skipped for the time that takes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, cast

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
OnStage = Callable[[str, int, int], object]  # a stage begins, its number from 1 on, and how many there are

Clock = Callable[[], float]  # seconds, as time.perf_counter
Boundary = Callable[[str], bool]  # told the stage that comes next; false where that is not to be run

_SKIPPED = {
    "test-time": "the localizer's heatmaps were not averaged over scales and flips",
    "second-pass": "the localizer looked once and not twice",
    "evidence": "pictures were not asked for what their headers do not tell",
    "antialias": "the networks' inputs were sampled once a pixel",
}
_NEXT_STEP = "Give a larger budget, or make a plan with spinescore plan."
_ASKED: dict[str, Skippable] = {"second-pass": "second-pass", "test-time": "test-time"}  # stages that may be left out
_BEFORE = {"second-pass": "localize", "crop": "localize", "grade": "crop"}


def checked_ms(budget_ms: object, name: str = "budget_ms") -> float | None:
    """The budget, or None. Raises `ValueError` with its name where it is no number of milliseconds above 0."""
    if budget_ms is None:
        return None
    number = budget_ms if isinstance(budget_ms, (int, float)) and not isinstance(budget_ms, bool) else math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a number of milliseconds above 0, got {budget_ms!r}")
    return float(number)


class Budget:
    """One study against its budget, if it has one, and against its caller's wish to give up."""

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
        self._skipped = dict.fromkeys(SKIPPABLE, False)
        self._passed_over: set[Step] = set()
        self._excused_ms, self._over = 0.0, False
        self._tried: bool | None = None  # not known before it is asked
        self.read_ms, self._clock, self._started = read_ms, clock, clock()
        self._done: dict[str, float] = {"read": read_ms} if read_ms else {}

    @property
    def elapsed_ms(self) -> float:
        """Since the call, with what reading took where that counts."""
        return self.read_ms + (self._clock() - self._started) * 1e3

    @property
    def left_ms(self) -> float:
        return math.inf if self.ms is None else self.ms - self.elapsed_ms + self._excused_ms

    def excuse(self) -> None:
        """Skip nothing for the time that has passed: it went into a new engine, or a test, and the study is late."""
        self._excused_ms = self.elapsed_ms

    @property
    def skipped(self) -> tuple[Skippable, ...]:
        return tuple(name for name in SKIPPABLE if self._skipped[name])

    @property
    def warnings(self) -> list[str]:
        """What was skipped, as a sentence for the report."""
        done = [_SKIPPED[name] for name in self.skipped]
        why = "By its plan" if self.ms is None else f"For the budget of {self.ms:g} ms"
        text = f"{why} {' and '.join(done)}."
        return [notice("steps-skipped", text, steps=list(self.skipped), budget_ms=self.ms)] if done else []

    def acquire(self, lock: threading.Lock) -> None:
        """Wait for the scorer. Raises as `go_on` does, as soon as there is reason to."""
        if self.cancel is None and not self.hard:
            lock.acquire()
            return
        self.go_on()
        while not lock.acquire(timeout=0.01):
            self.go_on()

    def done(self, stage: str) -> None:
        """The stage is over."""
        self._done[stage] = self.elapsed_ms

    def go_on(self, needed: Iterable[Step] = ()) -> None:
        """A boundary between stages; `needed` are the steps that come and cannot be skipped.

        Raises `Cancelled`, and where the budget is hard `BudgetExceeded` if it is used up, or would be by those steps
        even if they were as fast as ever.
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
        """A stage begins: the caller is told, in its own thread, of each stage once and in their order.

        Raises `Cancelled`, and what the caller's `on_stage` raises.
        """
        self._heed()
        if self._on_stage is not None and threading.get_ident() == self._thread:
            number = STAGES.index(stage) + 1
            if number > self._stage:
                self._stage = number
                self._on_stage(stage, number, len(STAGES))

    def choose(self, efforts: Sequence[Effort], views: int, full: Effort) -> Effort:
        """The first effort that fits, or the last; notes what it skips of the full one."""
        found = next((effort for effort in efforts if self._fits(Launches(effort, views).steps)), efforts[-1])
        self._skipped["test-time"] |= found.test_time < full.test_time
        self._skipped["second-pass"] |= found.passes < full.passes
        self._skipped["antialias"] |= found.antialias < full.antialias
        return found

    def allows_evidence(self, networks: int, efforts: Sequence[Effort], views: int, needed: bool = False) -> bool:
        """Whether there is time to ask a picture, and then for the views with the last effort; notes it where not.

        What is `needed` is asked in a study that is tried; without it there is time for none of the efforts.
        """
        if needed and self._is_tried():
            return True
        later = Launches(efforts[-1], views).steps if views else [REPORT]
        allowed = self._allows("evidence", [_evidence(networks), *later])
        if needed and not allowed:
            self._passed_over.update(step for effort in efforts for step in Launches(effort, views).steps)
        return allowed

    def needs_ms(self, networks: int, efforts: Sequence[Effort], views: int) -> float:
        """A budget that would have allowed to ask a picture now, and then to score the views with the last effort."""
        likely_ms = self.durations.likely([_evidence(networks), *Launches(efforts[-1], views).steps], hard=True)
        return self.elapsed_ms - self._excused_ms + likely_ms

    def ask(self, networks: int, look: Callable[[], Answer]) -> Answer:
        """What `look` sees in a picture; how long that takes is learnt at once, for what comes next in the study."""
        began_ms = self.elapsed_ms
        answer = look()
        took = [(_evidence(networks), self.elapsed_ms - began_ms)]
        self.durations.note(took)
        self.took += took
        self.done("evidence")
        return answer

    def boundary(self, launches: Launches) -> Boundary:
        """What a pipeline asks before each stage of these launches, from any thread. Raises as `go_on` does."""
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
            name = _ASKED.get(stage)
            if name is None:
                self.begin(cast(Stage, stage))
                return True
            step = launches.plain if name == "second-pass" else launches.one[0]
            now_ms = {launches.one[0]: launches.first_ms[-1]}
            with deciding:  # once for the views of a launch, which a device may run side by side
                if name not in launches.decided:
                    launches.decided[name] = self._allows(name, [step, *needed], now_ms)
                    if not launches.decided[name]:
                        launches.without(name)
                return launches.decided[name]

        return before

    def finish(self) -> float:
        """The study is over: its steps are learnt. Returns the milliseconds that it took in all."""
        elapsed_ms = self.elapsed_ms
        if self.took:
            self.took.append((REPORT, elapsed_ms - max(self._done.values())))
        self.end()
        return elapsed_ms

    def end(self) -> None:
        """The study is over, or given up: what is known of its steps is learnt. Twice is no error."""
        if not self._over:
            self._over = True
            self.durations.end(self.took, self._passed_over, self._is_tried())

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
        """Whether this study is to be scored whatever it takes, because nothing had time in those before."""
        if self._tried is None:
            self._tried = self.ms is not None and self.durations.is_stuck(self.hard)
        return self._tried


def _evidence(networks: int) -> Step:
    return ("evidence", networks, True)
