"""From uploaded radiographs to logits: the verbs in order, captured at open and replayed per study.

View 0 is the cervical radiograph, view 1 the lumbar one; view i reads the source image i. What changes between studies
(source sizes, facing, given points) stands in two small buffers that are written before a replay; nothing between the
upload and the logits returns to the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, DecodeSpec
from spinescore.kernels.warp import ROI, WarpSpec
from spinescore.runtime.budget import Boundary, Effort
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, Replay
from spinescore.runtime.engines import Engine
from spinescore.runtime.geometry import mirrored_views
from spinescore.runtime.manifest import HEAD_OUTPUTS, NetworkInput
from spinescore.runtime.networks import HEATMAP_STRIDE, VIEWS, check_localizers, grader_network
from spinescore.runtime.study import REGIONS

__all__ = ["GRADER_TABLE", "LOCALIZER_TABLE", "Pipeline", "Results"]

LOCALIZER_TABLE, GRADER_TABLE = 0, 1  # of the tables that are uploaded with a source


@dataclass(frozen=True, eq=False)
class Results:
    """What replays left, per view of the slice: points (V, 6, 2) of dtype `POINT`, logits by network, marks."""

    points: NDArray[np.void]
    logits: dict[str, NDArray[Any]]
    stages_ms: dict[str, float]

    @property
    def durations_ms(self) -> dict[str, float]:
        """Of the stages between the marks: localize, crop and grade."""
        marks = itertools.pairwise(self.stages_ms.items())
        return {stage: at - before for (_, before), (stage, at) in marks}


class Pipeline:
    """The networks of a bundle on a device. Buffers are allocated here, once, and belong to the device.

    The steps are captured with the usual effort, by default the manifest's, and with another when it is first wanted.
    Nothing of it is run until `run_networks` or a study does that.
    """

    def __init__(self, bundle: Bundle, device: Device[Any], effort: Effort | None = None) -> None:
        localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
        self._device, self._effort = device, effort or Effort(localizer.passes)
        parts = [slice(0, VIEWS)] if localizer.shared else [slice(view, view + 1) for view in range(VIEWS)]
        roles = HEAD_OUTPUTS[grader.head]
        files = [*(localizer.files[REGIONS[part.start]] for part in parts), *(grader.files[role] for role in roles)]
        engines = device.engines([bundle.network(network, device.precisions) for network in files])
        localizers, graders = engines[: len(parts)], engines[len(parts) :]
        check_localizers(localizers, localizer)
        self._localizers = list(zip(localizers, parts, strict=True))
        first = localizers[0]
        self._joints = first.output_shape[0]
        self._whole, self._boxes = (device.allocate((VIEWS,), ROI) for _ in range(2))
        self._views = device.allocate((VIEWS,), VIEW)
        self._shown = localizer.facing  # `boxes` mirrors by its views' facing, which is then not that of `crops`
        self._box_views = self._views if self._shown == "left" else device.allocate((VIEWS,), VIEW)
        self._inputs = device.allocate((VIEWS, *first.input_shape), first.dtype)
        self._heatmaps = device.allocate((VIEWS, *first.output_shape), first.dtype)
        self._points = device.allocate((VIEWS, DISCS, 2), POINT)
        self._warp_input = _warp_spec(localizer.input, LOCALIZER_TABLE)
        self._warp_crops = _warp_spec(grader.input, GRADER_TABLE)
        self._decode = DecodeSpec(localizer.decode, localizer.align, HEATMAP_STRIDE, localizer.channels())
        self._box = BoxSpec(localizer.input.height, localizer.input.width, localizer.box_padding)
        self._networks = [grader_network(grader, device, *named) for named in zip(roles, graders, strict=True)]
        self._boundary: Boundary = _go_on
        self._networks_alone: Replay | None = None
        self._replays: dict[Effort, Replay] = {}
        self.prepare(self._effort)

    @property
    def precision(self) -> str:
        return "+".join(
            dict.fromkeys([self._localizers[0][0].precision, *(n.engine.precision for n in self._networks)])
        )

    @property
    def framework(self) -> str:
        return self._networks[0].engine.framework

    @property
    def engines(self) -> tuple[Engine[Any], ...]:
        return (*(engine for engine, _ in self._localizers), *(network.engine for network in self._networks))

    @property
    def localizers(self) -> int:
        """The number of networks that localize."""
        return len(self._localizers)

    def prepare(self, effort: Effort) -> Replay:
        """Capture the steps with this effort, unless they are."""
        key = replace(effort, apart=False)
        if key not in self._replays:
            self._replays[key] = self._device.capture(partial(self._steps, key))
        return self._replays[key]

    def score(
        self,
        views: slice,
        whole: NDArray[np.void],
        parameters: NDArray[np.void],
        effort: Effort | None = None,
        boundary: Boundary | None = None,
    ) -> Results:
        """Replay for a slice of the views. `whole` (2, dtype `ROI`) and `parameters` (2, dtype `VIEW`) have both.

        `boundary` is asked before each launch, and before each stage where a device runs steps and not a graph of
        them; what it raises ends the study.
        """
        device, effort = self._device, effort or self._effort
        replay = self.prepare(effort)
        device.write(self._whole, whole)
        device.write(self._views, parameters)
        if self._shown != "left":
            device.write(self._box_views, mirrored_views(parameters, self._shown))
        marks_ms: dict[str, float] = {}
        self._boundary = boundary or _go_on
        try:
            for part in _launches(views, effort.apart):
                self._boundary("localize")
                replay(part)
                marks_ms = {stage: marks_ms.get(stage, 0.0) + at for stage, at in device.marks_ms().items()}
        finally:
            self._boundary = _go_on
        points = device.read(self._points[views])
        logits = {network.role: device.read(network.logits[network.rows(views)]) for network in self._networks}
        return Results(points, logits, marks_ms)

    def run_networks(
        self, images: Mapping[str, NDArray[np.float32]] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """Outputs of all networks for given images, and the milliseconds of localizer and grader.

        The networks run as in a study: on its buffers, with its batches, both views at once. `images` has the input of
        each network (N, C, H, W, normalised) under the names of `golden.GoldenNetwork`; without them the networks run
        on what their buffers hold, which makes the first study as quick as the others.
        """
        if self._networks_alone is None:
            self._networks_alone = self._device.capture(self._network_steps)
        ends = self._ends()
        for name, (inputs, _) in ends.items() if images is not None else ():
            with np.errstate(over="ignore"):
                self._device.write(inputs, images[name].astype(inputs.dtype))  # type: ignore[index]
        self._networks_alone(slice(0, VIEWS))
        marks = itertools.pairwise(self._device.marks_ms().items())
        stages_ms = {stage: at - before for (_, before), (stage, at) in marks}
        outputs = {name: self._device.read(output).astype(np.float32) for name, (_, output) in ends.items()}
        return outputs, {"localizer": stages_ms["localize"], "grader": stages_ms["grade"]}

    def evidence(self, whole: NDArray[np.void], parameters: NDArray[np.void]) -> NDArray[np.float64]:
        """Mean peak per region of two views: (2 views, 2 regions), each within [0, 1].

        Outside of the captured steps: asked only where the header does not tell the region or the facing.
        """
        device, both = self._device, slice(0, VIEWS)
        found = np.zeros((VIEWS, len(REGIONS)))
        device.write(self._whole, whole)
        device.warp(self._whole, self._warp_input, self._inputs)
        for region in range(len(REGIONS)):
            device.write(self._views, _with_region(parameters, region))
            if region < len(self._localizers):  # one that serves both regions is asked once
                device.run(self._localizers[region][0], self._inputs, self._heatmaps)
            device.decode(self._heatmaps, self._whole, self._views, self._decode, self._points)
            points = device.read(self._points[both])
            found[:, region] = np.clip(points["confidence"], 0, 1).mean(axis=(1, 2))
        return found

    def crops(self, views: slice) -> dict[str, NDArray[Any]]:
        """By network, what the latest replay cut: (V x 6 x flips, channels, height, width), normalised."""
        return {network.role: self._device.read(network.crops[network.rows(views)]) for network in self._networks}

    def flips(self, role: str) -> tuple[bool, ...]:
        return next(network.spec.flips for network in self._networks if network.role == role)

    def _ends(self) -> dict[str, tuple[Any, Any]]:
        """The buffers for the inputs and outputs of each network."""
        shared = len(self._localizers) == 1
        found = {
            f"localizer {'both' if shared else REGIONS[part.start]}": (self._inputs[part], self._heatmaps[part])
            for _, part in self._localizers
        }
        return found | {f"grader {network.role}": (network.crops, network.logits) for network in self._networks}

    def _network_steps(self, views: slice) -> None:
        device = self._device
        device.mark("start")
        self._localize(views)
        device.mark("localize")
        device.mark("crop")
        self._grade(views)
        device.mark("grade")

    def _localize(self, views: slice) -> None:
        for engine, part in self._localizers:
            rows = slice(max(views.start, part.start), min(views.stop, part.stop))
            if rows.start < rows.stop:
                self._device.run(engine, self._inputs[rows], self._heatmaps[rows])

    def _grade(self, views: slice) -> None:
        for network in self._networks:
            rows = network.rows(views)
            self._device.run(network.engine, network.crops[rows], network.logits[rows])

    def _steps(self, effort: Effort, views: slice) -> None:
        device, rois = self._device, self._whole
        device.mark("start")
        for number in range(effort.passes):
            if number:
                if not self._boundary("second-pass"):
                    break
                device.boxes(self._points[views], self._box_views[views], self._box, self._boxes[views])
                rois = self._boxes
            device.warp(rois[views], _sampled(self._warp_input, effort), self._inputs[views])
            self._localize(views)
            device.decode(self._heatmaps[views], rois[views], self._views[views], self._decode, self._points[views])
        device.mark("localize")
        self._boundary("crop")
        for network in self._networks:
            device.crops(self._points[views], self._views[views], network.spec, network.rois[views])
            device.warp(network.rois[views], _sampled(self._warp_crops, effort), network.crops[network.rows(views)])
        device.mark("crop")
        self._boundary("grade")
        self._grade(views)
        device.mark("grade")


def _warp_spec(size: NetworkInput, table: int) -> WarpSpec:
    return WarpSpec(size.height, size.width, size.antialias, size.mean, size.std, table)


def _sampled(spec: WarpSpec, effort: Effort) -> WarpSpec:
    return spec if effort.antialias else replace(spec, antialias=1)


def _launches(views: slice, apart: bool) -> list[slice]:
    """The slice, or one for each of its views."""
    return [slice(view, view + 1) for view in range(views.start, views.stop)] if apart else [views]


def _go_on(stage: str) -> bool:
    return True


def _with_region(parameters: NDArray[np.void], region: int) -> NDArray[np.void]:
    changed = parameters.copy()
    changed["region"] = region
    return changed
