"""How far an engine may be from the reference (FP32 on ONNX Runtime, on the CPU) on a bundle's golden inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from spinescore.runtime.fields import Within
from spinescore.runtime.manifest.inputs import Share

__all__ = ["Tolerances"]

_Bound = Annotated[float, Within(0.0, 1e3)]


@dataclass(frozen=True)
class Tolerances:
    """The manifest's section `tolerances`. A bundle without it is held to these values.

    The tight bounds are for the results: the places of the points, and the grades. The bounds for heatmaps and logits
    are wide, and only show that it is the same network.
    """

    heatmap_difference: _Bound = 0.2  # the largest, in shares of the reference's range
    median_shift_px: _Bound = 0.1  # of points, in pixels of the heatmap
    p99_shift_px: _Bound = 1.0
    logit_difference: _Bound = 0.2  # as for heatmaps
    grade_flips: Share = 0.005  # share of the corners whose grade changes
    radiograph_total: Annotated[float, Within(0.0, 36.0)] = 2.0  # the largest change of one radiograph's total, of 36

    def faults(self, measured: Mapping[str, float]) -> list[str]:
        """Return each measured figure beyond its tolerance, in words; figures that were not measured pass.

        These are the criteria for every engine: in the search for an INT8 network, in the acceptance gate and in the
        self-test of a process.
        """
        return [
            f"{name.replace('_', ' ')} {measured[name]:.4g}, at most {most:g}"
            for name, most in asdict(self).items()
            if name in measured and not measured[name] <= most
        ]
