"""Score studies: open a bundle on a device once, then hand it study after study."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import VIEW
from spinescore.kernels.warp import ROI, Source
from spinescore.runtime.assemble import RegionResult, judge, strictly, study_report
from spinescore.runtime.building import Renewal, open_and_build
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import LARGEST_IMAGE_PX, Device, open_device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import DeviceError, EngineError
from spinescore.runtime.geometry import whole_image
from spinescore.runtime.grading import probabilities
from spinescore.runtime.intake import GivenPoints, Keypoints, StudyInput, as_study, given_points
from spinescore.runtime.manifest import Contrast, NetworkInput
from spinescore.runtime.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.opening import Candidate, Wanted, open_first
from spinescore.runtime.pipeline import GRADER_TABLE, LOCALIZER_TABLE, VIEWS, Pipeline, Results
from spinescore.runtime.report import DeviceInfo, StudyReport, TimingsMs
from spinescore.runtime.scoredquality import of_results
from spinescore.runtime.selection import FACINGS, Chosen, other_region, select
from spinescore.runtime.study import LEVELS, REGIONS, Facing, Radiograph, Region, sites_of

__all__ = ["Crop", "ScoredCrops", "Scorer"]


@dataclass(frozen=True, eq=False)
class Crop:
    """One picture as a network of the grader sees it: grey (H x W, float32, 0 .. 1), before mean and std."""

    region: Region
    level: str
    sites: tuple[str, ...]  # that the network grades in it
    network: str
    image: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScoredCrops:
    """The crops of every region that was scored, with the report that says what was not."""

    crops: tuple[Crop, ...]
    report: StudyReport


class Scorer:
    """A bundle on a device, ready to score. Use `Scorer.open`, and close it or use it as a context manager.

    Calls from several threads are safe and run one after the other.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        max_imputed_per_region: int = DEFAULT_MAX_IMPUTED,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Owns `device` from here on: it is closed with the scorer, or here where the bundle does not fit it.

        The device's engine is taken as it is, accepted or not; each report has `warnings`.
        """
        self.bundle, self._warnings = bundle, warnings
        self.choice: EngineChoice | None = None  # of the engine, where `open` made one
        self._renewal: Renewal[Scorer] = Renewal()
        self._device = device
        self._max_imputed = max_imputed_per_region
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._pipeline = Pipeline(bundle, device)  # runs once, so that the first study does not pay for it
        except BaseException:
            device.close()
            raise
        self._info = DeviceInfo(device.kind, device.name, self._pipeline.framework, self._pipeline.precision)

    @classmethod
    def open(
        cls,
        bundle: str | Path = "phantom-reference",
        device: str = "auto",
        *,
        threads: int | None = None,
        max_imputed_per_region: int = DEFAULT_MAX_IMPUTED,
        largest_image_px: int = LARGEST_IMAGE_PX,
        engine: str | None = None,
        precision: str | None = None,
        require_acceptance: bool = True,
        build: str = "now",
        progress: Callable[[str], None] | None = None,
    ) -> Scorer:
        """Open a bundle (a folder, or the name of one that ships with the package) on a device and warm it up.

        `device` is `auto`, `cpu` or `cuda`; `auto` takes the GPU where it can score this bundle, else the CPU, and each
        report then warns why. `threads` limits the networks' threads on a CPU, `largest_image_px` is the number of
        pixels that a GPU allocates memory for.

        Networks run on the fastest engine that was accepted for this bundle on this hardware (`spinescore bundle verify
        BUNDLE --device D`), on a CPU without records on ONNX Runtime in FP32. `engine` (`onnxruntime`, `openvino`,
        `tensorrt`) and `precision` (`fp32`, `bf16`, `fp16`, `int8`) narrow the choice; `require_acceptance=False` also
        takes what was not accepted, and builds nothing.

        Where a GPU, a TensorRT that builds and the extra `export` are there, and no engine of this bundle was accepted
        for that GPU, one is built once and put through the same gate, in a process of its own: it takes seconds with
        TensorRT-RTX and can take minutes with the full TensorRT. `build="now"` waits for it, `"background"` scores on
        what works until then and takes the engine between two studies, `"no"` builds nothing. `progress` gets lines of
        text meanwhile. Where no engine comes of it, each report warns why.

        Raises `BundleError`, `EngineError` or `DeviceError`, `ValueError` for a name that is not known.
        """
        wanted = Wanted(device, engine, precision, require_acceptance)
        opened = Bundle.open(bundle)

        def attempt(candidate: Candidate) -> Scorer:
            chosen = open_device(candidate.kind, threads, largest_image_px, candidate.choice)
            scorer = cls(opened, chosen, max_imputed_per_region, candidate.warnings)
            scorer.choice = candidate.choice
            try:
                if candidate.record is not None:
                    candidate.record.check_opened(scorer._pipeline.engines, opened)
            except EngineError:
                scorer.close()
                raise
            return scorer

        found, renewal = open_and_build(
            opened, wanted, build, lambda narrowed: open_first(opened, narrowed, attempt), progress
        )
        found._renewal = renewal
        return found

    def score(
        self,
        study: StudyInput,
        budget_ms: float | None = None,
        keypoints: Keypoints | None = None,
        *,
        strict: bool = False,
    ) -> StudyReport:
        """Score one study: a `Study`, radiographs, or a mapping from region to a `Radiograph` or an array.

        `keypoints` (region -> level -> (centre xy, anterior xy), source pixels) replace the localizer's points of
        those discs. What cannot be scored is rejected in the report, region by region. `budget_ms` is compared with
        the total time. Where it is `strict`, what would be a warning on a radiograph's quality (`report.findings`)
        rejects its region. Raises `ValueError` for arguments of the wrong form, `InputRejected` for two patients.
        """
        return self._score(study, budget_ms, keypoints, strict, with_crops=False).report

    def crops(self, study: StudyInput, keypoints: Keypoints | None = None, *, strict: bool = False) -> ScoredCrops:
        """The regions exactly as the grader sees them, to train on what will be run, and for a look."""
        return self._score(study, None, keypoints, strict, with_crops=True)

    def close(self) -> None:
        """Free the device. Closing twice is no error."""
        with self._lock:
            self._closed = True
            self._renewal.close()
            self._device.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score(
        self, study: StudyInput, budget_ms: float | None, keypoints: Keypoints | None, strict: bool, with_crops: bool
    ) -> ScoredCrops:
        started = time.perf_counter()
        if budget_ms is not None and not (math.isfinite(budget_ms) and budget_ms > 0):
            raise ValueError(f"budget_ms must be a number above 0, got {budget_ms}")
        study, given = as_study(study), given_points(keypoints)
        with self._lock:
            if self._closed:
                raise DeviceError("This scorer is closed; open another one with Scorer.open.")
            self._renew()
            localizer = self.bundle.manifest.localizer
            selection = select(study, localizer, given, self._evidence, strict)
            selection.warnings.extend((*self._warnings, *self._renewal.warnings, *self._device.warnings))
            results, stages_ms = self._run(selection.chosen, given)
            selection.findings.extend(of_results(results, localizer.min_confidence))
            if strict:
                results = strictly(results, selection.findings)
            crops = self._crops(results) if with_crops else ()
        elapsed_ms = (time.perf_counter() - started) * 1e3
        timings_ms = _timings(study.read_ms, stages_ms, elapsed_ms)
        report = study_report(
            study, self.bundle, self._info, selection, results, timings_ms, budget_ms, self._max_imputed
        )
        return ScoredCrops(crops, report)

    def _renew(self) -> None:
        """Between two studies: take the engine that was built meanwhile in place of what scored until now."""
        if (new := self._renewal.taken()) is not None:
            self._device.close()
            self._device, self._pipeline, self._info = new._device, new._pipeline, new._info
            self._warnings, self.choice = new._warnings, new.choice

    def _run(
        self, chosen: dict[Region, Chosen], given: GivenPoints
    ) -> tuple[dict[Region, RegionResult], dict[str, float]]:
        if not chosen:
            return {}, {}
        whole, parameters = np.zeros(VIEWS, ROI), np.zeros(VIEWS, VIEW)
        whole["source"] = -1
        for view, region in enumerate(REGIONS):
            if region in chosen:
                self._upload(view, chosen[region].radiograph)
                whole[view] = self._whole(view, chosen[region].radiograph, chosen[region].facing)
                parameters[view] = _parameters(view, chosen[region].facing, given.get(region, {}))
        indices = [REGIONS.index(region) for region in chosen]
        views = slice(min(indices), max(indices) + 1)
        results = self._pipeline.score(views, whole, parameters)
        head = self.bundle.manifest.grader.head
        p = probabilities(results.logits, head).reshape(len(results.points), -1, 2, 4)
        found = {}
        for region in (region for region in REGIONS if region in chosen):
            row = REGIONS.index(region) - views.start
            found[region] = judge(region, chosen[region], results.points[row], p[row], self.bundle.manifest)
        return self._doubted(chosen, found), _stages(results)

    def _doubted(self, chosen: dict[Region, Chosen], results: dict[Region, RegionResult]) -> dict[Region, RegionResult]:
        """Where the localizer was not sure, see whether the radiograph rather shows the other region."""
        for region, result in results.items():
            if result.reject is not None and result.reject.code == "low-confidence":
                evidence = self._evidence(chosen[region].radiograph)
                other = other_region(region, evidence, self.bundle.manifest.localizer)
                if other is not None:
                    results[region] = result.rather(other)
        return results

    def _evidence(self, radiograph: Radiograph) -> NDArray[np.float64]:
        self._upload(0, radiograph)
        parameters = np.zeros(VIEWS, VIEW)
        parameters["faces_right"] = [facing == "right" for facing in FACINGS]
        whole = np.array([self._whole(0, radiograph, facing) for facing in FACINGS], ROI)
        return self._pipeline.evidence(whole, parameters)

    def _upload(self, slot: int, radiograph: Radiograph) -> None:
        localizer, grader = self.bundle.manifest.localizer, self.bundle.manifest.grader
        tables = [_table(radiograph, localizer.contrast, localizer.input)]
        same = (localizer.contrast, localizer.input.levels) == (grader.contrast, grader.input.levels)
        tables.insert(
            GRADER_TABLE, tables[LOCALIZER_TABLE] if same else _table(radiograph, grader.contrast, grader.input)
        )
        self._device.upload(slot, Source(radiograph.pixels, tuple(tables), radiograph.stored_min))

    def _whole(self, source: int, radiograph: Radiograph, facing: Facing) -> NDArray[np.void]:
        size = self.bundle.manifest.localizer.input
        fit = size.fit or "stretch"
        return whole_image(source, radiograph.rows, radiograph.columns, (size.height, size.width), fit, facing)

    def _crops(self, results: dict[Region, RegionResult]) -> tuple[Crop, ...]:
        found = []
        size = self.bundle.manifest.grader.input
        for network, pictures in self._pipeline.crops(slice(0, VIEWS)).items():
            flips = self._pipeline.flips(network)
            greys = np.clip(pictures[:, 0].astype(np.float32) * size.std[0] + size.mean[0], 0, 1)
            greys = greys.reshape(VIEWS, -1, len(flips), size.height, size.width)
            for region in (region for region in REGIONS if region in results and results[region].reject is None):
                for disc, level in enumerate(LEVELS[region]):
                    for number in range(len(flips)):
                        sites = sites_of(level) if len(flips) == 1 else sites_of(level)[number : number + 1]
                        image = greys[REGIONS.index(region), disc, number]
                        found.append(Crop(region, level, sites, network, image))
        return tuple(found)


def _table(radiograph: Radiograph, contrast: Contrast, size: NetworkInput) -> NDArray[np.float32]:
    if contrast.mode == "dicom" and size.levels is None:
        return radiograph.table
    from spinescore.runtime.greyscale import contrast_table

    return contrast_table(radiograph, contrast.mode, contrast.low, contrast.high, size.levels)


def _parameters(view: int, facing: Facing, given: Any) -> NDArray[np.void]:
    parameters = np.zeros((), VIEW)
    parameters["source"] = parameters["region"] = view
    parameters["faces_right"] = facing == "right"
    for disc, pair in given.items():
        parameters["given"][disc] = 1
        parameters["given_xy"][disc] = pair
    return parameters


def _stages(results: Results) -> dict[str, float]:
    """The durations between the marks start, localize, crop and grade."""
    marks = list(results.stages_ms.items())
    return {stage: at - before for (_, before), (stage, at) in itertools.pairwise(marks)}


def _timings(read_ms: float | None, stages_ms: dict[str, float], elapsed_ms: float) -> TimingsMs:
    rounded = {stage: round(value, 3) for stage, value in stages_ms.items()}
    return TimingsMs(
        read=None if read_ms is None else round(read_ms, 3),
        localize=rounded.get("localize"),
        crop=rounded.get("crop"),
        grade=rounded.get("grade"),
        total=round((read_ms or 0.0) + elapsed_ms, 3),
    )
