"""The engine that scores now, and the one that takes its place: built or checked meanwhile, or after a failed test."""

from __future__ import annotations

from dataclasses import replace

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import Cancelled, SelfTestError, SpineScoreError
from spinescore.runtime.logs import OPENING
from spinescore.runtime.opening.candidates import finding_of, open_first
from spinescore.runtime.opening.checking import Check
from spinescore.runtime.opening.openscorer import Opening, open_bundle
from spinescore.runtime.opening.request import Request
from spinescore.runtime.scoring.studyscorer import StudyScorer

__all__ = ["EngineInUse"]


class EngineInUse:
    """Owns the scorer on the engine in use, and the process that makes another one. Close it.

    Only `is_checking` and `wait` may be called while another thread uses it.
    """

    def __init__(
        self, opening: Opening, whole: Bundle | None = None, request: Request | None = None, *, test: bool = True
    ) -> None:
        """Without `whole` and `request`, which open another engine, none takes the place of one that fails.

        `test` says whether an engine that was made meanwhile is tested when it is opened.
        """
        self._opening, self._whole, self._request, self._test = opening, whole, request, test

    @property
    def scorer(self) -> StudyScorer:
        return self._opening.scorer

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, for every report, on engines that are or were being made."""
        build = self._opening.build
        return (*self._opening.warnings, *([] if build is None else [build.job.sentence]))

    def renew(self) -> bool:
        """Take the engine that was accepted meanwhile; return whether there was one.

        Raises `Cancelled`; the next call then takes the engine.
        """
        build = self._opening.build
        if build is None or not build.finished:
            return False
        assert self._whole is not None
        with build:
            warnings = build.wait()
        scorer = None
        try:
            if not warnings:
                scorer = open_first(self._whole.with_localizer(build.then.localizer), build.then, test=self._test)
        except Cancelled:
            raise
        except SpineScoreError as error:
            warnings = (build.job.not_taken(error),)
        self._opening = replace(self._opening, warnings=warnings, build=None)
        if scorer is not None:
            self._take(replace(self._opening, scorer=scorer))
        return scorer is not None

    def test(self) -> bool:
        """Test the engine, and take another one if it fails; return whether that was done.

        Raises `SelfTestError` if no other engine may be taken, else what opening one raises.
        """
        try:
            self.scorer.test()
            return False
        except SelfTestError as failed:
            if self._whole is None or self._request is None or self._request.engine is not None:
                raise
            opening = open_bundle(self._whole, self._request, test=True)
            opening.scorer.findings = (finding_of(failed), *opening.scorer.findings)
        if self._opening.build is not None:
            self._opening.build.close()
        self._take(opening)
        return True

    @property
    def is_checking(self) -> bool:
        """Whether a CPU's engines are being checked, or were checked and are not taken yet."""
        build = self._opening.build
        return build is not None and isinstance(build.job, Check)

    def wait(self) -> tuple[str, ...]:
        """Wait for the process that makes engines, and return its warnings; the next `renew` takes the engine."""
        build = self._opening.build
        return () if build is None else build.wait()

    def close(self) -> None:
        """Free the device, and end the process that makes engines. Closing twice is no error."""
        if self._opening.build is not None:
            self._opening.build.close()
            self._opening = replace(self._opening, build=None)
        self.scorer.close()

    def _take(self, opening: Opening) -> None:
        old, self._opening = self.scorer, opening
        OPENING.debug("engine %s takes the place of %s", self.scorer.info.engine, old.info.engine)
        self.scorer.views.give(old.views.efforts[0])
        old.close()
