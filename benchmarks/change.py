"""Measures the change between two visits on phantoms: its interval, and its verdict when a disc is hidden.

    python -m spinescore.benchmarks.change --count 100 --out benchmarks/results/change-phantom.json

Each phantom is drawn at two visits, two years apart, with progression between them, written as DICOM, read and scored
as any other. First, the change that the networks' probabilities expect: how often its 95 % interval holds the true
change. Second, the rule for missing corners: each disc in turn is hidden at one visit (as if it could not be read), and
the verdict on a progression of 2 units is compared with that of the same grades with nothing hidden. `imputed` takes
the difference of totals that replace the hidden corners by their region's mean. `comparable` takes the corners that
both visits have. `verdict` is the same with the range that the hidden corners leave open, and may be undecided. Third,
the same with the first visit's grades at both visits, where every progression is false.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.subject import bundle_facts, read_phantom
from spinescore.runtime import Scorer, StudyReport
from spinescore.runtime.followup import Comparison, compare
from spinescore.runtime.scoring.msasss import score_region, score_study
from spinescore.runtime.scoring.report import DiscReport, RegionReport, TotalReport
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = ["SCHEMA", "Figures", "hidden", "main", "measure"]

SCHEMA = "spinescore.change/1"

_SEED = 1_700_000  # bundles are trained below 100,000
_UNITS = 2.0


@dataclass
class Figures:
    """Counts of intervals and verdicts, added up pair by pair."""

    pairs: int = 0
    without_change: int = 0
    covered: int = 0
    widths: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # of the change of the grades, against the truth
    expected_errors: list[float] = field(default_factory=list)  # of the expected change
    hidden: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)

    def add(self, baseline: StudyReport, followup: StudyReport, true_change: int) -> None:
        """Count one pair of visits with its true change, and the same with each disc hidden at either visit."""
        whole = compare(baseline, followup)
        self.pairs += 1
        if whole.total.change is None or whole.total.expected is None:
            self.without_change += 1
            return
        low, high = whole.total.expected.interval
        self.covered += low <= true_change <= high
        self.widths.append(high - low)
        self.errors.append(whole.total.change - true_change)
        self.expected_errors.append(whole.total.expected.mean - true_change)
        for region in REGIONS:
            for level in LEVELS[region]:
                without = hidden(baseline, region, level)
                self._add_hidden(whole, without, followup)
                self._add_hidden(whole, baseline, hidden(followup, region, level))
                self._add_same(without, baseline)
                self._add_same(baseline, without)

    def _add_hidden(self, whole: Comparison, baseline: StudyReport, followup: StudyReport) -> None:
        partial = compare(baseline, followup)
        if partial.total.change is None or None in (baseline.total.value, followup.total.value, whole.total.change):
            return
        true = (whole.total.change or 0) >= _UNITS
        imputed = (followup.total.value or 0) - (baseline.total.value or 0) >= _UNITS
        verdict = partial.progression.progressed
        self.hidden["cases"] += 1
        self.hidden["imputed_wrong"] += imputed != true
        self.hidden["comparable_wrong"] += (partial.total.change >= _UNITS) != true
        self.hidden["verdict_undecided"] += verdict is None
        self.hidden["verdict_wrong"] += verdict is not None and verdict != true

    def _add_same(self, baseline: StudyReport, followup: StudyReport) -> None:
        """Count a pair with the same grades at both visits, except for the disc that is hidden at one."""
        total = compare(baseline, followup).total
        if total.change is None or baseline.total.value is None or followup.total.value is None:
            return
        self.same["cases"] += 1
        self.same["imputed_progression"] += followup.total.value - baseline.total.value >= _UNITS
        self.same["comparable_progression"] += total.change >= _UNITS

    def document(self) -> dict[str, Any]:
        """Return the figures."""
        intervals = len(self.widths)

        def mean(values: list[float]) -> float | None:
            return round(sum(values) / len(values), 3) if values else None

        return {
            "pairs": self.pairs,
            "without_change": self.without_change,
            "interval": {"covered": self.covered, "of": intervals, "mean_width_units": mean(self.widths)},
            "mean_absolute_error_units": {
                "change_of_grades": mean([abs(error) for error in self.errors]),
                "expected_change": mean([abs(error) for error in self.expected_errors]),
            },
            "hidden_disc": dict(self.hidden),
            "hidden_disc_of_the_same_grades": dict(self.same),
        }


def hidden(report: StudyReport, region: Region, level: str) -> StudyReport:
    """Return the report as if a disc could not be read: its corners without grade, totals by the missing rule."""
    part = report.regions[region]
    grades = [None if disc.level == level else corner.grade for disc in part.discs for corner in disc.corners]
    score = score_region(region, grades)
    discs = tuple(_imputed(disc, disc.level == level, score.imputed) for disc in part.discs)
    changed = replace(part, discs=discs, total=score.total, range=score.range, missing=score.missing)
    regions: dict[Region, RegionReport] = {**report.regions, region: changed}
    scores = {
        name: score_region(name, [corner.grade for disc in one.discs for corner in disc.corners])
        for name, one in regions.items()
        if one.discs
    }
    total = score_study(scores)
    return replace(
        report, regions=regions, total=TotalReport(total.value, total.range, total.status, total.imputed_sites)
    )


def _imputed(disc: DiscReport, unread: bool, imputed: Mapping[str, float]) -> DiscReport:
    upper, lower = (replace(corner, imputed=imputed.get(corner.site)) for corner in disc.corners)
    if unread:
        upper, lower = (
            replace(corner, grade=None, probabilities=None, status="unreadable") for corner in (upper, lower)
        )
    return replace(disc, corners=(upper, lower))


def measure(bundle: str, first: int, count: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Score `count` patients from seed `first` on, two visits each; returns the figures."""
    figures = Figures()
    with Scorer.open(bundle, "cpu", threads=1) as opened:
        for number in range(count):
            (before, true_before), (after, true_after) = (read_phantom(first + number, visit) for visit in (0, 1))
            true_change = int(true_after["total"]["value"]) - int(true_before["total"]["value"])
            figures.add(opened.score(before), opened.score(after), true_change)
            if number % 10 == 9:
                say(f"{number + 1} of {count} patients")
        facts = bundle_facts(opened)
    return {"bundle": facts, "first_seed": first, **figures.document()}


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("change", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--bundle", default="phantom-reference", help="name or folder of the bundle")
    add("--seed", type=int, default=_SEED, help=f"first seed ({_SEED})")
    add("--count", type=int, default=120, help="patients, with two visits each (120)")
    arguments = command.start(argv)
    command.publish(measure(arguments.bundle, arguments.seed, arguments.count))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
