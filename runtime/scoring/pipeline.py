"""From uploaded radiographs to logits: the verbs in order, captured at open and replayed per study.

View 0 is the cervical radiograph, view 1 the lumbar one; view i reads the source image i. What changes between studies
(source sizes, facing, given points) stands in two small buffers that are written before a replay; nothing between the
upload and the logits returns to the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, POINT, VIEW, DecodeSpec
from spinescore.kernels.warp import WarpSpec
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, Replay
from spinescore.runtime.engines import Engine
from spinescore.runtime.manifest import HEAD_OUTPUTS
from spinescore.runtime.scoring.budget import Boundary, Effort
from spinescore.runtime.scoring.geometry import mirrored_views, scaled_rois
from spinescore.runtime.scoring.networks import (
    HEATMAP_STRIDE,
    LOCALIZER_TABLE,
    VIEWS,
    LocalizerRuns,
    average_spec,
    check_localizers,
    grader_network,
    localizer_runs,
    scaled_name,
    warp_spec,
)
from spinescore.runtime.study import REGIONS

__all__ = ["GRADER_TABLE", "LOCALIZER_TABLE", "Pipeline", "Results"]

GRADER_TABLE = 1  # of the tables that are uploaded with a source


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

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        effort: Effort | None = None,
        before: Callable[[str], None] | None = None,
    ) -> None:
        """`before` is told what comes next: each network that is loaded. What it raises ends the opening."""
        localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
        self._device = device
        self._effort = effort or Effort(localizer.passes, test_time=localizer.averaging.runs > 1)
        parts = [slice(0, VIEWS)] if localizer.shared else [slice(view, view + 1) for view in range(VIEWS)]
        roles = HEAD_OUTPUTS[grader.head]
        files = [*(localizer.files[REGIONS[part.start]] for part in parts), *(grader.files[role] for role in roles)]
        engines = device.engines([bundle.network(network, device.precisions) for network in files], before)
        localizers, graders = engines[: len(parts)], engines[len(parts) :]
        check_localizers(localizers, localizer)
        self._localizers = list(zip(localizers, parts, strict=True))
        self._runs = localizer_runs(localizer, device, localizers[0])
        self._average = average_spec(localizer)
        self._averages = len(self._average.runs) > 1
        base = self._runs[0].heatmaps
        self._heatmaps = device.allocate(base.shape, base.dtype) if self._averages else base  # of all runs
        self._views = device.allocate((VIEWS,), VIEW)
        self._shown = localizer.facing  # `boxes` mirrors by its views' facing, which is then not that of `crops`
        self._box_views = self._views if self._shown == "left" else device.allocate((VIEWS,), VIEW)
        self._points = device.allocate((VIEWS, DISCS, 2), POINT)
        self._warp_crops = warp_spec(grader.input, GRADER_TABLE)
        self._decode = DecodeSpec(localizer.decode, localizer.align, HEATMAP_STRIDE, localizer.channels())
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
        for runs in self._runs:
            device.write(runs.whole, scaled_rois(whole, runs.scale))
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
        self, images: Mapping[str, NDArray[np.float32]] | None = None, boundary: Boundary | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """Outputs of all networks for given images, and the milliseconds of localizer and grader.

        The networks run as in a study: on its buffers, with its batches, both views at once. `images` has the inputs of
        each network (N, C, H, W, normalised) as `golden.GoldenNetwork.images` names them; without them the networks run
        on what their buffers hold, which makes the first study as quick as the others. A localizer's output is the mean
        of all its runs' heatmaps. What `boundary` raises between the networks of a device without graphs ends the run.
        """
        if self._networks_alone is None:
            self._networks_alone = self._device.capture(self._network_steps)
        inputs, outputs = self._ends()
        for name, buffer in inputs.items() if images is not None else ():
            with np.errstate(over="ignore"):
                self._device.write(buffer, images[name].astype(buffer.dtype))  # type: ignore[index]
        self._boundary = boundary or _go_on
        try:
            self._boundary("localize")
            self._networks_alone(slice(0, VIEWS))
        finally:
            self._boundary = _go_on
        marks = itertools.pairwise(self._device.marks_ms().items())
        stages_ms = {stage: at - before for (_, before), (stage, at) in marks}
        found = {name: self._device.read(buffer).astype(np.float32) for name, buffer in outputs.items()}
        return found, {"localizer": stages_ms["localize"], "grader": stages_ms["grade"]}

    def evidence(self, whole: NDArray[np.void], parameters: NDArray[np.void]) -> NDArray[np.float64]:
        """Mean peak per region of two views: (2 views, 2 regions), each within [0, 1]."""
        points = self.look(whole, parameters)
        found: NDArray[np.float64] = np.clip(points["confidence"].astype(np.float64), 0, 1).mean(axis=(2, 3)).T
        return found

    def look(self, whole: NDArray[np.void], parameters: NDArray[np.void]) -> NDArray[np.void]:
        """Each region's points in two views, from one pass: (2 regions, 2 views, 6, 2) of dtype `POINT`.

        Outside of the captured steps: asked only if the header does not tell the region or the facing, or in doubt. It
        is of one run, at the input's own size.
        """
        device, both, base = self._device, slice(0, VIEWS), self._runs[0]
        found = np.zeros((len(REGIONS), VIEWS, DISCS, 2), POINT)
        device.write(base.whole, whole)
        device.warp(base.whole, base.warp, base.inputs)
        for region in range(len(REGIONS)):
            device.write(self._views, _with_region(parameters, region))
            if region < len(self._localizers):  # one that serves both regions is asked once
                device.run(self._localizers[region][0], base.inputs, base.heatmaps)
            device.decode(base.heatmaps, base.whole, self._views, self._decode, self._points)
            found[region] = device.read(self._points[both])
        return found

    def crops(self, views: slice) -> dict[str, NDArray[Any]]:
        """By network, what the latest replay cut: (V x 6 x flips, channels, height, width), normalised."""
        return {network.role: self._device.read(network.crops[network.rows(views)]) for network in self._networks}

    def flips(self, role: str) -> tuple[bool, ...]:
        return next(network.spec.flips for network in self._networks if network.role == role)

    def _ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The buffers for inputs and for outputs, by network; a localizer has an input for each scale."""
        shared = len(self._localizers) == 1
        inputs: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        for _, part in self._localizers:
            name = f"localizer {'both' if shared else REGIONS[part.start]}"
            inputs |= {scaled_name(name, runs.scale): runs.inputs[part] for runs in self._runs}
            outputs[name] = self._heatmaps[part]
        for network in self._networks:
            inputs[f"grader {network.role}"], outputs[f"grader {network.role}"] = network.crops, network.logits
        return inputs, outputs

    def _network_steps(self, views: slice) -> None:
        device = self._device
        device.mark("start")
        for runs in self._runs:
            self._infer(runs, views, flip=True)
        self._merge(views)
        device.mark("localize")
        device.mark("crop")
        self._boundary("grade")
        self._grade(views)
        device.mark("grade")

    def _infer(self, runs: LocalizerRuns, views: slice, flip: bool) -> None:
        """Run the localizer at one scale; if that is asked for, on the mirrored input besides."""
        self._localize(runs.inputs, runs.heatmaps, views)
        if flip and runs.mirrored is not None:
            self._device.mirror(runs.inputs[views], runs.mirrored[views])
            self._localize(runs.mirrored, runs.turned, views)

    def _localize(self, inputs: Any, heatmaps: Any, views: slice) -> None:
        for engine, part in self._localizers:
            rows = slice(max(views.start, part.start), min(views.stop, part.stop))
            if rows.start < rows.stop:
                self._device.run(engine, inputs[rows], heatmaps[rows])

    def _merge(self, views: slice) -> None:
        """The mean of all runs' heatmaps, where there are several."""
        if self._averages:
            outputs = [output[views] for runs in self._runs for output in runs.outputs]
            self._device.average(outputs, self._average, self._heatmaps[views])

    def _grade(self, views: slice) -> None:
        for network in self._networks:
            rows = network.rows(views)
            self._device.run(network.engine, network.crops[rows], network.logits[rows])

    def _steps(self, effort: Effort, views: slice) -> None:
        device = self._device
        device.mark("start")
        for number in range(effort.passes):
            if number and not self._boundary("second-pass"):
                break
            self._find(effort, views, again=number > 0)
        device.mark("localize")
        self._boundary("crop")
        for network in self._networks:
            device.crops(self._points[views], self._views[views], network.spec, network.rois[views])
            device.warp(network.rois[views], _sampled(self._warp_crops, effort), network.crops[network.rows(views)])
        device.mark("crop")
        self._boundary("grade")
        self._grade(views)
        device.mark("grade")
        device.fetch(self._points[views])
        for network in self._networks:
            device.fetch(network.logits[network.rows(views)])

    def _find(self, effort: Effort, views: slice, again: bool) -> None:
        """One pass: the points in the whole radiographs, or again in the box of those of the pass before."""
        device, base = self._device, self._runs[0]
        averaged = effort.test_time and (not again or self._boundary("test-time"))
        for runs in self._runs if averaged else self._runs[:1]:
            if again:
                device.boxes(self._points[views], self._box_views[views], runs.box, runs.boxes[views])
            rois = runs.boxes if again else runs.whole
            device.warp(rois[views], _sampled(runs.warp, effort), runs.inputs[views])
            self._infer(runs, views, flip=averaged)
        if averaged:
            self._merge(views)
        heatmaps, rois = self._heatmaps if averaged else base.heatmaps, base.boxes if again else base.whole
        device.decode(heatmaps[views], rois[views], self._views[views], self._decode, self._points[views])


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
