"""The self-test: does this engine compute a bundle's golden outputs in this process?

An acceptance record covers the processes of the gate. An engine can still compute wrongly in another process: OpenVINO
2026.4.1 did so in every second one. So every process runs golden inputs as a study runs (`Pipeline.run_networks`)
before it gives out grades, and compares the outputs with the expected ones.

Two radiographs are run, while the tolerances are for all golden inputs. Therefore as many grades may flip, and points
move far, in these two as the tolerances allow in all of them. An engine that fails here would fail the gate even if all
other inputs agreed exactly. A median cannot be judged in this way, and is left to the gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS
from spinescore.runtime.acceptance.comparison import compare_grades, difference_of_range, point_shifts
from spinescore.runtime.acceptance.golden import GoldenNetwork, golden_grader, golden_localizers, has_golden
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.scoring.budget import Boundary
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.runtime.scoring.pipeline import Pipeline

__all__ = ["SelfTest"]

_FAR_SHARE = 0.01  # of the points; they may move farther than the tolerance for the 99th percentile

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class SelfTest:
    """The golden inputs for one run of a bundle's networks, with the expected outputs."""

    bundle: Bundle
    localizers: tuple[GoldenNetwork, ...]
    graders: tuple[GoldenNetwork, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> SelfTest | None:
        """Return the self-test of a bundle, None without golden inputs. Raises `BundleError` if they are damaged."""
        if not has_golden(bundle):
            return None
        return cls(
            bundle, tuple(golden_localizers(bundle, one_study=True)), tuple(golden_grader(bundle, one_study=True))
        )

    def run(self, pipeline: Pipeline, boundary: Boundary | None = None) -> tuple[list[str], dict[str, float]]:
        """Run it; return what is beyond the tolerances, in words, and the milliseconds of localizer and grader.

        Raises `EngineError` if a network fails, `BundleError` if the golden outputs have another shape, and what
        `boundary` raises.
        """
        images: dict[str, NDArray[np.float32]] = {}
        for network in (*self.localizers, *self.graders):
            images |= network.images(_rows(network))
        outputs, took_ms = pipeline.run_networks(images, boundary)
        return self.faults(outputs), took_ms

    def faults(self, outputs: Outputs) -> list[str]:
        """Return what is beyond the tolerances, in words; `outputs` are by network. Raises `BundleError`."""
        return [*self._localizer_faults(outputs), *self._grader_faults(outputs)]

    def _localizer_faults(self, outputs: Outputs) -> list[str]:
        bounds = self.bundle.manifest.bounds
        far, allowed, difference = 0, 0, 0.0
        for network in self.localizers:
            output = network.checked(outputs)
            difference = max(difference, difference_of_range(network.expected, output))
            shifts = point_shifts(network.expected, output, self.bundle.manifest.localizer, network.regions)
            far += int((~(shifts <= bounds.p99_shift_px)).sum())
            allowed += math.floor(_FAR_SHARE * 2 * DISCS * network.stored)
        faults = bounds.faults({"heatmap_difference": difference})
        if far > allowed:
            faults.append(f"{far} points shift by more than {bounds.p99_shift_px:g} px, at most {allowed} may")
        return faults

    def _grader_faults(self, outputs: Outputs) -> list[str]:
        bounds = self.bundle.manifest.bounds
        expected, actual, difference = {}, {}, 0.0
        for network in self.graders:
            rows = _rows(network)
            whole = network.expected.copy()
            whole[rows] = network.checked(outputs)
            difference = max(difference, difference_of_range(network.expected, whole))
            expected[network.role], actual[network.role] = network.expected[rows], outputs[network.name]
        grades = compare_grades(expected, actual, self.bundle.manifest.grader)
        first = self.graders[0]
        per_disc = first.batch // (len(REGIONS) * DISCS)
        allowed = math.floor(bounds.grade_flips * 2 * first.stored / per_disc)
        faults = bounds.faults({"logit_difference": difference, "radiograph_total": grades.largest_total_change})
        if grades.flips > allowed:
            faults.append(f"{grades.flips} of {grades.corners} grades flip, at most {allowed} may")
        return faults


def _rows(network: GoldenNetwork) -> NDArray[np.intp]:
    """Return the numbers of the pictures that stand for one study; if there are too few, some are used twice."""
    return np.arange(network.batch) % len(network.pictures)
