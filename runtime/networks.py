"""The networks of a bundle for the pipeline: checked against the manifest, the grader's with their buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spinescore.kernels.decode import DISCS, CropSpec
from spinescore.kernels.warp import ROI
from spinescore.runtime.devices import Device
from spinescore.runtime.engines import Engine
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import HEAD_OUTPUTS, Grader, Localizer
from spinescore.runtime.study import REGIONS

__all__ = ["FLIPS", "HEATMAP_STRIDE", "VIEWS", "GraderNetwork", "check_localizers", "grader_network"]

VIEWS = len(REGIONS)
HEATMAP_STRIDE = 4

# Which crops a network of the grader sees of each disc: False as it is (for the lower vertebra's corner, or for both),
# True flipped vertically (for the upper vertebra's corner); the upper corner's crop comes first.
FLIPS = {"corners8": (False,), "bridge2": (False,), "corners4": (True, False), "grades3": (True, False)}


@dataclass(frozen=True)
class GraderNetwork:
    """One network of the grader and its buffers, all with six rows per view (times the flips)."""

    role: str
    engine: Engine[Any]
    spec: CropSpec
    rois: Any
    crops: Any
    logits: Any

    def rows(self, views: slice) -> slice:
        return slice(views.start * self.per_view, views.stop * self.per_view)

    @property
    def per_view(self) -> int:
        return DISCS * len(self.spec.flips)


def check_localizers(engines: Sequence[Engine[Any]], localizer: Localizer) -> None:
    """Each is as the manifest has it, and all are alike."""
    for engine in engines:
        _check_localizer(engine, localizer)
        if (engine.output_shape, engine.dtype) != (engines[0].output_shape, engines[0].dtype):
            raise BundleError(
                f"The localizers {engines[0].name} and {engine.name} differ in heatmaps or precision; "
                "export them with the same."
            )


def _check_localizer(engine: Engine[Any], localizer: Localizer) -> None:
    size = localizer.input
    _check_shape(engine, "image", engine.input_shape, (size.channels, size.height, size.width))
    highest = max(keypoint.channel for keypoints in localizer.keypoints.values() for keypoint in keypoints)
    joints = engine.output_shape[0]
    wanted = (max(joints, highest + 1), size.height // HEATMAP_STRIDE, size.width // HEATMAP_STRIDE)
    _check_shape(engine, "heatmaps", engine.output_shape, wanted)


def grader_network(grader: Grader, device: Device[Any], role: str, engine: Engine[Any]) -> GraderNetwork:
    outputs, size = HEAD_OUTPUTS[grader.head][role], grader.input
    _check_shape(engine, "image", engine.input_shape, (size.channels, size.height, size.width))
    _check_shape(engine, "logits", engine.output_shape, (outputs,))
    spec = _crop_spec(grader, FLIPS[f"{role}{outputs}"])
    rows = VIEWS * DISCS * len(spec.flips)
    return GraderNetwork(
        role,
        engine,
        spec,
        rois=device.allocate((VIEWS, DISCS, len(spec.flips)), ROI),
        crops=device.allocate((rows, *engine.input_shape), engine.dtype),
        logits=device.allocate((rows, *engine.output_shape), engine.dtype),
    )


def _check_shape(engine: Engine[Any], tensor: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise BundleError(
            f"Network {engine.name}: tensor {tensor} is {found} per image, the manifest describes {wanted}; export the "
            "bundle again."
        )


def _crop_spec(grader: Grader, flips: tuple[bool, ...]) -> CropSpec:
    return CropSpec(grader.input.height, grader.crop.unit, grader.crop.extent, grader.crop.anterior, flips)
