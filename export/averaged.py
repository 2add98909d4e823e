"""Golden pictures for a localizer that runs at several scales or mirrored, and averages its heatmaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.average import AverageSpec, average, mirror
from spinescore.runtime.manifest import Localizer
from spinescore.runtime.scoring.networks import average_spec

__all__ = ["Images", "ScaledImages", "scaled_images"]


@dataclass(frozen=True, eq=False)
class ScaledImages:
    """The same N pictures at every scale, (N, C, H, W) each, the input's own size first.

    `len` and slices work as on an array of the N pictures.
    """

    scales: tuple[NDArray[np.float32], ...]
    spec: AverageSpec

    def __len__(self) -> int:
        return len(self.scales[0])

    def __getitem__(self, part: slice) -> ScaledImages:
        return replace(self, scales=tuple(images[part] for images in self.scales))

    def runs(self) -> Iterator[NDArray[np.float32]]:
        """Yield the network's inputs, run by run in the order of `spec`."""
        flips = len(self.spec.runs) // len(self.scales)
        for images in self.scales:
            yield images
            if flips > 1:
                yield np.ascontiguousarray(mirror(images))

    def average(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the mean heatmaps of all runs' outputs, in float32 as the host device computes it."""
        height, width = outputs[0].shape[2:]
        return average(outputs, self.spec, (height, width), np.float32)


Images = NDArray[np.float32] | ScaledImages


def scaled_images(scales: Sequence[NDArray[np.float32]], localizer: Localizer) -> Images:
    """Return the inputs of all runs of the localizer: the images alone if it runs once."""
    images: Images = scales[0]
    return ScaledImages(tuple(scales), average_spec(localizer)) if localizer.averaging.runs > 1 else images
