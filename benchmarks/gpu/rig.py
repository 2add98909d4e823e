"""A pipeline on the GPU that replays its graph or queues the same steps, on the same buffers and engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.networks import Subject
from spinescore.benchmarks.gpu.record import Skipped
from spinescore.runtime.devices import Replay
from spinescore.runtime.devices.cuda import CudaDevice
from spinescore.runtime.errors import EngineError
from spinescore.runtime.scoring.pipeline import Pipeline, Results

__all__ = ["Rig", "TwoWays", "answers", "open_rig"]


class TwoWays(CudaDevice):
    """A device that replays captured steps as a graph, or queues them one by one if `replaying` is false.

    Both ways use the same buffers and engines.
    """

    replaying = True

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        replay = super().capture(steps)
        return lambda views: (replay if self.replaying else steps)(views)


@dataclass(frozen=True)
class Rig:
    """A subject's pipeline on a device."""

    subject: Subject
    device: TwoWays
    pipeline: Pipeline
    largest_image_px: int


@contextmanager
def open_rig(subject: Subject, largest_image_px: int) -> Iterator[Rig]:
    """Open a rig. Raises `Skipped` if no engine runs the subject's networks."""
    device = TwoWays(largest_image_px=largest_image_px, open_engine=subject.open_engine)
    try:
        try:
            pipeline = Pipeline(subject.bundle, device)
        except EngineError as error:
            raise Skipped(f"no engine runs these networks here: {error}") from error
        yield Rig(subject, device, pipeline, largest_image_px)
    finally:
        device.close()


def answers(results: Results) -> list[NDArray[Any]]:
    """Return points and logits as plain arrays."""
    plain = results.points.view(np.float32).reshape(len(results.points), -1)
    return [plain, *results.logits.values()]
