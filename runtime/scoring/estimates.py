"""Estimates how long the steps of one scorer take, from its earlier studies, so that a budget can be divided.

Each step has a base: the milliseconds that it takes on a quiet machine. Each study has a pace: how much longer its
steps took together than their bases. A step is expected to take its base times the likely pace. The likely pace is that
of the slowest tenth of the latest 32 studies, or of the slowest of the latest 12 studies if that is less. So a step
that has not run for long follows the machine like the other steps, and a busy machine counts as quiet after 12 quiet
studies.

A base is the shortest run. Three rules keep it right.

    others faster   If the steps of a study take less than 0.8 of their bases together, the machine was busy when those
                    were measured. The bases of the other steps are then scaled by the same factor, until they run.
    passed over     A step that did not fit in 15 studies is tried in the next one, if the machine is quiet (latest pace
                    at most 1.25) and if there is time for 0.8 of its typical time. The typical time follows from the
                    steps that run in every study: a pass costs the same wherever it is used. If a try takes as long as
                    before, and the base is at most 1.25 of the typical time, the measurement is believed: the third
                    such try is followed by 30 studies without one, then 60, then 120. A base that is not typical is
                    tried after every 15 studies, so that no busy time can lock a step out for longer than 20 quiet
                    studies. Tries are never made in two studies in a row.
    slower now      If the three latest runs all took 1.5 times the base or more, by the pace of the other steps of
                    their studies, the shortest of them becomes the base.

If no step had time, there is nothing to learn from, and nothing to lose. So after 2 such studies in a row the next one
is scored whatever it takes, then after 4, 8, 15 and every 15; with a hard budget, after 15. Studies with a hard budget
are counted apart, and one in which nothing ran passes over no step.

A step that never ran counts as 0 ms, and is tried. A hard budget tries nothing, because a result would be lost: a
scorer that gets only hard calls never tries a skipped step again. Until the steps have run once, a hard budget is
divided by the networks' times in the self-test at opening. A study is given up by half of those, since a first run is
slow.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Durations", "Step"]

# `pass`, `averaged` (a pass), `crop`, `grade`, `report` or `evidence`; views at once; antialiased. Of `evidence`, which
# is of two views, the number says how many networks are asked.
Step = tuple[str, int, bool]
Took = Sequence[tuple[Step, float]]

_LATEST_STUDIES = 32
_LIKELY_SHARE = 0.9  # of the latest studies, those that were no slower
_RECOVERY_STUDIES = 12  # after which what was slower before counts no more
_QUIET_PACE = 1.25
_FASTER = 0.8  # of the base: less than what chance explains
_SLOWER = 1.5
_SLOW_RUNS = 3
_PATIENCE = 15  # studies that pass over a step before it is tried; two tries one after the other fit within 20
_SURE_AFTER = 3  # tries that found nothing new; each further one doubles the patience
_MOST_DOUBLINGS = 3
_FIRST_IDLE = 2  # studies in which nothing ran before one is tried


@dataclass
class _Base:
    """The base of one step, in milliseconds, and how reliable it is."""

    ms: float
    is_assumed: bool = False  # scaled since it was measured
    passed_over: int = 0  # the number of studies that left the step out since it ran
    confirmed: int = 0  # the number of tries in a row that found nothing new
    latest_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_SLOW_RUNS))

    def scale(self, factor: float) -> None:
        self.ms, self.is_assumed, self.confirmed = self.ms * factor, True, 0

    def tried(self, ms: float, quiet: bool) -> None:
        """Correct the base by a try. A study that was slow for other reasons (not `quiet`) can only lower it."""
        if quiet:
            self.confirmed = self.confirmed + 1 if ms >= _FASTER * self.ms else 0
            self.ms, self.is_assumed = ms if self.is_assumed else min(self.ms, ms), False
        self.ms = min(self.ms, ms)


class Durations:
    """How long the steps of one scorer take, in milliseconds. The module's text has the rules."""

    def __init__(self, averaging_cost: float = 1.0) -> None:
        """`averaging_cost` is the time of an averaged pass in plain passes (`Averaging.cost`)."""
        self._averaging_cost = averaging_cost
        self._bases: dict[Step, _Base] = {}
        self._first: dict[str, float] = {}  # by the name of a step of two views that never ran
        self._paces: deque[float] = deque(maxlen=_LATEST_STUDIES)
        self._idle, self._tries = {False: 0, True: 0}, 0  # studies in a row in which nothing ran, by hard; or tried
        self.tried_last = False  # whether the latest study tried a step that was not expected to fit

    def assume(self, localizer_ms: float, grader_ms: float) -> None:
        """Keep the times of the networks' first run for two views; the localizer's includes all averaged runs."""
        pass_ms = localizer_ms / self._averaging_cost
        self._first = self._first or {"averaged": localizer_ms, "pass": pass_ms, "grade": grader_ms}

    def learn(self, took_ms: Took) -> None:
        """Learn the steps of one study."""
        self.note(took_ms)
        self._raise(took_ms)
        base_ms = sum(self._bases[step].ms for step, _ in took_ms)
        if base_ms > 0:
            self._paces.append(sum(ms for _, ms in took_ms) / base_ms)

    def end(self, took_ms: Took, passed_over: Iterable[Step], tried: bool, hard: bool = False) -> None:
        """Count a study that is over.

        `took_ms` are its steps, `passed_over` the steps that there was no time for. `tried` says that it was scored
        because `is_stuck` was true. A `hard` study in which nothing ran passes over no step: its caller gave it up, and
        a later study that is not hard has to choose as if the call had not been.
        """
        ran = {step for step, _ in took_ms}
        self.tried_last = tried or any(self._is_overdue(near) for step in ran if (near := self._nearest(step)[1]))
        missed = {near for step in set(passed_over) - ran if (near := self._nearest(step)[1])}
        for step in missed if took_ms or not hard else ():
            self._bases[step].passed_over += 1
        if took_ms:
            self.learn(took_ms)
            self._idle, self._tries = {False: 0, True: 0}, self._tries + 1 if tried else 0
        elif missed:
            self._idle[hard] += 1
            self._paces.append(1.0)

    def is_stuck(self, hard: bool) -> bool:
        """Whether there was no time for anything in so many studies that the next one has to be tried."""
        return self._idle[hard] >= (_PATIENCE if hard else min(_PATIENCE, _FIRST_IDLE << min(self._tries, 8)))

    def least(self, steps: Iterable[Step]) -> float:
        """Return the sum of the bases: the least time of the steps, for a hard budget."""
        return sum(self._base_ms(step) or self._first_ms(step) / 2 for step in steps)

    def likely(self, steps: Iterable[Step], hard: bool = False, now_ms: Mapping[Step, float] | None = None) -> float:
        """Return the likely time of the steps together.

        `now_ms` has times from this very study, which replace a base that is in doubt. For a hard budget no step is
        tried, and a step that never ran counts with its time in the self-test.
        """
        return self._likely_pace * sum(self._expected(step, hard, now_ms or {}) for step in steps)

    def note(self, took_ms: Took) -> None:
        """Correct the bases by some steps of a study; `learn` follows with all of them."""
        shortest: dict[Step, float] = {}
        for step, ms in took_ms:
            shortest[step] = min(shortest.get(step, math.inf), max(ms, 0.0))
        before = {step: self._bases[step].ms for step in shortest if step in self._bases}
        in_doubt = {step for step in before if self._bases[step].is_assumed or self._is_overdue(step)}
        measured = [step for step in before if not self._bases[step].is_assumed]
        for step in shortest.keys() - in_doubt:
            base = self._bases.setdefault(step, _Base(shortest[step]))
            base.ms = min(base.ms, shortest[step])
        quiet = self._pace({step: shortest[step] for step in before.keys() - in_doubt}) <= _QUIET_PACE
        for step in in_doubt:
            self._bases[step].tried(shortest[step], quiet)
        for step in shortest:
            self._bases[step].passed_over = 0
        old_ms, new_ms = sum(before[step] for step in measured), sum(self._bases[step].ms for step in measured)
        if new_ms < _FASTER * old_ms:
            for step in self._bases.keys() - shortest.keys():
                self._bases[step].scale(new_ms / old_ms)

    def _raise(self, took_ms: Took) -> None:
        """Raise the bases of steps that have become slower than the others."""
        took = dict(took_ms)
        for step, ms in took.items():
            base = self._bases[step]
            base.latest_ms.append(ms / max(1.0, self._pace({other: took[other] for other in took if other != step})))
            if len(base.latest_ms) == _SLOW_RUNS and base.ms > 0 and min(base.latest_ms) >= _SLOWER * base.ms:
                base.ms, base.confirmed = min(base.latest_ms), 0

    def _pace(self, took_ms: Mapping[Step, float]) -> float:
        base_ms = sum(self._bases[step].ms for step in took_ms)
        return sum(took_ms.values()) / base_ms if base_ms > 0 else 1.0

    @property
    def _likely_pace(self) -> float:
        if not self._paces:
            return 1.0
        rank = math.ceil(_LIKELY_SHARE * len(self._paces)) - 1
        return min(sorted(self._paces)[rank], max(list(self._paces)[-_RECOVERY_STUDIES:]))

    def _expected(self, step: Step, hard: bool, now_ms: Mapping[Step, float]) -> float:
        """Return the milliseconds of a step at the usual pace."""
        near = self._nearest(step)[1]
        in_doubt = near is None or self._bases[near].is_assumed or self._is_overdue(near)
        if step in now_ms and in_doubt:
            return now_ms[step]
        quiet = not self._paces or self._paces[-1] <= _QUIET_PACE
        if near is not None and self._is_overdue(near) and quiet and not (hard or self.tried_last):
            return _FASTER * self._typical_ms(step)
        return self._base_ms(step) or (self._first_ms(step) if hard else 0.0)

    def _is_overdue(self, step: Step) -> bool:
        """Whether a step with a base was passed over so often that it has to be tried."""
        base = self._bases[step]
        believed = base.ms <= _QUIET_PACE * self._typical_ms(step)
        doublings = min(max(0, base.confirmed - _SURE_AFTER + 1), _MOST_DOUBLINGS) if believed else 0
        return base.passed_over >= _PATIENCE << doublings

    def _typical_ms(self, step: Step) -> float:
        """Return the time of a step that follows from plainer steps, or 0 if these never ran."""
        name, views, antialias = step
        if name == "averaged":
            return self._averaging_cost * self._plain_pass_ms(views, antialias)
        if name == "evidence":
            return views * self._plain_pass_ms(2, antialias)
        plain = (name, views, False)
        return self._base_ms(plain) if antialias and plain in self._bases else 0.0

    def _plain_pass_ms(self, views: int, antialias: bool) -> float:
        step = ("pass", views, antialias)
        near = self._nearest(step)[1]
        if near is not None and self._is_overdue(near):
            return self._typical_ms(step)
        return self._base_ms(step)

    def _base_ms(self, step: Step) -> float:
        """Return the base of the step or of the nearest one; at most that of a step that does the same and more."""
        factor, near = self._nearest(step)
        if near is None:
            return 0.0
        name, views, antialias = step
        fuller = [] if antialias else [(name, views, True)]  # steps that do the same and more
        fuller += [("averaged", views, antialias), ("averaged", views, True)] if name == "pass" else []
        known = [self._bases[more] for more in fuller if more in self._bases]
        return min([factor * self._bases[near].ms, *(more.ms for more in known if not more.is_assumed)])

    def _first_ms(self, step: Step) -> float:
        name, views, _ = step
        if name == "evidence":
            return views * self._first.get("pass", 0.0)
        return views / 2 * self._first.get(name, 0.0)

    def _nearest(self, step: Step) -> tuple[float, Step | None]:
        """Return the nearest step that has a base, and the factor from its base to the time of this step.

        That is the step itself, else the step with the other antialiasing, or with another number of views. Evidence
        is asked of two views; it takes a pass for each network.
        """
        name, views, antialias = step
        if name == "evidence" and step not in self._bases:
            factor, near_pass = self._nearest(("pass", 2, antialias))
            return views * factor, near_pass
        others = ((name, views, not antialias), (name, 2, antialias))
        for factor, near in ((1.0, step), *((1.0, other) for other in others), (2.0, (name, 1, antialias))):
            if near in self._bases:
                return factor, near
        return 0.0, None
