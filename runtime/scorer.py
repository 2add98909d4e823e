"""`Scorer`: open a bundle on a device once, then score one study after another."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spinescore.runtime.acceptance.repeats import check_repeats
from spinescore.runtime.arguments import check_event, check_flag, check_kind, check_open
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.caller import Caller
from spinescore.runtime.devices import LARGEST_IMAGE_PX, Device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.opening.inuse import EngineInUse
from spinescore.runtime.opening.openscorer import Opening, open_bundle
from spinescore.runtime.opening.request import Request
from spinescore.runtime.opening.session import Session
from spinescore.runtime.scoring.budget import Clock, Effort, OnStage, checked_ms
from spinescore.runtime.scoring.inputs import Crop
from spinescore.runtime.scoring.intake import Keypoints, StudyInput
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.scoring.studyscorer import ScoredCrops, StudyScorer
from spinescore.runtime.scoring.views import Views

__all__ = ["Crop", "ScoredCrops", "Scorer"]


class Scorer:
    """A bundle on a device, ready to score. Use `Scorer.open`, and close it or use it as a context manager.

    Every method may be called from every thread. `score`, `crops`, `self_test` and `give` take turns: each waits until
    no other one runs. `try_score`, `is_checking`, `choice` and `close(wait=False)` never wait. A callback may call
    these four; a call that would wait for its own study raises `RuntimeError`. Several scorers run side by side.

    In a forked process a scorer raises `DeviceError`: open one in each process, or start processes with `spawn`. A
    scorer that is garbage-collected without being closed is closed as by `close(wait=False)`.
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
        """Own `device` from here on: it is closed with the scorer, or here if the bundle does not fit it.

        The device's engine need not be accepted, but has to pass its self-test. Each report has `warnings`. `effort` is
        spent on a study if there is time, by default the manifest's. `clock` counts seconds. Raises `SelfTestError`.
        """
        check_kind("bundle", bundle, Bundle, "Scorer.open(bundle, device)")
        scorer = StudyScorer(bundle, device, max_imputed_per_region, effort=effort, warnings=warnings, clock=clock)
        self._set_up(EngineInUse(Opening(scorer)), budget_ms)
        try:
            self._session.test()
            self._session.time_steps()
        except BaseException:
            self.close()
            raise

    def _set_up(self, engine: EngineInUse, budget_ms: float | None) -> None:
        self.bundle: Bundle = engine.scorer.bundle
        self._session = Session(engine, budget_ms)
        weakref.finalize(self, self._session.turns.close, wait=False).atexit = False

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
        cancel: threading.Event | None = None,
    ) -> Scorer:
        """Open a bundle (a folder, or the name of one that ships with the package) on a device, and warm it up.

        `device` is `auto`, `cpu` or `cuda`. `auto` takes the GPU if it can score this bundle, else the CPU, and each
        report then warns why. `threads` limits the networks' threads on a CPU. `largest_image_px` is the number of
        pixels for which a GPU allocates memory at first.

        The networks run on the fastest engine that was accepted for this bundle on this hardware (`spinescore bundle
        verify BUNDLE --device D`). A CPU without records uses ONNX Runtime in FP32. `engine` (`onnxruntime`,
        `openvino`, `tensorrt`) and `precision` (`fp32`, `bf16`, `fp16`, `int8`) narrow the choice.
        `require_acceptance=False` also takes engines that were not accepted, and builds none. `localizer` names one of
        the bundle's alternatives to its own localizer.

        If no engine of this bundle was accepted for the GPU, one is built once and put through the same gate, in a
        process of its own. That needs a TensorRT that can build and the extra `export`; it takes seconds with
        TensorRT-RTX, and can take minutes with the full TensorRT. `build="now"` waits for it. `"background"` scores on
        another engine until then (and waits if there is none), and takes the new engine between two studies. `"no"`
        builds nothing. If the build fails, each report warns why.

        On a CPU with OpenVINO, the gate is run once if none of its engines was accepted yet; `build` applies to that,
        too. The default, `"auto"`, builds a GPU's engines now, and checks a CPU's in the background.

        `budget_ms` is the budget of every study for which `score` gets none; the default is the bundle's, if it has
        one. With a budget the steps are timed here, so that the first study's time can be divided. A `plan`
        (`spinescore plan`) chooses engine, precision, threads, passes and localizer: the plan in that file, or with
        `auto` the one that was made for this bundle on this machine, if the call names none of these. If a named plan
        does not hold, it is refused; with `auto` it is ignored with a warning.

        An engine gives out grades only after a self-test in this process: it runs golden inputs of the bundle as it
        will run studies, and has to stay within the bundle's tolerances. If it fails, its acceptance record is marked
        as failed, the next engine is taken, and each report says so (finding `engine-failed`); if `engine` named it,
        `SelfTestError` is raised instead. The self-test also warms the networks up. Without `warm_up` the first study
        does it, and takes longer; with a budget it is done here in any case. `self_test_studies` and
        `self_test_minutes` repeat it after so many studies or minutes, in a thread of this scorer, when no study is
        being scored.

        `progress` gets lines of text: a line that begins with `opening:` names the next step of the opening. Other
        lines come from a process that builds or checks engines, also after the opening. It may be called in other
        threads. If it raises, the opening ends; at a line from another process the error is dropped. Set `cancel` from
        another thread, or in `progress`, to end the opening before its next step or network. No thread, process or file
        is left then.

        Raises `BundleError`, `EngineError` or `DeviceError`, `Cancelled`, and `TypeError` or `ValueError` for arguments
        that are not valid.
        """
        checked_ms(budget_ms)
        check_open(
            bundle, plan, threads=threads, max_imputed_per_region=max_imputed_per_region,
            largest_image_px=largest_image_px, localizer=localizer, progress=progress,
            flags={"require_acceptance": require_acceptance, "warm_up": warm_up},
        )  # fmt: skip
        check_event("cancel", cancel)
        check_repeats(self_test_studies, self_test_minutes)
        caller = Caller(progress, cancel)
        caller.begin(f"the files of bundle {bundle} are checked")
        whole = Bundle.open(bundle)
        request = Request(
            device, engine, precision, require_acceptance, threads, localizer, plan, build, largest_image_px,
            max_imputed_per_region, progress, caller,
        )  # fmt: skip
        test = warm_up or (budget_ms or whole.manifest.budget_ms) is not None
        opening = open_bundle(whole, request, test=test)
        scorer = cls.__new__(cls)
        scorer._set_up(EngineInUse(opening, whole, request, test=test), budget_ms)
        try:
            scorer._session.time_steps()
            if self_test_studies is not None or self_test_minutes is not None:
                scorer._session.repeat_tests(self_test_studies, self_test_minutes)
        except BaseException:
            scorer.close()
            raise
        caller.leave()
        return scorer

    @property
    def choice(self) -> EngineChoice | None:
        """The chosen engine; None for the one that the device takes by itself."""
        return self._session.engine.scorer.choice

    @property
    def _views(self) -> Views:
        return self._session.engine.scorer.views

    def give(self, effort: Effort) -> None:
        """Work with this effort from the next study on, if there is time; it replaces the manifest's or the plan's."""
        check_kind("effort", effort, Effort)
        with self._session.turns.turn():
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
        on_stage: OnStage | None = None,
    ) -> StudyReport:
        """Score one study: a `Study`, radiographs, or a mapping from region to a `Radiograph`, array or DICOM dataset.

        `keypoints` (region -> level -> (centre xy, anterior xy), in source pixels) replace the localizer's points of
        those discs. A region that cannot be scored is rejected in the report. With `strict`, a warning on a
        radiograph's quality (`report.findings`) also rejects its region.

        `budget_ms` counts from this call. With `count_reading`, the time that reading the study took before
        (`Study.read_ms`) is added, as on the command line. Steps that do not fit are skipped (`report.skipped`; the
        order is in `spinescore.runtime.scoring.budget`). Steps that cannot be skipped run all the same, unless the
        budget is `hard`. A hard call never tests an engine, nor takes one that was built or checked meanwhile: a call
        without `hard`, `self_test` or `wait_for_check` does. Set `cancel` from another thread to end the call at the
        next stage, which on a GPU is the next launch.

        `on_stage(stage, number, count)` is called in this thread when a stage begins: `select`, `upload`, `localize`,
        `crop`, `grade`, `report`, numbered from 1 to 6, each at most once and in that order. A stage that is not needed
        is left out. On a GPU, so are `crop` and `grade`, which run with `localize`. If it raises, the call ends.

        Raises `TypeError` or `ValueError` for arguments of the wrong form, `InputRejected` for two patients,
        `BudgetExceeded` as soon as it is certain that a hard budget is not kept, and `Cancelled`. The scorer can be
        used after each of them.
        """
        budget = self._session.budget(study, budget_ms, hard, cancel, count_reading, on_stage)
        return self._session.score(study, keypoints, budget, strict).report

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
        on_stage: OnStage | None = None,
    ) -> StudyReport | None:
        """Like `score`, but return None immediately, without looking at the study, if the scorer is busy."""
        budget = self._session.budget(study, budget_ms, hard, cancel, count_reading, on_stage)
        scored = self._session.try_score(study, keypoints, budget, strict)
        return None if scored is None else scored.report

    def crops(
        self,
        study: StudyInput,
        keypoints: Keypoints | None = None,
        *,
        strict: bool = False,
        cancel: threading.Event | None = None,
        on_stage: OnStage | None = None,
    ) -> ScoredCrops:
        """Return the regions exactly as the grader sees them, for training. There is no budget.

        `cancel` and `on_stage` are those of `score`.
        """
        budget = self._session.without_budget(cancel, on_stage)
        return self._session.score(study, keypoints, budget, strict, with_crops=True)

    def self_test(self) -> None:
        """Test the engine again now, and take another one if it fails, as at opening.

        Waits for the study that is being scored. Raises `SelfTestError` if no other engine may be taken, and again at
        the next study, and `DeviceError` if the scorer is closed.
        """
        with self._session.turns.turn():
            self._session.test()

    @property
    def is_checking(self) -> bool:
        """Whether this CPU's engines are being checked in the background."""
        return self._session.engine.is_checking

    def wait_for_check(self) -> tuple[str, ...]:
        """Wait until this CPU's engines are checked, and return the warnings of the check.

        The next study is scored on the accepted engine. `close` in another thread ends the check and the wait.
        """
        return self._session.wait_for_check()

    def close(self, *, wait: bool = True) -> None:
        """Free the device, networks and memory after the study that is being scored. Closing twice is no error.

        From now on other calls raise `DeviceError`, also those that wait for their turn. When `close` returns, no
        thread or process of this scorer is left. The last scorer of a process also ends the workers that decode
        compressed pixels; the next compressed image starts them again. With `wait=False` it returns immediately and
        another thread does the work; the interpreter waits for that thread. To end sooner, set the study's `cancel`.
        """
        check_flag("wait", wait)
        self._session.turns.close(wait)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
