"""The latency budget of a study: what there is time for, by how long this scorer's steps have taken so far.

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

A step is given the time that it is likely to take: the shortest that it ever took here, times the pace of the slowest
tenth of the latest 32 studies. A study's pace is how much longer than their shortest its steps took, all together, so
that a step which has not run for long follows the machine like all others, and is tried again once that is idle. What
was never seen takes no time. The budget counts from the call: reading (`Study.read_ms`) has used a part of it before,
and waiting for another study uses it too.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from spinescore.runtime.errors import BudgetExceeded, Cancelled

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport

__all__ = [
    "SKIPPABLE",
    "Boundary",
    "Budget",
    "Clock",
    "Durations",
    "Effort",
    "Launches",
    "Skippable",
    "alternatives",
    "checked_ms",
]

Skippable = Literal["test-time", "second-pass", "evidence", "antialias"]
SKIPPABLE: tuple[Skippable, ...] = ("test-time", "second-pass", "evidence", "antialias")

Clock = Callable[[], float]  # seconds, as time.perf_counter
Step = tuple[str, int, bool]  # `pass`, `averaged` (a pass), `crop`, `grade` or `report`; views at once; antialiased
Boundary = Callable[[str], bool]  # told the stage that comes next; false where that is not to be run

_SKIPPED = {
    "test-time": "the localizer's heatmaps were not averaged over scales and flips",
    "second-pass": "the localizer looked once and not twice",
    "evidence": "pictures were not asked for what their headers do not tell",
    "antialias": "the networks' inputs were sampled once a pixel",
}
_LATEST_STUDIES = 32
_LIKELY_SHARE = 0.9  # of the latest studies, those that were no slower
_REPORT: Step = ("report", 0, True)
_ORDER = {"localize": 0, "second-pass": 1, "test-time": 1, "crop": 1, "grade": 2}  # where a stage stands in a launch
_ASKED: dict[str, Skippable] = {"second-pass": "second-pass", "test-time": "test-time"}  # stages that may be left out
_BEFORE = {"second-pass": "localize", "crop": "localize", "grade": "crop"}


@dataclass(frozen=True)
class Effort:
    """How a study is worked on. `apart` runs its two views one after the other in place of both at once.

    `test_time` averages heatmaps over the manifest's scales and flips.
    """

    passes: int
    antialias: bool = True
    apart: bool = False
    test_time: bool = False


def alternatives(effort: Effort, antialiased: bool) -> tuple[Effort, ...]:
    """The effort, then less and less of it in the order of `SKIPPABLE`. `antialiased`: the manifest asks for it."""
    plain = replace(effort, test_time=False)
    found = [effort, plain, replace(plain, passes=1)]
    if antialiased:
        found.append(replace(plain, passes=1, antialias=False))
    return tuple(dict.fromkeys(found))


def checked_ms(budget_ms: object, name: str = "budget_ms") -> float | None:
    """The budget, or None. Raises `ValueError` with its name where it is no number of milliseconds above 0."""
    if budget_ms is None:
        return None
    number = budget_ms if isinstance(budget_ms, (int, float)) and not isinstance(budget_ms, bool) else math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a number of milliseconds above 0, got {budget_ms!r}")
    return float(number)


class Launches:
    """The launches of one study, both views in one or each in its own, and what is left of them."""

    def __init__(self, effort: Effort, views: int) -> None:
        at_once, self._count = (1, views) if effort.apart else (views, 1)
        self._left = self._count
        self.plain: Step = ("pass", at_once, effort.antialias)
        self.one: tuple[Step, ...] = (
            ("averaged", at_once, effort.antialias) if effort.test_time else self.plain,
            ("crop", at_once, effort.antialias),
            ("grade", at_once, True),
        )
        self.passes = [self.one[0]] * (effort.passes * self._count)
        self.steps = [*self.passes, *[*self.one[1:]] * self._count, _REPORT]
        self.decided: dict[Skippable, bool] = {}  # of this launch: whether it has a second pass, and how that is made

    def begin(self) -> None:
        """The next launch."""
        self._left, self.decided = self._left - 1, {}

    def without(self, stage: Skippable) -> None:
        """This launch does without the second pass (`second-pass`), or without its averaging (`test-time`)."""
        self.passes.remove(self.one[0])
        if stage == "test-time":
            self.passes.append(self.plain)

    def needed(self, stage: str) -> list[Step]:
        """What cannot be skipped from the stage on: the rest of this launch, those to come, and the report."""
        return [*self.one[_ORDER[stage] :], *self.one * self._left, _REPORT]

    def took(self, stages_ms: Mapping[str, float]) -> list[tuple[Step, float]]:
        """The steps with their times, from those of the stages localize, crop and grade over all launches.

        Passes of two kinds in one study share a time that tells of neither, and are left out.
        """
        alike = len(set(self.passes)) == 1
        kinds = [(self.passes[0], "localize", len(self.passes))] if alike else []
        kinds += [(step, stage, self._count) for step, stage in zip(self.one[1:], ("crop", "grade"), strict=True)]
        return [(step, stages_ms[stage] / count) for step, stage, count in kinds for _ in range(count)]


class Durations:
    """How long the steps of one scorer take, in milliseconds; see the module for the rule."""

    def __init__(self) -> None:
        self._least: dict[Step, float] = {}
        self._paces: deque[float] = deque(maxlen=_LATEST_STUDIES)

    def learn(self, took_ms: Sequence[tuple[Step, float]]) -> None:
        """The steps of one study."""
        for step, ms in took_ms:
            self._least[step] = min(self._least.get(step, math.inf), max(ms, 0.0))
        least = sum(self._least[step] for step, _ in took_ms)
        if least > 0:
            self._paces.append(sum(ms for _, ms in took_ms) / least)

    def least(self, steps: Iterable[Step]) -> float:
        """The shortest that the steps ever took, together."""
        return sum(self._shortest(step) for step in steps)

    def likely(self, steps: Iterable[Step]) -> float:
        """What the steps are likely to take, together."""
        rank = math.ceil(_LIKELY_SHARE * len(self._paces)) - 1
        return self.least(steps) * (sorted(self._paces)[rank] if self._paces else 1.0)

    def _shortest(self, step: Step) -> float:
        """That of the step, else of the nearest that was seen: otherwise antialiased, or of another number of views."""
        name, views, antialias = step
        for factor, known in (
            (1.0, step),
            (1.0, (name, views, not antialias)),
            (1.0, (name, 2, antialias)),
            (2.0, (name, 1, antialias)),
        ):
            if known in self._least:
                return factor * self._least[known]
        return 0.0


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
    ) -> None:
        self.ms, self.hard, self.durations, self._cancel = budget_ms, hard and budget_ms is not None, durations, cancel
        self.took: list[tuple[Step, float]] = []
        self._skipped = dict.fromkeys(SKIPPABLE, False)
        self._read_ms, self._clock, self._started = read_ms, clock, clock()
        self._done: dict[str, float] = {"read": read_ms} if read_ms else {}

    @property
    def elapsed_ms(self) -> float:
        """Since the call, with what reading took."""
        return self._read_ms + (self._clock() - self._started) * 1e3

    @property
    def left_ms(self) -> float:
        return math.inf if self.ms is None else self.ms - self.elapsed_ms

    @property
    def skipped(self) -> tuple[Skippable, ...]:
        return tuple(name for name in SKIPPABLE if self._skipped[name])

    @property
    def warnings(self) -> list[str]:
        """What was skipped, as a sentence for the report."""
        done = [_SKIPPED[name] for name in self.skipped]
        why = "By its plan" if self.ms is None else f"For the budget of {self.ms:g} ms"
        return [f"{why} {' and '.join(done)}."] if done else []

    def acquire(self, lock: threading.Lock) -> None:
        """Wait for the scorer. Raises as `go_on` does, as soon as there is reason to."""
        if self._cancel is None and not self.hard:
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
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(f"Scoring was cancelled after {', '.join(self._done) or 'nothing'} was done.")
        least = self.durations.least(needed)
        if self.hard and self.left_ms < least:
            raise self.exceeded(f", and what is left takes {least:.1f} ms at least" if least else "")

    def choose(self, efforts: Sequence[Effort], views: int, full: Effort) -> Effort:
        """The first effort that fits, or the last; notes what it skips of the full one."""
        found = next((effort for effort in efforts if self._fits(Launches(effort, views).steps)), efforts[-1])
        self._skipped["test-time"] |= found.test_time < full.test_time
        self._skipped["second-pass"] |= found.passes < full.passes
        self._skipped["antialias"] |= found.antialias < full.antialias
        return found

    def allows_evidence(self, networks: int, effort: Effort, views: int) -> bool:
        """Whether there is time to ask a picture, and then for the views with that effort; notes it where not.

        To ask takes as long as a pass of so many networks over both views.
        """
        later = Launches(effort, views).steps if views else [_REPORT]
        return self._allows("evidence", [*[("pass", 2, True)] * networks, *later])

    def boundary(self, launches: Launches) -> Boundary:
        """What a pipeline asks before each stage of these launches, from any thread. Raises as `go_on` does."""
        deciding = threading.Lock()

        def before(stage: str) -> bool:
            if stage == "localize":
                launches.begin()
            elif stage in _BEFORE:
                self.done(_BEFORE[stage])
            needed = launches.needed(stage)
            self.go_on(needed)
            name = _ASKED.get(stage)
            if name is None:
                return True
            step = launches.plain if name == "second-pass" else launches.one[0]
            with deciding:  # once for the views of a launch, which a device may run side by side
                if name not in launches.decided:
                    launches.decided[name] = self._allows(name, [step, *needed])
                    if not launches.decided[name]:
                        launches.without(name)
                return launches.decided[name]

        return before

    def finish(self) -> float:
        """The study is over: its steps are learnt. Returns the milliseconds that it took in all."""
        elapsed_ms = self.elapsed_ms
        if self.took:
            self.durations.learn([*self.took, (_REPORT, elapsed_ms - max(self._done.values()))])
        return elapsed_ms

    def exceeded(self, more: str = "", report: StudyReport | None = None) -> BudgetExceeded:
        done = {stage: round(ms, 3) for stage, ms in self._done.items()}
        return BudgetExceeded(
            f"The budget of {self.ms:g} ms cannot be kept: {self.elapsed_ms:.1f} ms had passed after "
            f"{', '.join(done) or 'nothing'}{more}. Give a larger budget, or make a plan with spinescore plan.",
            done,
            report,
        )

    def _allows(self, name: Skippable, steps: Iterable[Step]) -> bool:
        fits = self._fits(steps)
        self._skipped[name] |= not fits
        return fits

    def _fits(self, steps: Iterable[Step]) -> bool:
        return self.ms is None or self.durations.likely(steps) <= self.left_ms
