"""How far an engine may be from the reference (FP32 on ONNX Runtime, on the CPU) on a bundle's golden inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from spinescore.runtime.manifest.bounds import read_share
from spinescore.runtime.manifest.fields import Fields

__all__ = ["Tolerances", "read_tolerances"]


@dataclass(frozen=True)
class Tolerances:
    """The manifest's section `tolerances`. A bundle without it is held to these values.

    What an engine is for decides: where the points lie and which grades come out. The differences of heatmaps and
    logits are wide, and only tell the same network from another.
    """

    heatmap_difference: float = 0.2  # the largest, in shares of the reference's range
    median_shift_px: float = 0.1  # of points, in pixels of the heatmap
    p99_shift_px: float = 1.0
    logit_difference: float = 0.2  # as for heatmaps
    grade_flips: float = 0.005  # share of the corners whose grade changes
    radiograph_total: float = 2.0  # the largest change of one radiograph's total, of 36

    def faults(self, measured: Mapping[str, float]) -> list[str]:
        """Each measured figure that is beyond its tolerance, in words; a figure that was not measured counts as kept.

        These are the criteria for every engine: in the search for an INT8 network, in the acceptance gate and in the
        self-test of a process.
        """
        return [
            f"{name.replace('_', ' ')} {measured[name]:.4g}, at most {most:g}"
            for name, most in asdict(self).items()
            if name in measured and not measured[name] <= most
        ]


_MOST = {"radiograph_total": 36.0}


def read_tolerances(fields: Fields) -> Tolerances:
    """Raises `ValueError` that names the field."""
    names = Tolerances.__dataclass_fields__
    found = Tolerances(
        **{
            name: read_share(fields, name) if name == "grade_flips" else fields.number(name, 0.0, _MOST.get(name, 1e3))
            for name in names
        }
    )
    fields.done()
    return found
