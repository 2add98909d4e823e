"""Counts how often quality findings are raised: on sound phantoms outside of training, and on spoiled ones.

    python -m spinescore.benchmarks.quality --out benchmarks/results/quality.json

Each study is written as DICOM, read and scored as any other; a spoiled one is changed in memory before it is scored.
One radiograph is one case. The figures hold for phantoms, not for patients. Costs are wall times on one thread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.subject import bundle_facts, read_phantom
from spinescore.benchmarks.harness.timing import elapsed_ms, percentiles
from spinescore.benchmarks.spoiled import SPOILS, Spoil, Truth
from spinescore.runtime import Scorer, Study, StudyReport
from spinescore.runtime.reading.quality import picture_findings
from spinescore.runtime.scoring import studyscorer
from spinescore.runtime.scoring.report import RegionReport
from spinescore.runtime.scoring.scoredquality import of_results
from spinescore.runtime.study import REGIONS, Finding
from spinescore.runtime.text import table

__all__ = ["SCHEMA", "Cases", "main", "measure"]

SCHEMA = "spinescore.quality/1"

_SEED = 1_000_400  # thresholds were set on 1,000,000 to 1,000,299, and bundles are trained below 100,000


@dataclass
class Cases:
    """Counts of findings and grades over the radiographs of one kind."""

    expected: str | None = None
    radiographs: int = 0
    hits: int = 0  # with the expected code
    scored: int = 0
    right: int = 0  # corners with the true grade, of 12 for each radiograph
    codes: Counter[str] = field(default_factory=Counter)  # radiographs by code
    by_region: Counter[str] = field(default_factory=Counter)  # hits
    misnamed: Counter[str] = field(default_factory=Counter)  # scored with two discs or more under a wrong level
    misnamed_said: Counter[str] = field(default_factory=Counter)  # those of them with `level-shift`

    def add(self, report: StudyReport, truth: Mapping[str, Truth], below_px: Mapping[str, float] | None = None) -> None:
        """Count a report; `below_px` is how much lower the true points lie in the spoiled picture, if that is known."""
        for region in REGIONS:
            codes = {finding.code for finding in report.findings if finding.region in (region, None)}
            self.radiographs += 1
            self.hits += self.expected in codes
            self.by_region[region] += self.expected in codes
            self.codes.update(codes)
            result = report.regions[region]
            self.scored += result.status == "scored"
            grades = [corner.grade for disc in result.discs for corner in disc.corners]
            self.right += sum(a == b for a, b in zip(grades, truth[region].grades, strict=False))
            if below_px is not None and result.discs and _misnamed(result, truth[region], below_px[region]):
                self.misnamed[region] += 1
                self.misnamed_said[region] += "level-shift" in codes

    def figures(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            "radiographs": self.radiographs,
            "hit_rate": None if self.expected is None else round(self.hits / self.radiographs, 4),
            "hit_rate_by_region": None
            if self.expected is None
            else {region: round(2 * self.by_region[region] / self.radiographs, 4) for region in REGIONS},
            "levels_misnamed": dict(self.misnamed),
            "of_which_level_shift_said": dict(self.misnamed_said),
            "scored": round(self.scored / self.radiographs, 4),
            "corners_right_of_scored": round(self.right / (12 * self.scored), 4) if self.scored else None,
            "rates": {code: round(count / self.radiographs, 4) for code, count in sorted(self.codes.items())},
        }


def measure(
    bundle: str,
    first: int,
    sound: int,
    spoiled: int,
    say: Callable[[str], None] = print,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score `sound` studies from seed `first` on, and the first `spoiled` of them spoiled in every way.

    `only` names some of the ways to spoil.
    """
    spoils = {name: spoil for name, spoil in SPOILS.items() if only is None or name in only}
    cases = {"sound": Cases(), **{name: Cases(spoil.code) for name, spoil in spoils.items()}}
    before_ms: list[float] = []
    with Scorer.open(bundle, "cpu", threads=1) as opened, _timed_findings() as after_ms:
        for seed in range(first, first + sound):
            study, document = read_phantom(seed)
            truth = {region: Truth.of(part) for region, part in document["regions"].items()}
            before_ms.append(elapsed_ms(lambda: list(map(picture_findings, study.radiographs))))  # noqa: B023
            cases["sound"].add(opened.score(study), truth)
            if seed < first + spoiled:
                sound_looks = len(after_ms)
                for name, spoil in spoils.items():
                    cases[name].add(*_score_spoiled(opened, study, truth, spoil, seed))
                del after_ms[sound_looks:]
            if (seed - first) % 10 == 9:
                say(f"{seed - first + 1} of {sound} studies")
        bundle_identity = bundle_facts(opened)
    return {
        "bundle": bundle_identity,
        "first_seed": first,
        "cost_ms_both_views": {"before": percentiles(before_ms), "after": percentiles(after_ms)},
        "cases": {name: counts.figures() for name, counts in cases.items() if counts.radiographs},
    }


def _score_spoiled(
    opened: Scorer, study: Study, truth: Mapping[str, Truth], spoil: Spoil, seed: int
) -> tuple[StudyReport, Mapping[str, Truth], dict[str, float] | None]:
    """Return the report, the truth, and how much lower the true points lie in the spoiled picture."""
    rng = np.random.default_rng([seed, 7])
    radiographs, keypoints = spoil.make(rng, study.radiographs, truth)
    report = opened.score(radiographs, keypoints=keypoints)
    if spoil.stays == "unknown":
        return report, truth, None
    rows = {image.source: image.rows for image in study.radiographs}
    cut = {str(image.region): float(rows[image.source] - image.rows) for image in radiographs}
    return report, truth, {region: -px if spoil.stays == "below" else 0.0 for region, px in cut.items()}


def _misnamed(result: RegionReport, truth: Truth, below_px: float) -> bool:
    """Return whether two discs or more lie within 0.4 steps of another level's true disc."""
    true = truth.centre + np.array((0.0, below_px))
    others = 0
    for number, disc in enumerate(result.discs):
        if disc.corners[0].status != "unreadable":
            apart = np.linalg.norm(true - disc.centre_px, axis=1)
            others += bool(apart.min() < 0.4 * truth.step_px and apart.argmin() != number)
    return others > 1


@contextmanager
def _timed_findings() -> Iterator[list[float]]:
    """Yield a list that takes the milliseconds of each look at scored results."""
    times_ms: list[float] = []

    def timed(*arguments: Any) -> list[Finding]:
        findings: list[Finding] = []
        times_ms.append(elapsed_ms(lambda: findings.extend(of_results(*arguments))))
        return findings

    with patch.object(studyscorer, "of_results", timed):
        yield times_ms


def _table(document: Mapping[str, Any]) -> str:
    rows = []
    for name, case in document["cases"].items():
        misnamed, said = (sum(case[key].values()) for key in ("levels_misnamed", "of_which_level_shift_said"))
        others = ", ".join(f"{code} {rate:.0%}" for code, rate in case["rates"].items() if code != case["expected"])
        hit = "" if case["hit_rate"] is None else f"{case['hit_rate']:.0%}"
        levels = f"{said} of {misnamed}" if misnamed else ""
        scored = f"{case['scored']:.0%}"
        rows.append([name, case["radiographs"], case["expected"] or "none", hit, scored, levels, others])
    heads = ["radiographs", "cases", "code expected", "raised", "scored", "levels off, found", "other codes"]
    return table(rows, heads)


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("quality", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--bundle", default="phantom-reference", help="name or folder of the bundle")
    add("--seed", type=int, default=_SEED, help=f"first seed ({_SEED})")
    add("--count", type=int, default=100, help="sound studies (100)")
    add("--spoiled", type=int, default=25, help="how many of them are also spoiled in every way (25)")
    add("--only", nargs="*", help="ways to spoil, by name")
    arguments = command.start(argv)
    unknown = set(arguments.only or ()) - set(SPOILS)
    if unknown:
        command.options.error(f"no way to spoil is called {sorted(unknown)[0]!r}; there are {', '.join(SPOILS)}")
    spoiled = min(arguments.spoiled, arguments.count)
    figures = measure(arguments.bundle, arguments.seed, arguments.count, spoiled, only=arguments.only)
    command.publish(figures, f"{_table(figures)}\n{json.dumps(figures['cost_ms_both_views'])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
