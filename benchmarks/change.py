"""How good the change between two visits is on phantoms: its interval, and its verdict when a disc is hidden.

    python -m spinescore.benchmarks.change --count 120 --out benchmarks/results/change-phantom.json

Each phantom is drawn at two visits, two years apart, with progression between them, written as DICOM, read and scored
as any other. First, the change that the networks' probabilities expect: how often its 95 % interval holds the true
change. Second, the rule: each disc in turn is hidden at one visit (as if it could not be read), and the verdict on a
progression of 2 units is compared with that of the same grades with nothing hidden. `imputed` takes the difference of
totals that replace the hidden corners by their region's mean; `comparable` takes the corners that both visits have, and
`verdict` is the same with the range that the hidden corners leave open, which may be undecided. Third, the same with
the first visit's grades at both visits, where every progression is one of nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spinescore.runtime import Scorer, StudyReport, load_study
from spinescore.runtime.files import write_atomic
from spinescore.runtime.followup import Comparison, compare
from spinescore.runtime.machine.processor import processor_name
from spinescore.runtime.phantom.study import write_study
from spinescore.runtime.scoring.msasss import score_region, score_study
from spinescore.runtime.scoring.report import DiscReport, RegionReport, TotalReport
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = ["Figures", "hidden", "measure"]

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
        """Counts one pair of visits with its true change, and the same with each disc hidden at either visit."""
        found = compare(baseline, followup)
        self.pairs += 1
        if found.total.change is None or found.total.expected is None:
            self.without_change += 1
            return
        low, high = found.total.expected.interval
        self.covered += low <= true_change <= high
        self.widths.append(high - low)
        self.errors.append(found.total.change - true_change)
        self.expected_errors.append(found.total.expected.mean - true_change)
        for region in REGIONS:
            for level in LEVELS[region]:
                without = hidden(baseline, region, level)
                self._add_hidden(found, without, followup)
                self._add_hidden(found, baseline, hidden(followup, region, level))
                self._add_same(without, baseline)
                self._add_same(baseline, without)

    def _add_hidden(self, whole: Comparison, baseline: StudyReport, followup: StudyReport) -> None:
        found = compare(baseline, followup)
        if found.total.change is None or None in (baseline.total.value, followup.total.value, whole.total.change):
            return
        true = (whole.total.change or 0) >= _UNITS
        imputed = (followup.total.value or 0) - (baseline.total.value or 0) >= _UNITS
        verdict = found.progression.progressed
        self.hidden["cases"] += 1
        self.hidden["imputed_wrong"] += imputed != true
        self.hidden["comparable_wrong"] += (found.total.change >= _UNITS) != true
        self.hidden["verdict_undecided"] += verdict is None
        self.hidden["verdict_wrong"] += verdict is not None and verdict != true

    def _add_same(self, baseline: StudyReport, followup: StudyReport) -> None:
        """The same grades at both visits, but for the disc that is hidden at one."""
        found = compare(baseline, followup).total
        if found.change is None or baseline.total.value is None or followup.total.value is None:
            return
        self.same["cases"] += 1
        self.same["imputed_progression"] += followup.total.value - baseline.total.value >= _UNITS
        self.same["comparable_progression"] += found.change >= _UNITS

    def document(self) -> dict[str, Any]:
        """The figures, with rates."""
        known = len(self.widths)

        def mean(values: list[float]) -> float | None:
            return round(sum(values) / len(values), 3) if values else None

        return {
            "pairs": self.pairs,
            "without_change": self.without_change,
            "interval": {"covered": self.covered, "of": known, "mean_width_units": mean(self.widths)},
            "mean_absolute_error_units": {
                "change_of_grades": mean([abs(error) for error in self.errors]),
                "expected_change": mean([abs(error) for error in self.expected_errors]),
            },
            "hidden_disc": dict(self.hidden),
            "hidden_disc_of_the_same_grades": dict(self.same),
        }


def hidden(report: StudyReport, region: Region, level: str) -> StudyReport:
    """The report as if a disc could not be read: its corners without grade, the totals by the missing rule."""
    part = report.regions[region]
    grades = [None if disc.level == level else corner.grade for disc in part.discs for corner in disc.corners]
    score = score_region(region, grades)
    discs = tuple(_imputed(disc, disc.level == level, score.imputed) for disc in part.discs)
    changed = replace(part, discs=discs, total=score.total, range=score.range, missing=score.missing)
    regions: dict[Region, RegionReport] = {**report.regions, region: changed}
    scores = {
        name: score_region(name, [corner.grade for disc in found.discs for corner in disc.corners])
        for name, found in regions.items()
        if found.discs
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
    """Figures of `count` patients from seed `first` on, two visits each."""
    figures = Figures()
    with Scorer.open(bundle, "cpu", threads=1) as opened:
        for number, (visits, true_change) in enumerate(_pairs(first, count), 1):
            baseline, followup = (opened.score(load_study(folder)) for folder in visits)
            figures.add(baseline, followup, true_change)
            if number % 10 == 0:
                say(f"{number} of {count} patients")
        identity = {"name": opened.bundle.manifest.name, "sha256": opened.bundle.sha256}
    return {
        "what": "change between two visits of phantoms: its interval, and its verdict when a disc is hidden",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "bundle": identity,
        "first_seed": first,
        "machine": f"{processor_name()}, Python {platform.python_version()}, one thread",
        **figures.document(),
    }


def _pairs(first: int, count: int) -> Iterator[tuple[tuple[Path, Path], int]]:
    """Each patient's folders of two visits, which are there until the next one, and the true change."""
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            visits = write_study(seed, Path(folder, "0"), 0), write_study(seed, Path(folder, "1"), 1)
            before, after = (_true_total(path) for path in visits)
            yield visits, after - before


def _true_total(folder: Path) -> int:
    document: Mapping[str, Any] = json.loads((folder / "truth.json").read_text("utf-8"))
    return int(document["total"]["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--bundle", default="phantom-reference", help="name or folder of the bundle")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"first seed ({_SEED})")
    parser.add_argument("--count", type=int, default=120, help="patients, of two visits each")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    document = measure(arguments.bundle, arguments.seed, arguments.count)
    text = json.dumps(document, indent=1)
    if arguments.out is not None:
        write_atomic(arguments.out, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
