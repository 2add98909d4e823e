"""Score studies on one engine, in one thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from spinescore.runtime.acceptance import AcceptanceRecord, mark_failed
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.caller import Caller
from spinescore.runtime.devices import Device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import CODES, SelfTestError
from spinescore.runtime.logs import log_study
from spinescore.runtime.scoring.budget import Budget, Clock, OnStage
from spinescore.runtime.scoring.inputs import Crop, latest_crops
from spinescore.runtime.scoring.intake import GivenPoints
from spinescore.runtime.scoring.judgement import strictly
from spinescore.runtime.scoring.launches import Effort
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.scoring.report import DeviceInfo, StudyReport
from spinescore.runtime.scoring.reporting import study_report, timed, with_findings
from spinescore.runtime.scoring.scoredquality import of_results
from spinescore.runtime.scoring.selection import select
from spinescore.runtime.scoring.views import Views
from spinescore.runtime.study import Finding, Study

__all__ = ["ScoredCrops", "StudyScorer"]


@dataclass(frozen=True, eq=False)
class ScoredCrops:
    """The crops of every region that was scored, with the report, which also has the regions that were not."""

    crops: tuple[Crop, ...]
    report: StudyReport


class StudyScorer:
    """A bundle on one engine: it scores studies once it has passed its self-test. Close it.

    It is for one thread at a time. `choice` is None for the engine that the device takes by itself. Every report has
    `warnings` and `findings`, which are on engines and not on radiographs.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        max_imputed_per_region: int = DEFAULT_MAX_IMPUTED,
        *,
        choice: EngineChoice | None = None,
        record: AcceptanceRecord | None = None,
        effort: Effort | None = None,
        warnings: tuple[str, ...] = (),
        findings: tuple[Finding, ...] = (),
        caller: Caller | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Own `device` from here on: it is closed with this scorer, or here if the bundle does not fit it.

        `record` is the acceptance record by which the engine may run, if it needs one. `effort` is the manifest's by
        default. The `caller` is asked whether to go on before each network is loaded or tested. `clock` counts seconds.
        """
        self.bundle, self.choice, self.warnings, self.findings = bundle, choice, warnings, findings
        self.caller = caller or Caller()
        self._record, self._max_imputed, self._clock = record, max_imputed_per_region, clock
        self.views = Views(bundle, device, effort, self.caller.begin)
        pipeline = self.views.pipeline
        self.info = DeviceInfo(device.kind, device.name, pipeline.framework, pipeline.precision)
        self.steps_timed = False  # by `time_steps`
        self._passed = False  # the latest self-test
        self._studies = 0  # scored since then
        if choice is not None and not self.views.testable:
            code = "engine-untested"
            text = f"Engine {self.info.engine} could not be tested: bundle {bundle.manifest.name} has no golden inputs"
            self.findings += (Finding(code, "warning", f"{text}; {CODES[code].next_step}."),)

    @property
    def trusted(self) -> bool:
        """Whether it may give out grades: it passed its latest self-test, or nothing can test it."""
        return self._passed or not self.views.testable

    def test(self) -> None:
        """Run the self-test. If it fails, mark the record and raise `SelfTestError`. Raises `Cancelled`, too."""
        self._passed = False
        self.caller.begin(f"self-test of {self.info.engine} {self.info.precision}")
        try:
            self.views.self_test(self.caller.go_on)
        except SelfTestError as failed:
            if self._record is not None:
                mark_failed(self._record, self.bundle, str(failed))
            if not self._studies:
                raise
            raise SelfTestError(
                f"{failed} It had passed before: {self._studies} studies have been scored since then; score them again."
            ) from failed
        self._passed, self._studies = True, 0

    def time_steps(self) -> None:
        """Time the steps of a study, so that a budget can be divided among them."""
        self.caller.begin("the steps are timed, for the budget")
        self.views.warm_up(self.budget(cancel=self.caller.cancel))
        self.steps_timed = True

    def budget(
        self,
        ms: float | None = None,
        hard: bool = False,
        read_ms: float = 0.0,
        cancel: threading.Event | None = None,
        on_stage: OnStage | None = None,
    ) -> Budget:
        """Return a budget for one study that counts from now; `read_ms` is added to it."""
        return Budget(ms, hard, read_ms, self.views.durations, self._clock, cancel, on_stage)

    def score(
        self,
        study: Study,
        given: GivenPoints | None = None,
        budget: Budget | None = None,
        *,
        strict: bool = False,
        with_crops: bool = False,
        warnings: tuple[str, ...] = (),
    ) -> ScoredCrops:
        """Score one study, as `Scorer.score`, but raise nothing for a budget that is exceeded at the end."""
        budget, given = budget or self.budget(), given or {}
        views, manifest = self.views, self.bundle.manifest
        budget.durations = views.durations
        try:
            budget.go_on()
            budget.begin("select")
            evidence = views.within(budget, len(study.radiographs))
            selection = select(study, manifest.localizer, given, evidence, strict)
            selection.warnings.extend((*self.warnings, *warnings, *views.device.warnings))
            budget.done("select")
            results = views.score(selection.chosen, given, budget)
            budget.begin("report")
            selection.follow({region: result.chosen for region, result in results.items()})
            selection.findings.extend(of_results(results, manifest.localizer.min_confidence))
            if strict:
                results = strictly(results, selection.findings)
            crops = latest_crops(views.pipeline, manifest.grader.input, results) if with_crops else ()
            report = study_report(study, self.bundle, self.info, selection, results, self._max_imputed)
            report = timed(with_findings(report, self.findings), study.read_ms, budget)
            log_study(report)
            self._studies += 1
            return ScoredCrops(crops, report)
        finally:
            views.device.forget()
            budget.end()

    def close(self) -> None:
        """Free the device, with its networks and buffers. Closing twice is no error."""
        self.views.close()

    def __enter__(self) -> StudyScorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
