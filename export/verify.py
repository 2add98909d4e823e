"""A bundle's golden inputs, run again: does FP32 give here what it gave at export, and does half precision agree?"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.checks import (
    GradeAgreement,
    PointAgreement,
    compare_grades,
    compare_points,
    difference_of_range,
)
from spinescore.export.golden import normalised
from spinescore.export.rounding import round_like_half
from spinescore.export.sessions import run_model
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Files, Localizer, NetworkInput

__all__ = ["VerifyReport", "verify_bundle"]

MAX_FP32_DIFFERENCE = 1e-3  # of the range: another machine's order of additions, and golden heatmaps stored as half


@dataclass(frozen=True)
class VerifyReport:
    """`fp32_difference` by network, in shares of the range; half precision against FP32 by localizer, and in grades.

    Half precision is FP32 with every tensor rounded to half, as a GPU computes it, whether or not the bundle has FP16
    files; `fp16_files` is how far those are from FP32 where ONNX Runtime runs them.
    """

    bundle: str
    fp32_difference: dict[str, float]
    fp16_files: dict[str, float]
    points: dict[str, PointAgreement]
    grades: GradeAgreement

    @property
    def passed(self) -> bool:
        same = all(value <= MAX_FP32_DIFFERENCE for value in self.fp32_difference.values())
        return same and self.grades.within_bounds and all(found.within_bounds for found in self.points.values())


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
    localizer, grader = manifest.localizer, manifest.grader
    golden = {kind: _golden(bundle, kind) for kind in ("localizer", "grader")}
    points, runs = {}, {}
    for role, files in _localizer_files(localizer).items():
        name = f"localizer {role}"
        runs[name] = _run(bundle, golden["localizer"], role, files, localizer.input)
        regions = _array(golden["localizer"], f"region_{role}", bundle)
        points[name] = compare_points(runs[name].fp32, runs[name].half, localizer, regions)
    by_role = {role: _run(bundle, golden["grader"], role, files, grader.input) for role, files in grader.files.items()}
    grades = compare_grades(
        {role: found.fp32 for role, found in by_role.items()},
        {role: found.half for role, found in by_role.items()},
        grader,
    )
    runs.update({f"grader {role}": found for role, found in by_role.items()})
    return VerifyReport(
        manifest.name,
        {name: difference_of_range(found.expected, found.fp32) for name, found in runs.items()},
        {name: difference_of_range(found.fp32, found.file) for name, found in runs.items() if found.file is not None},
        points,
        grades,
    )


def _localizer_files(localizer: Localizer) -> dict[str, Files]:
    """By the role that golden inputs are filed under: `both`, or one for each region."""
    if localizer.shared:
        return {"both": localizer.files["cervical"]}
    return {str(region): files for region, files in localizer.files.items()}


def _run(bundle: Bundle, golden: dict[str, NDArray[Any]], role: str, files: Files, size: NetworkInput) -> _Runs:
    images = normalised(_array(golden, f"image_{role}", bundle), size)
    expected = _array(golden, f"expected_{role}", bundle).astype(np.float32)
    path, _ = bundle.network(files, ("fp32",))
    model = onnx.load(str(path))
    fp32 = run_model(model, images, f"{path.name}: FP32")
    half = run_model(round_like_half(model), images, f"{path.name}: half precision")
    if fp32.shape != expected.shape:
        raise BundleError(f"{path.name} gives {fp32.shape}, the golden inputs expect {expected.shape}; export again")
    file = None
    if "fp16" in files:
        file = run_model(onnx.load(str(bundle.path(files["fp16"]))), images, f"{files['fp16']}")
    return _Runs(expected, fp32, half, file)


def _golden(bundle: Bundle, kind: str) -> dict[str, NDArray[Any]]:
    if kind not in bundle.manifest.golden:
        raise BundleError(f"bundle {bundle.manifest.name} has no golden inputs for the {kind}; export it again")
    name = bundle.manifest.golden[kind]
    try:
        with np.load(io.BytesIO(bundle.path(name).read_bytes()), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f"bundle {bundle.manifest.name}: {name} is no golden file ({error}); export again") from error


def _array(golden: dict[str, NDArray[Any]], name: str, bundle: Bundle) -> NDArray[Any]:
    if name not in golden:
        raise BundleError(f"bundle {bundle.manifest.name}: its golden inputs lack {name}; export it again")
    return golden[name]
