"""Score studies: open a bundle on a device once, then hand it study after study."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from spinescore.runtime.acceptance.repeats import Repeats
from spinescore.runtime.arguments import check_event, check_flag, check_open, shown
from spinescore.runtime.assemble import strictly, study_report, timed, with_findings
from spinescore.runtime.budget import Budget, Clock, Effort, checked_ms
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import LARGEST_IMAGE_PX, Device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import DeviceError, SpineScoreError
from spinescore.runtime.intake import GivenPoints, Keypoints, StudyInput, as_study, given_points
from spinescore.runtime.logs import log_study
from spinescore.runtime.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.opening import Wanted
from spinescore.runtime.opening.opened import EngineInUse, Opened, Request, open_bundle
from spinescore.runtime.plan import Way
from spinescore.runtime.report import StudyReport
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
        """Owns `device` from here on: it is closed with the scorer, or here if the bundle does not fit it.

        The device's engine is taken as it is, accepted or not, but has to pass its self-test. Each report has
        `warnings`. `effort` is what a study is given if there is time, by default the manifest's; `clock` counts
        seconds. Raises `SelfTestError`.
        """
        if not isinstance(bundle, Bundle):
            raise TypeError(f"bundle must be a Bundle, got {shown(bundle)}; call Scorer.open(bundle, device)")
        engine = EngineInUse(Opened(bundle, device, effort=effort, warnings=warnings))
        self._set_up(engine, max_imputed_per_region, budget_ms, clock)
        try:
            self._test()
            self._time_steps()
        except BaseException:
            self.close()
            raise

    def _set_up(self, engine: EngineInUse, max_imputed_per_region: int, budget_ms: float | None, clock: Clock) -> None:
        self.bundle: Bundle = engine.opened.bundle
        self._engine, self._clock, self._max_imputed = engine, clock, max_imputed_per_region
        self._budget_ms = checked_ms(budget_ms) or self.bundle.manifest.budget_ms
        self._repeats: Repeats | None = None
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path = "phantom-reference",
        device: DeviceName = "auto",
        *,
        threads: int | None = None,
        max_imputed_per_region: int = DEFAULT_MAX_IMPUTED,
        largest_image_px: int = LARGEST_IMAGE_PX,
        engine: EngineName | None = None,
        precision: PrecisionName | None = None,
        localizer: str | None = None,
        require_acceptance: bool = True,
        build: BuildMode = "auto",
        progress: Callable[[str], None] | None = None,
        budget_ms: float | None = None,
        plan: str | Path | None = "auto",
        warm_up: bool = True,
        self_test_studies: int | None = None,
        self_test_minutes: float | None = None,
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

        On a CPU with OpenVINO, the gate is run once if none of its engines was accepted yet; `build` holds for that,
        too. The default, `"auto"`, builds a GPU's engines now, and checks a CPU's in the background.

        `budget_ms` is every study's budget where `score` gets none, by default the bundle's, which may have one. With
        it the steps are timed here, so that the first study's time can be divided. A `plan` (`spinescore plan`) chooses
        engine, precision, threads, passes and localizer: that of a path, or with `auto`, where none of these is named,
        the one that was made for this bundle on this machine. One that does not hold is refused, or with `auto` warned
        of.

        An engine gives out grades only after a self-test in this process: it runs golden inputs of the bundle as it
        will run studies, and has to stay within the bundle's tolerances. If it does not, its acceptance record is
        marked as failed, the next engine is taken, and each report says so (finding `engine-failed`); an engine that
        was named by `engine` raises `SelfTestError` instead. The self-test also warms the networks up. Without
        `warm_up` it is left to the first study, which takes longer; a budget needs it here in any case.
        `self_test_studies` and `self_test_minutes` repeat it after so many studies or minutes, when no study is being
        scored, in a thread of this scorer.

        Raises `BundleError`, `EngineError` or `DeviceError`; `TypeError` or `ValueError` for an argument that cannot
        be.
        """
        checked_ms(budget_ms)
        check_open(
            bundle, plan, threads=threads, max_imputed_per_region=max_imputed_per_region,
            largest_image_px=largest_image_px, localizer=localizer, progress=progress,
            flags={"require_acceptance": require_acceptance, "warm_up": warm_up},
        )  # fmt: skip
        whole = Bundle.open(bundle)
        way = Way(Wanted(device, engine, precision, require_acceptance), threads, localizer)
        request = Request(way, plan, build, progress, largest_image_px)
        now = warm_up or (budget_ms or whole.manifest.budget_ms) is not None
        scorer = cls.__new__(cls)
        scorer._set_up(open_bundle(whole, request, test=now), max_imputed_per_region, budget_ms, time.perf_counter)
        try:
            scorer._time_steps()
            if self_test_studies is not None or self_test_minutes is not None:
                scorer._repeats = Repeats(scorer._test_if_idle, self_test_studies, self_test_minutes)
        except BaseException:
            scorer.close()
            raise
        return scorer

    @property
    def choice(self) -> EngineChoice | None:
        """The engine that was chosen; None for the device's own."""
        return self._engine.opened.choice

    @property
    def _views(self) -> Views:
        return self._engine.opened.views

    def give(self, effort: Effort) -> None:
        """From the next study on work with this effort where there is time, in place of the manifest's or a plan's."""
        if not isinstance(effort, Effort):
            raise TypeError(f"effort must be an Effort, got {shown(effort)}")
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
        count_reading: bool = False,
    ) -> StudyReport:
        """Score one study: a `Study`, radiographs, or a mapping from region to a `Radiograph`, array or DICOM dataset.

        `keypoints` (region -> level -> (centre xy, anterior xy), source pixels) replace the localizer's points of
        those discs. What cannot be scored is rejected in the report, region by region. Where it is `strict`, what
        would be a warning on a radiograph's quality (`report.findings`) rejects its region.

        `budget_ms` is counted from this call; with `count_reading`, what reading the study took before
        (`Study.read_ms`) is counted too, as on the command line. What does not fit is skipped (`report.skipped`), as
        `spinescore.runtime.budget` has it; what cannot be skipped is done all the same, unless the budget is `hard`.
        A hard call never tests an engine, nor takes one that was built or checked meanwhile: that waits for a call
        without `hard`, for `self_test` or for `wait_for_check`.
        Setting `cancel` from another thread ends the call at the next stage, which on a GPU is the next launch.

        Raises `TypeError` or `ValueError` for arguments of the wrong form, `InputRejected` for two patients,
        `BudgetExceeded` for a hard budget that is not kept, as soon as that is certain, and `Cancelled`. The scorer can
        be used after each.
        """
        found = self._score(study, self._budget(study, budget_ms, hard, cancel, count_reading), keypoints, strict)
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
        count_reading: bool = False,
    ) -> StudyReport | None:
        """As `score`, but None at once where this scorer is busy with another study: for who must never wait."""
        found = self._score(
            study, self._budget(study, budget_ms, hard, cancel, count_reading), keypoints, strict, wait=False
        )
        return None if found is None else found.report

    def crops(self, study: StudyInput, keypoints: Keypoints | None = None, *, strict: bool = False) -> ScoredCrops:
        """The regions exactly as the grader sees them, without a budget, to train on what will be run."""
        budget = Budget(None, False, 0.0, self._views.durations, self._clock)
        found = self._score(study, budget, keypoints, strict, with_crops=True)
        assert found is not None
        return found

    def self_test(self) -> None:
        """Test the engine again now, and take another one if it fails, as at opening.

        Waits for the study that is being scored. Raises `SelfTestError` if no other engine may be taken, and again at
        the next study; `DeviceError` for a scorer that is closed.
        """
        with self._lock:
            self._check_open()
            self._test()

    @property
    def is_checking(self) -> bool:
        """Whether this CPU's engines are being checked in the background."""
        return self._engine.is_checking

    def wait_for_check(self) -> tuple[str, ...]:
        """Wait until this CPU's engines are checked, and return the warnings that come of it.

        The next study is scored on the engine that was accepted. A check that is not waited for ends at `close`.
        """
        warnings = self._engine.wait()
        with self._lock:
            if not self._closed:
                self._renew()
        return warnings

    def close(self) -> None:
        """Free the device. Closing twice is no error."""
        if self._repeats is not None:
            self._repeats.close()
        with self._lock:
            self._closed = True
            self._engine.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _budget(
        self,
        study: StudyInput,
        budget_ms: float | None,
        hard: bool,
        cancel: threading.Event | None,
        count_reading: bool,
    ) -> Budget:
        budget_ms = checked_ms(budget_ms) or self._budget_ms
        check_flag("hard", hard)
        check_event("cancel", cancel)
        if hard and budget_ms is None:
            raise ValueError("hard needs a budget_ms, here or where the scorer is opened")
        read_ms = (study.read_ms or 0.0) if isinstance(study, Study) and count_reading else 0.0
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
        check_flag("strict", strict)
        study, given = as_study(study), given_points(keypoints)
        if wait:
            budget.acquire(self._lock)
        elif not self._lock.acquire(blocking=False):
            return None
        try:
            return self._scored(study, given, budget, strict, with_crops)
        finally:
            budget.end()
            self._views.device.forget()
            self._lock.release()

    def _scored(self, study: Study, given: GivenPoints, budget: Budget, strict: bool, with_crops: bool) -> ScoredCrops:
        self._check_open()
        self._make_ready(budget)
        views, localizer = self._views, self.bundle.manifest.localizer
        budget.durations = views.durations
        budget.go_on()
        selection = select(study, localizer, given, views.within(budget, len(study.radiographs)), strict)
        selection.warnings.extend((*self._engine.warnings, *views.device.warnings))
        budget.done("select")
        results, stages_ms = views.score(selection.chosen, given, budget)
        selection.follow({region: result.chosen for region, result in results.items()})
        selection.findings.extend(of_results(results, localizer.min_confidence))
        if strict:
            results = strictly(results, selection.findings)
        crops = views.crops(results) if with_crops else ()
        report = study_report(study, self.bundle, self._engine.opened.info, selection, results, self._max_imputed)
        report = timed(with_findings(report, self._engine.opened.findings), study.read_ms, stages_ms, budget)
        log_study(report)
        self._count_study()
        if budget.hard and not report.within_budget:
            raise budget.exceeded(report=report)
        return ScoredCrops(crops, report)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("This scorer is closed; open another one with Scorer.open.")

    def _make_ready(self, budget: Budget) -> None:
        """Take an engine that was built meanwhile, and test one that is not trusted; a hard budget has no time."""
        if budget.hard:
            if not self._engine.opened.trusted:
                text = ": the engine has to pass its self-test first; call self_test, or open the scorer with warm_up"
                raise budget.exceeded(text)
            return
        if self._renew():
            budget.excuse()
        if not self._engine.opened.trusted:
            self._test()
            budget.excuse()

    def _renew(self) -> bool:
        renewed = self._engine.renew()
        if renewed:
            self._time_steps()
        return renewed

    def _count_study(self) -> None:
        self._engine.opened.count_study()
        if self._repeats is not None:
            self._repeats.count_study()

    def _time_steps(self) -> None:
        if self._budget_ms is not None:
            self._views.warm_up(Budget(None, False, 0.0, self._views.durations, self._clock))

    def _test(self) -> None:
        if self._engine.test():
            self._time_steps()

    def _test_if_idle(self) -> bool:
        """What `Repeats` calls: false if a study is being scored."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._closed:
                with suppress(SpineScoreError):  # the next study tests again, and raises it
                    self._test()
            return True
        finally:
            self._lock.release()
