"""How long the steps of one scorer take, learnt from its studies: what a budget is divided by.

Two things are kept: of each step its base, the time that it takes on a quiet machine, and of each study its pace, how
much longer than their bases its steps took together. A step is expected to take its base times the likely pace: that of
the slowest tenth of the latest 32 studies, or of the slowest of the latest 12 if that is less. So a step that has not
run for long follows the machine like all others, and a machine that was busy is taken for quiet after 12 quiet studies.

A base is the shortest run, and three rules keep it right.

    others faster   If the steps of a study take less than 0.8 of their bases together, the machine was busy when those
                    were measured. The other steps' bases are then scaled by the same factor, until the steps run.
    passed over     A step that did not fit in 14 studies is forgotten. While the machine is quiet (the latest pace at
                    most 1.25) one study tries the step, if there is time for the rest and for the plainer step whose
                    place it takes. If it takes as long as before, it is tried after another 14, again 14, then 28, and
                    so on up to 224. So in constant conditions a step that never fits makes 3 of the first 45 studies
                    late, 4 of 74, 7 of 600, and never two in a row. No study with a hard budget tries one.
    slower now      If the three latest runs all took 1.5 times the base or more, by the pace of the other steps of
                    their studies, the shortest of them becomes the base.

Where nothing at all had time, there is nothing to learn from, and nothing to lose. So after 2 such studies in a row the
next one is tried whatever it takes, then after 4, 8, 14 and every 14; with a hard budget, after 14.

What never ran takes no time, and is tried. A hard budget has nothing to try: until the steps have run once, the choice
is made by what the networks took in the self-test at opening, and a study is given up by half of that, since a first
run is slow.
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
_PATIENCE = 14  # studies that pass over a step before it is tried
_SURE_AFTER = 3  # tries that found nothing new; each further one doubles the patience
_MOST_PATIENCE = 224
_FIRST_IDLE = 2  # studies in which nothing ran before one is tried


@dataclass
class _Base:
    """The base of one step, in milliseconds, and how far it is to be believed."""

    ms: float
    is_assumed: bool = False  # scaled since it was measured
    passed_over: int = 0  # in so many studies since it ran
    confirmed: int = 0  # by so many tries in a row
    latest_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_SLOW_RUNS))

    @property
    def is_overdue(self) -> bool:
        doublings = max(0, self.confirmed - _SURE_AFTER + 1)
        return self.passed_over >= min(_PATIENCE << min(doublings, 8), _MOST_PATIENCE)

    def scale(self, factor: float) -> None:
        self.ms, self.is_assumed, self.confirmed = self.ms * factor, True, 0

    def tried(self, ms: float, quiet: bool) -> None:
        """It was run to see whether its base is right, which a study that was slow for other reasons cannot tell."""
        if quiet:
            self.confirmed = self.confirmed + 1 if ms >= _FASTER * self.ms else 0
            self.ms, self.is_assumed = ms if self.is_assumed else min(self.ms, ms), False
        self.ms = min(self.ms, ms)


class Durations:
    """How long the steps of one scorer take, in milliseconds; see the module for the rules."""

    def __init__(self) -> None:
        self._bases: dict[Step, _Base] = {}
        self._first: dict[str, float] = {}  # by the name of a step of two views that never ran
        self._paces: deque[float] = deque(maxlen=_LATEST_STUDIES)
        self._idle, self._tries = 0, 0  # studies in a row in which nothing ran, or which were tried
        self._tried_last = False  # whether the latest study tried a step

    def assume(self, localizer_ms: float, grader_ms: float, runs: int) -> None:
        """What the first run of the networks took for two views, of the localizer so many runs."""
        self._first = self._first or {"averaged": localizer_ms, "pass": localizer_ms / max(runs, 1), "grade": grader_ms}

    def learn(self, took_ms: Took) -> None:
        """The steps of one study."""
        self.note(took_ms)
        self._raise(took_ms)
        base_ms = sum(self._bases[step].ms for step, _ in took_ms)
        if base_ms > 0:
            self._paces.append(sum(ms for _, ms in took_ms) / base_ms)

    def end(self, took_ms: Took, passed_over: Iterable[Step], tried: bool) -> None:
        """A study is over: what ran, which steps did not fit, and whether it was tried as `is_stuck` says."""
        ran = {step for step, _ in took_ms}
        self._tried_last = any(base.is_overdue for step in ran if (base := self._source(step)[1]) is not None)
        missed = {id(base): base for step in set(passed_over) - ran if (base := self._source(step)[1]) is not None}
        for base in missed.values():
            base.passed_over += 1
        if took_ms:
            self.learn(took_ms)
            self._idle, self._tries = 0, self._tries + 1 if tried else 0
        elif missed:
            self._idle += 1
            self._paces.append(1.0)

    def is_stuck(self, hard: bool) -> bool:
        """Whether nothing had time in so many studies that the next one is to be tried."""
        return self._idle >= (_PATIENCE if hard else min(_PATIENCE, _FIRST_IDLE << min(self._tries, 8)))

    def least(self, steps: Iterable[Step]) -> float:
        """The bases together: what the steps take at least, for a hard budget."""
        return sum(self._base_ms(step) or self._first_ms(step) / 2 for step in steps)

    def likely(self, steps: Iterable[Step], hard: bool = False, now_ms: Mapping[Step, float] | None = None) -> float:
        """What the steps are likely to take together. `now_ms` is what they took in this very study, in doubt better.

        A hard budget forgets nothing, and takes what never ran to be as slow as in the self-test.
        """
        return self._likely_pace * sum(self._expected(step, hard, now_ms or {}) for step in steps)

    def note(self, took_ms: Took) -> None:
        """Correct the bases by some steps of a study, of which `learn` follows."""
        shortest: dict[Step, float] = {}
        for step, ms in took_ms:
            shortest[step] = min(shortest.get(step, math.inf), max(ms, 0.0))
        before = {step: self._bases[step].ms for step in shortest if step in self._bases}
        in_doubt = {step for step in before if self._bases[step].is_assumed or self._bases[step].is_overdue}
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
        """What a step takes at the usual pace."""
        base = self._source(step)[1]
        if step in now_ms and (base is None or base.is_assumed or base.is_overdue):
            return now_ms[step]
        quiet = not self._paces or self._paces[-1] <= _QUIET_PACE
        if base is not None and base.is_overdue and quiet and not (hard or self._tried_last):
            plainer = _plainer(step)
            return self._expected(plainer, hard, now_ms) if plainer in self._bases and plainer != step else 0.0
        return self._base_ms(step) or (self._first_ms(step) if hard else 0.0)

    def _base_ms(self, step: Step) -> float:
        """The base of the step, or of the nearest; at most what a step took that does the same and more."""
        factor, base = self._source(step)
        if base is None:
            return 0.0
        fuller = [self._bases[more] for more in _fuller(step) if more in self._bases]
        return min([factor * base.ms, *(more.ms for more in fuller if not more.is_assumed)])

    def _first_ms(self, step: Step) -> float:
        name, views, _ = step
        if name == "evidence":
            return views * self._first.get("pass", 0.0)
        return views / 2 * self._first.get(name, 0.0)

    def _source(self, step: Step) -> tuple[float, _Base | None]:
        """The base of the step, else a factor and the base of the nearest that ran.

        That is the step otherwise antialiased, or of another number of views; of evidence, which is asked of two views,
        a pass for each network.
        """
        name, views, antialias = step
        if name == "evidence" and step not in self._bases:
            factor, base = self._source(("pass", 2, antialias))
            return views * factor, base
        for factor, near in (
            (1.0, step),
            (1.0, (name, views, not antialias)),
            (1.0, (name, 2, antialias)),
            (2.0, (name, 1, antialias)),
        ):
            if near in self._bases:
                return factor, self._bases[near]
        return 0.0, None


def _plainer(step: Step) -> Step:
    """The step that takes no longer than this one by what it does."""
    name, views, antialias = step
    return ("pass", views, antialias) if name == "averaged" else (name, views, False)


def _fuller(step: Step) -> list[Step]:
    """The steps that do the same and more."""
    name, views, antialias = step
    found = [] if antialias else [(name, views, True)]
    return [*found, ("averaged", views, antialias), ("averaged", views, True)] if name == "pass" else found
