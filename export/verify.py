"""A bundle's golden inputs, run again: does FP32 give here what it gave at export, and does half precision agree?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.averaged import scaled_images
from spinescore.export.rounding import round_like_half
from spinescore.export.sessions import run_model
from spinescore.runtime.acceptance.comparison import (
    GradeAgreement,
    PointAgreement,
    compare_grades,
    compare_points,
    difference_of_range,
)
from spinescore.runtime.acceptance.golden import GoldenNetwork, golden_grader, golden_localizers
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.provenance import trust_lines
from spinescore.runtime.errors import BundleError, SpineScoreError
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.text import brief

__all__ = ["VerifyReport", "verify_bundle"]

MAX_FP32_DIFFERENCE = 1e-3  # of the range: another machine's order of additions, and golden heatmaps stored as half


@dataclass(frozen=True)
class VerifyReport:
    """`fp32_difference` by network, in shares of the range; half precision against FP32 by localizer, and in grades.

    Half precision is FP32 with every tensor rounded to half, as a GPU computes it, whether or not the bundle has FP16
    files; `fp16_files` is how far those are from FP32 where ONNX Runtime runs them. `alternatives` by network: how far
    from the points of the bundle's own localizer an alternative finds them, both in FP32. `trust`: what the provenance
    says of a check against the framework, a line each.
    """

    bundle: str
    fp32_difference: dict[str, float]
    fp16_files: dict[str, float]
    points: dict[str, PointAgreement]
    grades: GradeAgreement
    tolerances: Tolerances
    alternatives: dict[str, PointAgreement]
    trust: tuple[str, ...]

    @property
    def passed(self) -> bool:
        same = all(value <= MAX_FP32_DIFFERENCE for value in self.fp32_difference.values())
        moved_little = all(found.moves_little(self.tolerances) for found in self.points.values())
        return same and moved_little and self.grades.keeps_grades(self.tolerances)


@dataclass(frozen=True, eq=False)
class _Runs:
    """One network's golden outputs: as stored, FP32 here, rounded to half, and those of its FP16 file if it has one."""

    expected: NDArray[np.float32]
    fp32: NDArray[np.float32]
    half: NDArray[np.float32]
    file: NDArray[np.float32] | None


def verify_bundle(path: str | Path) -> VerifyReport:
    """Open the bundle (which checks its files' hashes) and run its golden inputs through ONNX Runtime.

    Raises `BundleError` for a bundle that is altered or has no golden inputs.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    points, runs, alternatives = {}, {}, {}
    for name in manifest.localizer.names:
        for golden in golden_localizers(bundle.with_localizer(name)):
            called = f"{golden.name}, {name}" if name else golden.name
            found = runs[called] = _run(bundle, golden)
            points[called] = compare_points(found.fp32, found.half, manifest.localizer, golden.regions)
            if name:
                own = runs[golden.name].fp32
                alternatives[called] = compare_points(own, found.fp32, manifest.localizer, golden.regions)
    by_role = {golden.role: _run(bundle, golden) for golden in golden_grader(bundle)}
    grades = compare_grades(
        {role: found.fp32 for role, found in by_role.items()},
        {role: found.half for role, found in by_role.items()},
        manifest.grader,
    )
    runs.update({f"grader {role}": found for role, found in by_role.items()})
    return VerifyReport(
        manifest.name,
        {name: difference_of_range(found.expected, found.fp32) for name, found in runs.items()},
        {name: difference_of_range(found.fp32, found.file) for name, found in runs.items() if found.file is not None},
        points,
        grades,
        manifest.bounds,
        alternatives,
        tuple(trust_lines(manifest)),
    )


def _run(bundle: Bundle, golden: GoldenNetwork) -> _Runs:
    """Raises `BundleError`, also for whatever a network that is none makes its readers raise."""
    try:
        return _ran(bundle, golden)
    except SpineScoreError:
        raise
    except Exception as error:
        files = ", ".join(golden.files.values())
        raise BundleError(f"{golden.name} ({files}) cannot be run ({brief(error)}); export the bundle again") from error


def _ran(bundle: Bundle, golden: GoldenNetwork) -> _Runs:
    scales = list(golden.images().values())
    images = scaled_images(scales, bundle.manifest.localizer) if golden.kind == "localizer" else scales[0]
    path, _ = bundle.network(golden.files, ("fp32",))
    model = onnx.load(str(path))
    fp32 = run_model(model, images, f"{path.name}: FP32")
    half = run_model(round_like_half(model), images, f"{path.name}: half precision")
    if fp32.shape != golden.expected.shape:
        raise BundleError(
            f"{path.name} gives {fp32.shape}, the golden inputs expect {golden.expected.shape}; export again"
        )
    file = None
    if "fp16" in golden.files:
        file = run_model(onnx.load(str(bundle.path(golden.files["fp16"]))), images, f"{golden.files['fp16']}")
    return _Runs(golden.expected, fp32, half, file)
