"""Launches every kernel of a study once, at the sizes of `timing`, for a program that watches it."""

from __future__ import annotations

from typing import Any

from spinescore.benchmarks.gpu.inputs import timed_study
from spinescore.benchmarks.gpu.record import Figures, Record
from spinescore.benchmarks.gpu.timing import LOCALIZER_INPUT, study_kernels
from spinescore.runtime.devices.cuda import CudaDevice

__all__ = ["run"]


def run(record: Record, options: Any) -> None:
    """Run the part `launches`."""

    def launch() -> Figures:
        study = timed_study(options.quick, LOCALIZER_INPUT)
        device = CudaDevice(largest_image_px=study.sources[0].pixels.size)
        try:
            kernels = study_kernels(device, study)
            for queue, _ in kernels.values():
                queue()
            device.synchronise()
        finally:
            device.close()
        return {"kernels": list(kernels)}

    record.check("launches", launch)
