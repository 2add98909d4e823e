"""From uploaded radiographs to logits: the steps in order, captured at open and replayed per study.

View 0 is the cervical radiograph, view 1 the lumbar one; view i reads source image i. The values that change between
studies (source sizes, facing, given points) are written into two small buffers before a replay. Nothing between the
upload and the logits returns to the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from spinescore.runtime.manifest import Localizer
from spinescore.runtime.scoring.budget import Boundary
from spinescore.runtime.scoring.geometry import mirrored_views, scaled_rois
from spinescore.runtime.scoring.launches import Effort
from spinescore.runtime.scoring.networks import (
    GRADER_TABLE,
    HEATMAP_STRIDE,
    VIEWS,
    LocalizerRuns,
    average_spec,
    load_networks,
    warp_spec,
)
from spinescore.runtime.study import REGIONS

__all__ = ["Pipeline", "Results", "full_effort"]


@dataclass(frozen=True, eq=False)
class Results:
    """The results for V views: points (V, 6, 2) of dtype `POINT`, logits by network, the time at each stage's end."""

    points: NDArray[np.void]
    logits: dict[str, NDArray[Any]]
    stages_ms: dict[str, float]

    @property
    def durations_ms(self) -> dict[str, float]:
        """The durations of localize, crop and grade."""
        return _durations_ms(self.stages_ms)


class Pipeline:
    """The networks of a bundle on a device. Buffers are allocated here, once, and belong to the device.

    The steps are captured here for the usual effort, by default the manifest's, and for another effort when it is first
    used. No network runs before `run_networks` or a study.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        effort: Effort | None = None,
        before: Callable[[str], None] | None = None,
    ) -> None:
        """Load the networks; `before` gets a line of text before each, and what it raises ends the opening."""
        localizer = bundle.manifest.localizer
        self._device = device
        self._effort = effort or full_effort(localizer)
        self._networks = load_networks(bundle, device, before)
        self._localizers, self._graders = self._networks.localizers, self._networks.graders
        self._runs = self._networks.runs
        self._average = average_spec(localizer)
        self._averages = len(self._average.runs) > 1
        base = self._runs[0].heatmaps
        self._heatmaps = device.allocate(base.shape, base.dtype) if self._averages else base  # of all runs
        self._views = device.allocate((VIEWS,), VIEW)
        self._shown = localizer.facing  # unless it is left, `boxes` needs views with another facing than `crops`
        self._box_views = self._views if self._shown == "left" else device.allocate((VIEWS,), VIEW)
        self._points = device.allocate((VIEWS, DISCS, 2), POINT)
        self._warp_crops = warp_spec(bundle.manifest.grader.input, GRADER_TABLE)
        self._decode = DecodeSpec(localizer.decode, localizer.align, HEATMAP_STRIDE, localizer.channels())
        self._boundary: Boundary = _go_on
        self._networks_alone: Replay | None = None
        self._replays: dict[Effort, Replay] = {}
        self.prepare(self._effort)

    @property
    def precision(self) -> str:
        engines = (self._localizers[0][0], *(grader.engine for grader in self._graders))
        return "+".join(dict.fromkeys(engine.precision for engine in engines))

    @property
    def framework(self) -> str:
        return self._graders[0].engine.framework

    @property
    def engines(self) -> tuple[Engine[Any], ...]:
        return (*(engine for engine, _ in self._localizers), *(grader.engine for grader in self._graders))

    @property
    def localizers(self) -> int:
        """The number of localizer networks."""
        return len(self._localizers)

    def prepare(self, effort: Effort) -> Replay:
        """Capture the steps for this effort if they are not captured yet, and return their replay."""
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
        """Score a slice of the views by a replay; `whole` (2,) of `ROI` and `parameters` (2,) of `VIEW` are for both.

        `boundary` is called before each launch and, on a device that runs steps and not a graph of them, before each
        stage. What it raises ends the study.
        """
        device, effort = self._device, effort or self._effort
        replay = self.prepare(effort)
        for runs in self._runs:
            device.write(runs.whole, scaled_rois(whole, runs.scale))
        device.write(self._views, parameters)
        if self._shown != "left":
            device.write(self._box_views, mirrored_views(parameters, self._shown))
        marks_ms: dict[str, float] = {}
        each = [slice(view, view + 1) for view in range(views.start, views.stop)]
        with self._asking(boundary):
            for part in each if effort.apart else [views]:
                self._boundary("localize")
                replay(part)
                marks_ms = {stage: marks_ms.get(stage, 0.0) + at for stage, at in device.marks_ms().items()}
        points = device.read(self._points[views])
        logits = {grader.role: device.read(grader.logits[grader.rows(views)]) for grader in self._graders}
        return Results(points, logits, marks_ms)

    def run_networks(
        self, images: Mapping[str, NDArray[np.float32]] | None = None, boundary: Boundary | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """Return the outputs of all networks for `images`, and the milliseconds of localizer and grader.

        The networks run as in a study: on its buffers, with its batches, both views at once. `images` has the inputs of
        each network (N, C, H, W, normalised) by the names of `golden.GoldenNetwork.images`. Without them the networks
        run on the present content of their buffers; that warms them up for the first study. A localizer's output is
        the mean of all its runs' heatmaps. `boundary` is called as by `score`, and what it raises ends the run.
        """
        if self._networks_alone is None:
            self._networks_alone = self._device.capture(self._network_steps)
        for name, buffer in self._networks.inputs().items() if images is not None else ():
            with np.errstate(over="ignore"):
                self._device.write(buffer, images[name].astype(buffer.dtype))  # type: ignore[index]
        with self._asking(boundary):
            self._boundary("localize")
            self._networks_alone(slice(0, VIEWS))
        took_ms = _durations_ms(self._device.marks_ms())
        outputs = self._networks.outputs(self._heatmaps)
        results = {name: self._device.read(buffer).astype(np.float32) for name, buffer in outputs.items()}
        return results, {"localizer": took_ms["localize"], "grader": took_ms["grade"]}

    def evidence(self, whole: NDArray[np.void], parameters: NDArray[np.void]) -> NDArray[np.float64]:
        """Return the mean peak of each region in two views: (2 views, 2 regions), each within [0, 1]."""
        points = self.look(whole, parameters)
        means: NDArray[np.float64] = np.clip(points["confidence"].astype(np.float64), 0, 1).mean(axis=(2, 3)).T
        return means

    def look(self, whole: NDArray[np.void], parameters: NDArray[np.void]) -> NDArray[np.void]:
        """Return each region's points in two views, from one pass: (2 regions, 2 views, 6, 2) of dtype `POINT`.

        This is not among the captured steps: it is needed only if the header does not state the region or the facing,
        or they are in doubt. It is one run, at the input's own size.
        """
        device, base, asked = self._device, self._runs[0], parameters.copy()
        points = np.zeros((len(REGIONS), VIEWS, DISCS, 2), POINT)
        device.write(base.whole, whole)
        device.warp(base.whole, base.warp, base.inputs)
        for region in range(len(REGIONS)):
            asked["region"] = region
            device.write(self._views, asked)
            if region < len(self._localizers):  # one that serves both regions is asked once
                engine, part = self._localizers[region]
                built = part.stop - part.start  # an engine of TensorRT takes the batch of a study, and no other
                for first in range(0, VIEWS, built):
                    rows = slice(first, first + built)
                    device.run(engine, base.inputs[rows], base.heatmaps[rows])
            device.decode(base.heatmaps, base.whole, self._views, self._decode, self._points)
            points[region] = device.read(self._points[0:VIEWS])
        return points

    def crops(self, views: slice) -> dict[str, NDArray[Any]]:
        """Return the latest replay's crops by network: (V x 6 x flips, channels, height, width), normalised."""
        return {grader.role: self._device.read(grader.crops[grader.rows(views)]) for grader in self._graders}

    def flips(self, role: str) -> tuple[bool, ...]:
        return next(grader.spec.flips for grader in self._graders if grader.role == role)

    @contextmanager
    def _asking(self, boundary: Boundary | None) -> Iterator[None]:
        """Ask `boundary` before each stage meanwhile."""
        self._boundary = boundary or _go_on
        try:
            yield
        finally:
            self._boundary = _go_on

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
        """Run the localizer at one scale; with `flip` also on the mirrored input, if the bundle has such a run."""
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
        """Average the heatmaps of all runs, if there are several."""
        if self._averages:
            both = [(runs.heatmaps, runs.turned) for runs in self._runs]  # in the order of `average_spec`
            outputs = [output[views] for pair in both for output in pair if output is not None]
            self._device.average(outputs, self._average, self._heatmaps[views])

    def _grade(self, views: slice) -> None:
        for grader in self._graders:
            rows = grader.rows(views)
            self._device.run(grader.engine, grader.crops[rows], grader.logits[rows])

    def _steps(self, effort: Effort, views: slice) -> None:
        device = self._device
        device.mark("start")
        for number in range(effort.passes):
            if number and not self._boundary("second-pass"):
                break
            self._find(effort, views, again=number > 0)
        device.mark("localize")
        self._boundary("crop")
        for grader in self._graders:
            device.crops(self._points[views], self._views[views], grader.spec, grader.rois[views])
            device.warp(grader.rois[views], _sampled(self._warp_crops, effort), grader.crops[grader.rows(views)])
        device.mark("crop")
        self._boundary("grade")
        self._grade(views)
        device.mark("grade")
        device.fetch(self._points[views])
        for grader in self._graders:
            device.fetch(grader.logits[grader.rows(views)])

    def _find(self, effort: Effort, views: slice, again: bool) -> None:
        """Make one pass: find the points in the whole radiographs, or `again` in the box of the first pass's points."""
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


def full_effort(localizer: Localizer) -> Effort:
    """Return the effort that a manifest asks for."""
    return Effort(localizer.passes, test_time=localizer.averaging.runs > 1)


def _sampled(spec: WarpSpec, effort: Effort) -> WarpSpec:
    return spec if effort.antialias else replace(spec, antialias=1)


def _durations_ms(marks_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the durations of the stages from the times of their marks, the first one their start."""
    pairs = itertools.pairwise(marks_ms.items())
    return {stage: at - before for (_, before), (stage, at) in pairs}


def _go_on(stage: str) -> bool:
    return True
