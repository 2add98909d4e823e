"""Score studies: open a bundle on a device once, then hand it study after study."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from spinescore.runtime.assemble import strictly, study_report, timed
from spinescore.runtime.budget import Budget, Clock, Effort, checked_ms
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import LARGEST_IMAGE_PX, Device, open_device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import DeviceError, EngineError
from spinescore.runtime.intake import GivenPoints, Keypoints, StudyInput, as_study, given_points
from spinescore.runtime.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.opening import Candidate, Wanted, open_first
from spinescore.runtime.opening.building import Renewal, open_and_build
from spinescore.runtime.plan import Way, open_by_plan
from spinescore.runtime.report import DeviceInfo, StudyReport
from spinescore.runtime.scoredquality import of_results
from spinescore.runtime.selection import select
from spinescore.runtime.study import Study
from spinescore.runtime.views import Crop, Views

__all__ = ["Crop", "ScoredCrops", "Scorer"]


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
        *,
        budget_ms: float | None = None,
        effort: Effort | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Owns `device` from here on: it is closed with the scorer, or here where the bundle does not fit it.

        The device's engine is taken as it is, accepted or not; each report has `warnings`. `effort` is what a study is
        given where there is time, by default the manifest's; `clock` counts seconds.
        """
        self.bundle, self._warnings = bundle, warnings
        self.choice: EngineChoice | None = None  # of the engine, where `open` made one
        self._renewal: Renewal[Scorer] = Renewal()
        self._max_imputed = max_imputed_per_region
        self._lock = threading.Lock()
        self._closed = False
        self._budget_ms = checked_ms(budget_ms) or bundle.manifest.budget_ms
        self._clock = clock
        self._views = Views(bundle, device, effort)
        pipeline = self._views.pipeline
        self._info = DeviceInfo(device.kind, device.name, pipeline.framework, pipeline.precision)
        if self._budget_ms is not None:
            self._views.warm_up(Budget(None, False, 0.0, self._views.durations, clock))

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
        localizer: str | None = None,
        require_acceptance: bool = True,
        build: str = "now",
        progress: Callable[[str], None] | None = None,
        budget_ms: float | None = None,
        plan: str | Path | None = "auto",
        warm_up: bool = True,
    ) -> Scorer:
        """Open a bundle (a folder, or the name of one that ships with the package) on a device, and warm it up.

        `device` is `auto`, `cpu` or `cuda`; `auto` takes the GPU where it can score this bundle, else the CPU, and each
        report then warns why. `threads` limits the networks' threads on a CPU, `largest_image_px` is the number of
        pixels that a GPU allocates memory for.

        Networks run on the fastest engine that was accepted for this bundle on this hardware (`spinescore bundle verify
        BUNDLE --device D`), on a CPU without records on ONNX Runtime in FP32. `engine` (`onnxruntime`, `openvino`,
        `tensorrt`) and `precision` (`fp32`, `bf16`, `fp16`, `int8`) narrow the choice; `require_acceptance=False` also
        takes what was not accepted, and builds nothing. `localizer` names one of the bundle's alternatives to its own.

        Where a GPU, a TensorRT that builds and the extra `export` are there, and no engine of this bundle was accepted
        for that GPU, one is built once and put through the same gate, in a process of its own: it takes seconds with
        TensorRT-RTX and can take minutes with the full TensorRT. `build="now"` waits for it, `"background"` scores on
        what works until then (and waits where nothing does) and takes the engine between two studies, `"no"` builds
        nothing. `progress` gets lines of text meanwhile. Where no engine comes of it, each report warns why.

        `budget_ms` is every study's budget where `score` gets none, by default the bundle's, which may have one. With
        it the steps are timed here, so that the first study's time can be divided. A `plan` (`spinescore plan`) chooses
        engine, precision, threads, passes and localizer: that of a path, or with `auto`, where none of these is named,
        the one that was made for this bundle on this machine. One that does not hold is refused, or with `auto` warned
        of.

        Without `warm_up` a CPU's networks first run with the first study, which takes longer, but sooner ends: for who
        scores one. A budget needs it and has it in any case.

        Raises `BundleError`, `EngineError` or `DeviceError`, `ValueError` for a name that is not known.
        """
        whole = Bundle.open(bundle)

        def open_way(way: Way) -> Scorer:
            opened = whole.with_localizer(way.localizer)

            def attempt(candidate: Candidate) -> Scorer:
                warm = warm_up or (budget_ms or opened.manifest.budget_ms) is not None
                chosen = open_device(candidate.kind, way.threads, largest_image_px, candidate.choice, warm_up=warm)
                warnings = (*way.warnings, *candidate.warnings)
                scorer = cls(opened, chosen, max_imputed_per_region, warnings, budget_ms=budget_ms, effort=way.effort)
                scorer.choice = candidate.choice
                try:
                    if candidate.record is not None:
                        candidate.record.check_opened(scorer._views.pipeline.engines, opened)
                    way.check(scorer._info.engine)
                except EngineError:
                    scorer.close()
                    raise
                return scorer

            def narrowed(wanted: Wanted) -> Scorer:
                return open_first(opened, wanted, attempt)

            found, renewal = open_and_build(opened, way.wanted, build, narrowed, progress)
            found._renewal = renewal
            return found

        checked_ms(budget_ms)
        way = Way(Wanted(device, engine, precision, require_acceptance), threads, localizer)
        return open_by_plan(whole, way, plan, open_way)

    def give(self, effort: Effort) -> None:
        """From the next study on work with this effort where there is time, in place of the manifest's or a plan's."""
        with self._lock:
            self._views.give(effort)

    def score(
        self,
        study: StudyInput,
        budget_ms: float | None = None,
        keypoints: Keypoints | None = None,
        *,
        strict: bool = False,
        hard: bool = False,
        cancel: threading.Event | None = None,
    ) -> StudyReport:
        """Score one study: a `Study`, radiographs, or a mapping from region to a `Radiograph` or an array.

        `keypoints` (region -> level -> (centre xy, anterior xy), source pixels) replace the localizer's points of
        those discs. What cannot be scored is rejected in the report, region by region. Where it is `strict`, what
        would be a warning on a radiograph's quality (`report.findings`) rejects its region.

        `budget_ms` is counted from this call, reading included. What does not fit is skipped (`report.skipped`), as
        `spinescore.runtime.budget` has it; what cannot be skipped is done all the same, unless the budget is `hard`.
        Setting `cancel` from another thread ends the call at the next stage, which on a GPU is the next launch.

        Raises `ValueError` for arguments of the wrong form, `InputRejected` for two patients, `BudgetExceeded` for a
        hard budget that is not kept, as soon as that is certain, and `Cancelled`. The scorer can be used after each.
        """
        found = self._score(study, self._budget(study, budget_ms, hard, cancel), keypoints, strict)
        assert found is not None
        return found.report

    def try_score(
        self,
        study: StudyInput,
        budget_ms: float | None = None,
        keypoints: Keypoints | None = None,
        *,
        strict: bool = False,
        hard: bool = False,
        cancel: threading.Event | None = None,
    ) -> StudyReport | None:
        """As `score`, but None at once where this scorer is busy with another study: for who must never wait."""
        found = self._score(study, self._budget(study, budget_ms, hard, cancel), keypoints, strict, wait=False)
        return None if found is None else found.report

    def crops(self, study: StudyInput, keypoints: Keypoints | None = None, *, strict: bool = False) -> ScoredCrops:
        """The regions exactly as the grader sees them, without a budget, to train on what will be run."""
        budget = Budget(None, False, 0.0, self._views.durations, self._clock)
        found = self._score(study, budget, keypoints, strict, with_crops=True)
        assert found is not None
        return found

    def close(self) -> None:
        """Free the device. Closing twice is no error."""
        with self._lock:
            self._closed = True
            self._renewal.close()
            self._views.device.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _budget(self, study: StudyInput, budget_ms: float | None, hard: bool, cancel: threading.Event | None) -> Budget:
        budget_ms = checked_ms(budget_ms) or self._budget_ms
        if hard and budget_ms is None:
            raise ValueError("hard needs a budget_ms, here or where the scorer is opened")
        read_ms = (study.read_ms or 0.0) if isinstance(study, Study) else 0.0
        return Budget(budget_ms, hard, read_ms, self._views.durations, self._clock, cancel)

    def _score(
        self,
        study: StudyInput,
        budget: Budget,
        keypoints: Keypoints | None,
        strict: bool,
        *,
        with_crops: bool = False,
        wait: bool = True,
    ) -> ScoredCrops | None:
        """None where the scorer is busy and it is not to `wait`."""
        study, given = as_study(study), given_points(keypoints)
        if wait:
            budget.acquire(self._lock)
        elif not self._lock.acquire(blocking=False):
            return None
        try:
            return self._scored(study, given, budget, strict, with_crops)
        finally:
            self._views.device.forget()
            self._lock.release()

    def _scored(self, study: Study, given: GivenPoints, budget: Budget, strict: bool, with_crops: bool) -> ScoredCrops:
        if self._closed:
            raise DeviceError("This scorer is closed; open another one with Scorer.open.")
        self._renew()
        views, localizer = self._views, self.bundle.manifest.localizer
        budget.durations = views.durations
        budget.go_on()
        selection = select(study, localizer, given, views.within(budget, len(study.radiographs)), strict)
        selection.warnings.extend((*self._warnings, *self._renewal.warnings, *views.device.warnings))
        budget.done("select")
        results, stages_ms = views.score(selection.chosen, given, budget)
        selection.findings.extend(of_results(results, localizer.min_confidence))
        if strict:
            results = strictly(results, selection.findings)
        crops = views.crops(results) if with_crops else ()
        report = study_report(study, self.bundle, self._info, selection, results, self._max_imputed)
        report = timed(report, study.read_ms, stages_ms, budget)
        if budget.hard and not report.within_budget:
            raise budget.exceeded(report=report)
        return ScoredCrops(crops, report)

    def _renew(self) -> None:
        """Between two studies: take the engine that was built meanwhile in place of what scored until now."""
        if (new := self._renewal.taken()) is not None:
            new._views.give(self._views.efforts[0])
            self._views.device.close()
            self._views, self._info = new._views, new._info
            self._warnings, self.choice = new._warnings, new.choice
