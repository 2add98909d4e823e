"""The effort that a study gets, and the launches and steps that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from spinescore.runtime.fields import OPTIONAL, OneOf
from spinescore.runtime.scoring.estimates import Step

__all__ = ["REPORT", "SKIPPABLE", "Effort", "Launches", "Skippable", "alternatives"]

Skippable = Literal["test-time", "second-pass", "evidence", "antialias"]

SKIPPABLE: tuple[Skippable, ...] = ("test-time", "second-pass", "evidence", "antialias")

REPORT: Step = ("report", 0, True)

# The number of a launch's steps (`Launches.one`) that are over when a stage begins.
_ORDER = {"localize": 0, "second-pass": 1, "test-time": 1, "crop": 1, "grade": 2}


@dataclass(frozen=True)
class Effort:
    """How thoroughly a study is scored. `apart` runs its two views one after the other, and not both at once.

    `test_time` averages heatmaps over the manifest's scales and flips.
    """

    passes: Annotated[int, OneOf(1, 2)]
    antialias: bool = True
    apart: bool = False
    test_time: Annotated[bool, OneOf(True), OPTIONAL] = False  # a plan states it only if it is true


def alternatives(effort: Effort, antialiased: bool) -> tuple[Effort, ...]:
    """Return the effort, then ever smaller ones in the order of `SKIPPABLE`; `antialiased` is by the manifest."""
    plain = replace(effort, test_time=False)
    efforts = [effort, plain, replace(plain, passes=1)]
    if antialiased:
        efforts.append(replace(plain, passes=1, antialias=False))
    return tuple(dict.fromkeys(efforts))


class Launches:
    """The launches of one study (both views in one launch, or each in its own), and the steps that are left."""

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
        self.steps = [*self.passes, *[*self.one[1:]] * self._count, REPORT]
        self.decided: dict[Skippable, bool] = {}  # whether this launch has a second pass, and whether that is averaged
        self.first_ms: list[float] = []  # of each launch's first pass, on a device that tells it

    @property
    def plainest(self) -> list[Step]:
        """The steps of all launches that cannot be skipped."""
        return [*self.one * self._count, REPORT]

    def begin(self, at_ms: float) -> None:
        """Begin the next launch."""
        self._left, self.decided, self._began_ms = self._left - 1, {}, at_ms

    def localized(self, at_ms: float) -> None:
        """Note that the launch has made its first pass, or more."""
        if len(self.first_ms) < self._count - self._left:
            self.first_ms.append(at_ms - self._began_ms)

    def without(self, stage: Skippable) -> None:
        """Leave the second pass of this launch out (`second-pass`), or its averaging (`test-time`)."""
        self.passes.remove(self.one[0])
        if stage == "test-time":
            self.passes.append(self.plain)

    def needed(self, stage: str) -> list[Step]:
        """Return the steps from this stage on that cannot be skipped: of this launch, of later ones, and the report."""
        return [*self.one[_ORDER[stage] :], *self.one * self._left, REPORT]

    def took(self, stages_ms: Mapping[str, float]) -> list[tuple[Step, float]]:
        """Return the steps with their times, from the times of localize, crop and grade over all launches."""
        crop, grade = ((step, stages_ms[step[0]] / self._count) for step in self.one[1:])
        return [*self._passes_ms(stages_ms["localize"]), *[crop] * self._count, *[grade] * self._count]

    def so_far(self) -> list[tuple[Step, float]]:
        """Return the first passes with their times, for launches that are given up."""
        return [(self.one[0], ms) for ms in self.first_ms]

    def _passes_ms(self, all_ms: float) -> list[tuple[Step, float]]:
        """Return each pass with its time.

        The second passes took the rest of the time after the first ones. If those times are not known, or the second
        passes are of two kinds, the second passes are left out.
        """
        if len(set(self.passes)) == 1:
            return [(step, all_ms / len(self.passes)) for step in self.passes]
        second = list(self.passes)
        for _ in self.first_ms:
            second.remove(self.one[0])
        if len(set(second)) > 1 or not self.first_ms:
            return self.so_far()
        return self.so_far() + [(step, (all_ms - sum(self.first_ms)) / len(second)) for step in second]
