"""How often quality findings are raised: on sound phantoms that no bundle was trained on, and on spoiled ones.

    python -m spinescore.benchmarks.quality --out benchmarks/results/quality.json

Each study is written as DICOM, read and scored as any other; a spoiled one is changed in memory before it is scored.
One radiograph is one case. Figures are of phantoms and say nothing of patients. Costs are medians of this machine, by
the wall clock, on one thread.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from spinescore.benchmarks.spoiled import SPOILS, Spoil, Truth
from spinescore.runtime import Scorer, Study, StudyReport, load_study, scorer
from spinescore.runtime.files import write_atomic
from spinescore.runtime.machine.processor import processor_name
from spinescore.runtime.phantom.study import write_study
from spinescore.runtime.reading.quality import picture_findings
from spinescore.runtime.scoring.report import RegionReport
from spinescore.runtime.scoring.scoredquality import of_results
from spinescore.runtime.study import REGIONS, Finding
from spinescore.runtime.text import table

__all__ = ["Cases", "measure"]

_SEED = 1_000_400  # thresholds were set on 1,000,000 to 1,000,299, and bundles are trained below 100,000


@dataclass
class Cases:
    """What was said of the radiographs of one kind."""

    expected: str | None = None
    radiographs: int = 0
    hits: int = 0  # with the code that is expected
    scored: int = 0
    right: int = 0  # corners with the true grade, of 12 for each radiograph
    codes: Counter[str] = field(default_factory=Counter)  # radiographs by code
    by_region: Counter[str] = field(default_factory=Counter)  # hits
    misnamed: Counter[str] = field(default_factory=Counter)  # scored with two discs or more named as another level
    misnamed_said: Counter[str] = field(default_factory=Counter)  # of them with `level-shift`

    def add(self, report: StudyReport, truth: Mapping[str, Truth], below_px: Mapping[str, float] | None = None) -> None:
        """`below_px` is how much lower than their picture's true points lie, where that is known."""
        for region in REGIONS:
            codes = {found.code for found in report.findings if found.region in (region, None)}
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
    """Figures of `sound` studies from seed `first` on, the first `spoiled` of which are spoiled in every way.

    `only` names some of the ways to spoil.
    """
    spoils = {name: spoil for name, spoil in SPOILS.items() if only is None or name in only}
    cases = {"sound": Cases(), **{name: Cases(spoil.code) for name, spoil in spoils.items()}}
    before_ms: list[float] = []
    with Scorer.open(bundle, "cpu", threads=1) as opened, _timed_findings() as after_ms:
        for seed in range(first, first + sound):
            study, truth = _phantom(seed)
            started = time.perf_counter()
            for radiograph in study.radiographs:
                picture_findings(radiograph)
            before_ms.append((time.perf_counter() - started) * 1e3)
            cases["sound"].add(opened.score(study), truth)
            if seed < first + spoiled:
                kept = len(after_ms)
                for name, spoil in spoils.items():
                    cases[name].add(*_score_spoiled(opened, study, truth, spoil, seed))
                del after_ms[kept:]
            if (seed - first) % 10 == 9:
                say(f"{seed - first + 1} of {sound} studies")
        identity = {"name": opened.bundle.manifest.name, "sha256": opened.bundle.sha256}
    return {
        "what": "codes raised on sound and on spoiled phantom radiographs",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "bundle": identity,
        "first_seed": first,
        "machine": f"{processor_name()}, Python {platform.python_version()}, one thread",
        "cost_ms_both_views": {
            "before": _percentiles(before_ms),
            "after": _percentiles(after_ms),
        },
        "cases": {name: found.figures() for name, found in cases.items() if found.radiographs},
    }


def _phantom(seed: int) -> tuple[Study, dict[str, Truth]]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_study(seed, folder)
        study = load_study(path / "cervical.dcm", path / "lumbar.dcm")
        document = json.loads((path / "truth.json").read_text("utf-8"))
        # copied, since they may be mapped from the file, which goes away
        radiographs = tuple(replace(image, pixels=np.array(image.pixels)) for image in study.radiographs)
    return Study(radiographs), {region: Truth.of(found) for region, found in document["regions"].items()}


def _score_spoiled(
    opened: Scorer, study: Study, truth: Mapping[str, Truth], spoil: Spoil, seed: int
) -> tuple[StudyReport, Mapping[str, Truth], dict[str, float] | None]:
    """The report, the truth, and how much lower the true points lie in their picture than before."""
    rng = np.random.default_rng([seed, 7])
    radiographs, keypoints = spoil.make(rng, study.radiographs, truth)
    report = opened.score(radiographs, keypoints=keypoints)
    if spoil.stays == "unknown":
        return report, truth, None
    rows = {image.source: image.rows for image in study.radiographs}
    cut = {str(image.region): float(rows[image.source] - image.rows) for image in radiographs}
    return report, truth, {region: -px if spoil.stays == "below" else 0.0 for region, px in cut.items()}


def _misnamed(result: RegionReport, truth: Truth, below_px: float) -> bool:
    """Whether two discs or more that were found lie by another level's disc, within 0.4 of the step."""
    true = truth.centre + np.array((0.0, below_px))
    others = 0
    for number, disc in enumerate(result.discs):
        if disc.corners[0].status != "unreadable":
            apart = np.linalg.norm(true - disc.centre_px, axis=1)
            others += bool(apart.min() < 0.4 * truth.step_px and apart.argmin() != number)
    return others > 1


@contextmanager
def _timed_findings() -> Iterator[list[float]]:
    """Milliseconds of each look at scored results, while this is open."""
    found: list[float] = []

    def timed(*arguments: Any) -> list[Finding]:
        started = time.perf_counter()
        findings = of_results(*arguments)
        found.append((time.perf_counter() - started) * 1e3)
        return findings

    with patch.object(scorer, "of_results", timed):
        yield found


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 90, 99)} if values else {}


def _table(document: Mapping[str, Any]) -> str:
    rows = []
    for name, found in document["cases"].items():
        misnamed, said = (sum(found[key].values()) for key in ("levels_misnamed", "of_which_level_shift_said"))
        others = ", ".join(f"{code} {rate:.0%}" for code, rate in found["rates"].items() if code != found["expected"])
        hit = "" if found["hit_rate"] is None else f"{found['hit_rate']:.0%}"
        levels = f"{said} of {misnamed}" if misnamed else ""
        row = [name, found["radiographs"], found["expected"] or "none", hit, f"{found['scored']:.0%}", levels, others]
        rows.append(row)
    heads = ["radiographs", "cases", "code expected", "raised", "scored", "levels off, said", "other codes"]
    return table(rows, heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--bundle", default="phantom-reference", help="name or folder of the bundle")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"first seed ({_SEED})")
    parser.add_argument("--count", type=int, default=100, help="sound studies")
    parser.add_argument("--spoiled", type=int, default=25, help="studies of them to spoil in every way")
    parser.add_argument("--only", nargs="*", help="ways to spoil, by name")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    unknown = set(arguments.only or ()) - set(SPOILS)
    if unknown:
        parser.error(f"no way to spoil is called {sorted(unknown)[0]!r}; there are {', '.join(SPOILS)}")
    spoiled = min(arguments.spoiled, arguments.count)
    document = measure(arguments.bundle, arguments.seed, arguments.count, spoiled, only=arguments.only)
    if arguments.out is not None:
        write_atomic(arguments.out, json.dumps(document, indent=1) + "\n")
    print(_table(document))
    print(json.dumps(document["cost_ms_both_views"]))


if __name__ == "__main__":
    main()
