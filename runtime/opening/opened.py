"""A bundle that was opened on an engine: by a plan, on the first engine that passes its self-test, or on a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spinescore.runtime.acceptance import AcceptanceRecord, mark_failed
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, open_device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.errors import CODES, SelfTestError
from spinescore.runtime.logs import CACHE, OPENING, log_engine
from spinescore.runtime.machine.caches import cache_place
from spinescore.runtime.opening import Candidate, Wanted, finding_of, open_first
from spinescore.runtime.opening.building import open_and_build
from spinescore.runtime.opening.caller import Caller
from spinescore.runtime.opening.plan import Way, open_by_plan
from spinescore.runtime.opening.renewal import Renewal
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.scoring.report import DeviceInfo
from spinescore.runtime.scoring.views import Views
from spinescore.runtime.study import Finding

__all__ = ["EngineInUse", "Opened", "Request", "open_bundle"]


@dataclass(frozen=True)
class Request:
    """How a bundle is to be opened; the arguments of `Scorer.open`."""

    way: Way
    plan: str | Path | None
    build: str
    progress: Callable[[str], None] | None
    largest_image_px: int
    caller: Caller


class Opened:
    """A bundle on one engine: it scores studies once it has passed its self-test. Close it.

    `choice` is None for the device's own engine, `record` for an engine that needs none. Every report has `warnings`
    and `findings`, which are of engines and not of radiographs.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        choice: EngineChoice | None = None,
        record: AcceptanceRecord | None = None,
        effort: Effort | None = None,
        warnings: tuple[str, ...] = (),
        findings: tuple[Finding, ...] = (),
        caller: Caller | None = None,
    ) -> None:
        """Owns `device` from here on: it is closed with this, or here if the bundle does not fit it."""
        self.bundle, self.choice, self.warnings, self.findings = bundle, choice, warnings, findings
        self._record, self._caller = record, caller or Caller()
        self.views = Views(bundle, device, effort, self._caller.begin)
        pipeline = self.views.pipeline
        self.info = DeviceInfo(device.kind, device.name, pipeline.framework, pipeline.precision)
        self._passed = False  # the latest self-test
        self._studies = 0  # that were scored since then
        if choice is not None and not self.views.testable:
            self.findings += (_untested(self.info.engine, bundle),)

    @property
    def trusted(self) -> bool:
        """Whether it may give out grades: it passed its latest self-test, or nothing can test it."""
        return self._passed or not self.views.testable

    def check(self, way: Way) -> None:
        """Refuse an engine that is another than the record's, or the plan's. Raises `EngineError`."""
        if self._record is not None:
            self._record.check_opened(self.views.pipeline.engines, self.bundle)
        way.check(self.info.engine)

    def count_study(self) -> None:
        self._studies += 1

    def test(self) -> None:
        """Run the self-test. If it fails, the acceptance record is marked as failed, and `SelfTestError` raised.

        Raises `Cancelled`, too.
        """
        self._passed = False
        self._caller.begin(f"self-test of {self.info.engine} {self.info.precision}")
        try:
            self.views.self_test(self._caller.go_on)
        except SelfTestError as failed:
            if self._record is not None:
                mark_failed(self._record, self.bundle, str(failed))
            if not self._studies:
                raise
            raise SelfTestError(
                f"{failed} It had passed before: {self._studies} studies have been scored since then; score them again."
            ) from failed
        self._passed, self._studies = True, 0

    def close(self) -> None:
        """Free the device, with its networks and buffers. Closing twice is no error."""
        self.views.close()


class EngineInUse:
    """The engine that scores now, and what may take its place. Not for two threads at once; close it."""

    def __init__(
        self,
        opened: Opened,
        renewal: Renewal[Opened] | None = None,
        reopen: Callable[[], tuple[Opened, Renewal[Opened]]] | None = None,
        caller: Caller | None = None,
    ) -> None:
        """`renewal` is what is being built, `reopen` opens another engine; without it none may take the place.

        `caller` is asked whether to go on whenever another engine is opened or tested.
        """
        self.opened, self._renewal, self._reopen = opened, renewal or Renewal(), reopen
        self.caller = caller or Caller()

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every report."""
        return (*self.opened.warnings, *self._renewal.warnings)

    def renew(self) -> bool:
        """Take the engine that was built meanwhile; returns whether there was one."""
        if (new := self._renewal.taken()) is None:
            return False
        self._take(new)
        return True

    def test(self) -> bool:
        """Test the engine, and take another one if it fails; returns whether that was done.

        Raises `SelfTestError` if no other engine may be taken, else what opening one raises.
        """
        try:
            self.opened.test()
            return False
        except SelfTestError as failed:
            if self._reopen is None:
                raise
            new, renewal = self._reopen()
            new.findings = (finding_of(failed), *new.findings)
        self._renewal.close()
        self._renewal = renewal
        self._take(new)
        return True

    @property
    def is_checking(self) -> bool:
        """Whether this CPU's engines are being checked."""
        return self._renewal.is_checking

    def wait(self) -> tuple[str, ...]:
        """Wait for what is being built or checked, and return the warnings that come of it."""
        return self._renewal.wait()

    def close(self) -> None:
        """Free the device, and end what is being built. Closing twice is no error."""
        self._renewal.close()
        self.opened.close()

    def _take(self, new: Opened) -> None:
        OPENING.debug("engine %s takes the place of %s", new.info.engine, self.opened.info.engine)
        new.views.give(self.opened.views.efforts[0])
        self.opened.close()
        self.opened = new


def open_bundle(whole: Bundle, request: Request, *, test: bool) -> EngineInUse:
    """Open the bundle on the first engine that can be had.

    With `test` an engine that fails its self-test is passed over for the next one; else it is not tested here. Raises
    `BundleError`, `EngineError` or `DeviceError`, `Cancelled`, and `ValueError` for a name that is not known.
    """

    CACHE.debug("what is kept for this user lies in %s", cache_place())
    caller = request.caller

    def open_way(way: Way, test: bool) -> tuple[Opened, Renewal[Opened]]:
        bundle = whole.with_localizer(way.localizer)

        def attempt(candidate: Candidate) -> Opened:
            caller.begin(f"bundle {bundle.manifest.name} on {candidate.kind}, {candidate.choice or 'its own engine'}")
            device = open_device(candidate.kind, way.threads, request.largest_image_px, candidate.choice)
            warnings, findings = (*way.warnings, *candidate.warnings), (*way.findings, *candidate.findings)
            opened = Opened(bundle, device, candidate.choice, candidate.record, way.effort, warnings, findings, caller)
            try:
                opened.check(way)
                if test:
                    opened.test()
            except BaseException:
                opened.close()
                raise
            log_engine(opened.info, candidate.record, way.localizer, warnings)
            return opened

        def open_wanted(wanted: Wanted) -> Opened:
            return open_first(bundle, wanted, attempt)

        return open_and_build(bundle, way.wanted, request.build, open_wanted, request.progress, caller)

    def open_now(test: bool) -> tuple[Opened, Renewal[Opened]]:
        return open_by_plan(whole, request.way, request.plan, partial(open_way, test=test))

    return EngineInUse(*open_now(test), None if request.way.wanted.engine else partial(open_now, True), caller)


def _untested(engine: str, bundle: Bundle) -> Finding:
    code = "engine-untested"
    text = f"Engine {engine} could not be tested: bundle {bundle.manifest.name} has no golden inputs"
    return Finding(code, "warning", f"{text}; {CODES[code].next_step}.")
