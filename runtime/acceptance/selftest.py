"""The self-test: does this engine, in this process, compute what the bundle's golden inputs say?

An acceptance record says what an engine computed in the processes of the gate. An engine can still compute wrongly in
another process: OpenVINO 2026.4.1 did so in every second one (`spinescore.benchmarks.openvino_streams`). So every
process runs golden inputs before it gives out grades, as a study runs (`Pipeline.run_networks`), and compares the
outputs with the expected ones.

Two radiographs are run, and the tolerances are for all golden inputs. What is counted (grades that flip, points that
move far) may therefore be as many here as the tolerances allow in all of them: an engine fails where the gate would
have refused it however well it did on the others. A median cannot be judged that way, and is left to the gate.
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

_FAR_SHARE = 0.01  # of the points, which may move farther than the tolerance for the 99th percentile

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class SelfTest:
    """The golden inputs for one run of a bundle's networks, and what they must give."""

    bundle: Bundle
    localizers: tuple[GoldenNetwork, ...]
    graders: tuple[GoldenNetwork, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> SelfTest | None:
        """The self-test of a bundle, None if it has no golden inputs. Raises `BundleError` if they are damaged."""
        if not has_golden(bundle):
            return None
        return cls(
            bundle, tuple(golden_localizers(bundle, one_study=True)), tuple(golden_grader(bundle, one_study=True))
        )

    def run(self, pipeline: Pipeline, boundary: Boundary | None = None) -> tuple[list[str], dict[str, float]]:
        """Run it, and return what is beyond the tolerances, in words, and what `Pipeline.run_networks` took.

        Raises `EngineError` if a network fails, and what `boundary` raises.
        """
        images: dict[str, NDArray[np.float32]] = {}
        for network in (*self.localizers, *self.graders):
            images |= network.images(_rows(network))
        outputs, took_ms = pipeline.run_networks(images, boundary)
        return self.faults(outputs), took_ms

    def faults(self, outputs: Outputs) -> list[str]:
        """What in the outputs, by the networks' names, is beyond the tolerances, in words."""
        return [*self._localizer_faults(outputs), *self._grader_faults(outputs)]

    def _localizer_faults(self, outputs: Outputs) -> list[str]:
        bounds = self.bundle.manifest.bounds
        far, allowed, difference = 0, 0, 0.0
        for network in self.localizers:
            found = outputs[network.name]
            difference = max(difference, difference_of_range(network.expected, found))
            shifts = point_shifts(network.expected, found, self.bundle.manifest.localizer, network.regions)
            far += int((~(shifts <= bounds.p99_shift_px)).sum())
            allowed += math.floor(_FAR_SHARE * 2 * DISCS * network.stored)
        faults = bounds.faults({"heatmap_difference": difference})
        if far > allowed:
            faults.append(f"{far} points shift by more than {bounds.p99_shift_px:g} px, at most {allowed} may")
        return faults

    def _grader_faults(self, outputs: Outputs) -> list[str]:
        bounds = self.bundle.manifest.bounds
        expected, found, difference = {}, {}, 0.0
        for network in self.graders:
            rows = _rows(network)
            whole = network.expected.copy()
            whole[rows] = outputs[network.name]
            difference = max(difference, difference_of_range(network.expected, whole))
            expected[network.role], found[network.role] = network.expected[rows], outputs[network.name]
        grades = compare_grades(expected, found, self.bundle.manifest.grader)
        first = self.graders[0]
        per_disc = first.batch // (len(REGIONS) * DISCS)
        allowed = math.floor(bounds.grade_flips * 2 * first.stored / per_disc)
        faults = bounds.faults({"logit_difference": difference, "radiograph_total": grades.largest_total_change})
        if grades.flips > allowed:
            faults.append(f"{grades.flips} of {grades.corners} grades flip, at most {allowed} may")
        return faults


def _rows(network: GoldenNetwork) -> NDArray[np.intp]:
    """Which of the pictures that were read stand for one study; a bundle with fewer gives some of them twice."""
    return np.arange(network.batch) % len(network.pictures)
