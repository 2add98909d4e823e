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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from spinescore.benchmarks.phantom.study import write_study
from spinescore.benchmarks.spoiled import SPOILS, Spoil, Truth
from spinescore.runtime import Scorer, Study, StudyReport, load_study, scorer
from spinescore.runtime.output import table, write_atomic
from spinescore.runtime.processor import processor_name
from spinescore.runtime.quality import of_picture
from spinescore.runtime.scoredquality import of_results
from spinescore.runtime.study import REGIONS, Finding

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

    def add(self, report: StudyReport, truth: Mapping[str, Truth]) -> None:
        for region in REGIONS:
            codes = {found.code for found in report.findings if found.region in (region, None)}
            self.radiographs += 1
            self.hits += self.expected in codes
            self.codes.update(codes)
            result = report.regions[region]
            self.scored += result.status == "scored"
            grades = [corner.grade for disc in result.discs for corner in disc.corners]
            self.right += sum(a == b for a, b in zip(grades, truth[region].grades, strict=False))

    def figures(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            "radiographs": self.radiographs,
            "hit_rate": None if self.expected is None else round(self.hits / self.radiographs, 4),
            "scored": round(self.scored / self.radiographs, 4),
            "corners_right_of_scored": round(self.right / (12 * self.scored), 4) if self.scored else None,
            "rates": {code: round(count / self.radiographs, 4) for code, count in sorted(self.codes.items())},
        }


def measure(bundle: str, first: int, sound: int, spoiled: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Figures of `sound` studies from seed `first` on, the first `spoiled` of which are spoiled in every way."""
    cases = {"sound": Cases(), **{name: Cases(spoil.code) for name, spoil in SPOILS.items()}}
    before_ms: list[float] = []
    with Scorer.open(bundle, "cpu", threads=1) as opened, _timed_findings() as after_ms:
        for seed in range(first, first + sound):
            study, truth = _phantom(seed)
            started = time.perf_counter()
            for radiograph in study.radiographs:
                of_picture(radiograph)
            before_ms.append((time.perf_counter() - started) * 1e3)
            cases["sound"].add(opened.score(study), truth)
            if seed < first + spoiled:
                kept = len(after_ms)
                for name, spoil in SPOILS.items():
                    cases[name].add(_score_spoiled(opened, study, truth, spoil, seed), truth)
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


def _score_spoiled(opened: Scorer, study: Study, truth: Mapping[str, Truth], spoil: Spoil, seed: int) -> StudyReport:
    rng = np.random.default_rng([seed, 7])
    radiographs, keypoints = spoil.make(rng, study.radiographs, truth)
    return opened.score(radiographs, keypoints=keypoints)


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
        others = ", ".join(f"{code} {rate:.0%}" for code, rate in found["rates"].items() if code != found["expected"])
        hit = "" if found["hit_rate"] is None else f"{found['hit_rate']:.0%}"
        rows.append([name, found["radiographs"], found["expected"] or "none", hit, f"{found['scored']:.0%}", others])
    return table(rows, ["radiographs", "cases", "code expected", "raised", "scored", "other codes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--bundle", default="phantom-reference", help="name or folder of the bundle")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"first seed ({_SEED})")
    parser.add_argument("--count", type=int, default=100, help="sound studies")
    parser.add_argument("--spoiled", type=int, default=25, help="studies of them to spoil in every way")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    document = measure(arguments.bundle, arguments.seed, arguments.count, min(arguments.spoiled, arguments.count))
    if arguments.out is not None:
        write_atomic(arguments.out, json.dumps(document, indent=1) + "\n")
    print(_table(document))
    print(json.dumps(document["cost_ms_both_views"]))


if __name__ == "__main__":
    main()
