"""Runs a bundle's golden inputs again: compares FP32 here with FP32 at export, and half precision with FP32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.rounding import open_rounded
from spinescore.export.sessions import run_model, run_session, scaled_images
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
    """How the golden outputs agree: FP32 here with the stored ones, and half precision with FP32.

    `fp32_difference`, by network, is in shares of the range. `points`, by localizer, and `grades` are of half
    precision: FP32 with every tensor rounded to half, as a GPU computes it, even if the bundle has no FP16 files.
    `fp16_files` is the difference of those files from FP32 in ONNX Runtime. `alternatives`, by network, is the distance
    of an alternative's points from the bundle's own localizer's, both in FP32. `trust` has a line for each network's
    check against its framework.
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
        moved_little = all(agreement.moves_little(self.tolerances) for agreement in self.points.values())
        return same and moved_little and self.grades.keeps_grades(self.tolerances)


@dataclass(frozen=True, eq=False)
class _Runs:
    """One network's golden outputs: stored, FP32 here, rounded to half, and of its FP16 file if it has one."""

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
            label = f"{golden.name}, {name}" if name else golden.name
            outputs = runs[label] = _run(bundle, golden)
            points[label] = compare_points(outputs.fp32, outputs.half, manifest.localizer, golden.regions)
            if name:
                own = runs[golden.name].fp32
                alternatives[label] = compare_points(own, outputs.fp32, manifest.localizer, golden.regions)
    by_role = {golden.role: _run(bundle, golden) for golden in golden_grader(bundle)}
    grades = compare_grades(
        {role: outputs.fp32 for role, outputs in by_role.items()},
        {role: outputs.half for role, outputs in by_role.items()},
        manifest.grader,
    )
    runs.update({f"grader {role}": outputs for role, outputs in by_role.items()})
    return VerifyReport(
        manifest.name,
        {name: difference_of_range(run.expected, run.fp32) for name, run in runs.items()},
        {name: difference_of_range(run.fp32, run.file) for name, run in runs.items() if run.file is not None},
        points,
        grades,
        manifest.bounds,
        alternatives,
        tuple(trust_lines(manifest)),
    )


def _run(bundle: Bundle, golden: GoldenNetwork) -> _Runs:
    """Run one network's golden inputs. Raises `BundleError`, also for any error of reading a damaged network."""
    scales = list(golden.images().values())
    images = scaled_images(scales, bundle.manifest.localizer) if golden.kind == "localizer" else scales[0]
    path, _ = bundle.network(golden.files, ("fp32",))
    half_file, file = golden.files.get("fp16"), None
    try:
        model = onnx.load(str(path))
        fp32 = run_model(model, images, f"{path.name}: FP32")
        half = run_session(open_rounded(model), images, f"{path.name}: half precision")
        if half_file is not None:
            file = run_model(onnx.load(str(bundle.path(half_file))), images, half_file)
    except SpineScoreError:
        raise
    except Exception as error:
        files = ", ".join(golden.files.values())
        raise BundleError(f"{golden.name} ({files}) cannot be run ({brief(error)}); export the bundle again") from error
    if fp32.shape != golden.expected.shape:
        raise BundleError(f"{path.name} gives {fp32.shape}, the golden file has {golden.expected.shape}; export again")
    return _Runs(golden.expected, fp32, half, file)
