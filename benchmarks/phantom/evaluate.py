"""Measures how well a bundle scores phantom studies that it was not trained on: points, grades, totals.

    python -m spinescore.benchmarks.phantom.evaluate --seed 1000000 --count 200 --out FILE

Each study is written as DICOM, read and scored as any other; the truth is compared with the report afterwards.
Corners that are not scored (a rejected region) count as wrong, and their points as lost. ONNX Runtime in FP32 scores.
`--also onnxruntime:int8 openvino:bf16` also scores the same studies on other engines and compares them with it; the
difference depends on the kind of CPU, which the record names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement.measures import quadratic_kappa
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.subject import bundle_facts, read_phantom
from spinescore.runtime import Scorer, StudyReport
from spinescore.runtime.scoring.expected import Expected

__all__ = ["SCHEMA", "Against", "Tally", "main"]

SCHEMA = "spinescore.phantom-evaluation/1"
UNSCORED = 4  # the column of the confusion matrix for corners without a grade


@dataclass
class Tally:
    """Reports compared with their truth, added up study by study."""

    confusion: NDArray[np.int64] = field(default_factory=lambda: np.zeros((4, 5), np.int64))  # true, predicted
    errors: list[float] = field(default_factory=list)  # of points, in units of the disc spacing
    totals: list[tuple[int, float | None]] = field(default_factory=list)
    expected: list[tuple[int, Expected]] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)

    def add(self, report: StudyReport, truth: dict[str, Any]) -> None:
        """Compare one study's report with its truth."""
        for region, true in truth["regions"].items():
            scored = report.regions[region]
            centres = np.array([disc["centre_px"] for disc in true["discs"]])
            spacing = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).mean())
            if scored.reject is not None:
                self.rejects.append(f"{truth['seed']} {region}: {scored.reject.code}")
            for disc, mine in zip(true["discs"], scored.discs or [None] * len(centres), strict=True):
                for name in ("centre_px", "anterior_px"):
                    point = (np.inf, np.inf) if mine is None else getattr(mine, name)
                    self.errors.append(float(np.linalg.norm(np.subtract(point, disc[name]))) / spacing)
                grades = [None, None] if mine is None else [corner.grade for corner in mine.corners]
                for corner, grade in zip(disc["corners"], grades, strict=True):
                    self.confusion[corner["grade"], UNSCORED if grade is None else grade] += 1
        self.totals.append((truth["total"]["value"], report.total.value))
        if report.total.expected is not None:
            self.expected.append((truth["total"]["value"], report.total.expected))

    def figures(self) -> dict[str, Any]:
        """Return the figures that the README quotes."""
        errors = np.array(self.errors)
        scored = self.confusion[:, :4]
        close = [total is not None and abs(total - true) <= 4 for true, total in self.totals]
        return {
            "studies": len(self.totals),
            "point_error_median": round(float(np.median(errors)), 5),
            "points_within_quarter": round(float((errors <= 0.25).mean()), 5),
            "accuracy": round(float(np.trace(scored) / self.confusion.sum()), 5),
            "kappa_quadratic": round(quadratic_kappa(scored), 5),
            "totals_within_4": round(float(np.mean(close)), 5),
            "grade_fractions": np.round(self.confusion.sum(1) / self.confusion.sum(), 4).tolist(),
            "confusion": self.confusion.tolist(),
            "expected": self.expected_figures(),
            "rejects": self.rejects,
        }

    def expected_figures(self) -> dict[str, Any]:
        """Return how often the 95 % interval holds the true total, and its sd beside that of the error."""
        if not self.expected:
            return {"studies": 0}
        errors = [total.mean - true for true, total in self.expected]
        held = [total.interval[0] <= true <= total.interval[1] for true, total in self.expected]
        return {
            "studies": len(errors),
            "interval_holds": round(float(np.mean(held)), 5),
            "sd_mean": round(float(np.mean([total.sd for _, total in self.expected])), 3),
            "error_mean": round(float(np.mean(errors)), 3),
            "error_sd": round(float(np.std(errors)), 3),
        }


@dataclass
class Against:
    """Another engine's reports beside those of FP32: grades that differ, and distances of points."""

    tally: Tally = field(default_factory=Tally)
    flips: int = 0
    corners: int = 0
    shifts: list[float] = field(default_factory=list)  # in units of the disc spacing

    def add(self, report: StudyReport, reference: StudyReport, truth: dict[str, Any]) -> None:
        self.tally.add(report, truth)
        for name, region in reference.regions.items():
            centres = np.array([disc.centre_px for disc in region.discs])
            for mine, other in zip(report.regions[name].discs, region.discs, strict=False):
                spacing = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).mean())
                self.shifts.append(float(np.linalg.norm(np.subtract(mine.centre_px, other.centre_px))) / spacing)
                pairs = zip(mine.corners, other.corners, strict=True)
                self.flips += sum(corner.grade != before.grade for corner, before in pairs)
                self.corners += len(other.corners)

    def figures(self) -> dict[str, Any]:
        tally = self.tally.figures()
        shown = ("accuracy", "kappa_quadratic", "point_error_median", "points_within_quarter", "totals_within_4")
        return {
            "corners": self.corners,
            "grade_flips": self.flips,
            "point_shift_median": round(float(np.median(self.shifts)), 5),
            "point_shift_p99": round(float(np.percentile(self.shifts, 99)), 5),
            **{name: tally[name] for name in shown},
        }


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("phantom.evaluate", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--bundle", default="phantom-reference", help="name or folder of the bundle")
    add("--seed", type=int, default=1_000_000, help="first seed (1000000)")
    add("--count", type=int, default=200, help="studies (200)")
    add("--also", nargs="*", default=[], metavar="E:P", help="engines beside FP32, as openvino:int8")
    arguments = command.start(argv)
    tally, others = Tally(), {name: Against() for name in arguments.also}
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer.open(arguments.bundle, "cpu", engine="onnxruntime", precision="fp32"))
        beside = {}
        for name in others:
            engine, _, precision = name.partition(":")
            opened = Scorer.open(arguments.bundle, "cpu", engine=engine, precision=precision, require_acceptance=False)
            beside[name] = stack.enter_context(opened)
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            study, truth = read_phantom(seed)
            reference = scorer.score(study)
            tally.add(reference, truth)
            for name, other in others.items():
                other.add(beside[name].score(study), reference, truth)
        facts = bundle_facts(scorer)
    engines = {"engines": {name: other.figures() for name, other in others.items()}} if others else {}
    command.publish({"bundle": facts, "first_seed": arguments.seed, **tally.figures(), **engines})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
