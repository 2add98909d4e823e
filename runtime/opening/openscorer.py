"""Open a bundle: by a plan, on the first engine that can be had, or on one that is built or checked for it first."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines import ENGINES
from spinescore.runtime.errors import BundleError, DeviceError, EngineError
from spinescore.runtime.logs import CACHE
from spinescore.runtime.machine.caches import cache_place
from spinescore.runtime.opening.background import Build, Job
from spinescore.runtime.opening.building import BuildJob, find_build
from spinescore.runtime.opening.candidates import open_first
from spinescore.runtime.opening.checking import find_check
from spinescore.runtime.opening.planned import find_plan, request_by_plan, request_without_plan
from spinescore.runtime.opening.request import Request
from spinescore.runtime.scoring.studyscorer import StudyScorer

__all__ = ["Opening", "open_bundle"]


@dataclass(frozen=True)
class Opening:
    """A bundle that was opened.

    `warnings`, for every report, are on engines that could not be made. `build` is the process that makes or checks
    engines meanwhile, if any.
    """

    scorer: StudyScorer
    warnings: tuple[str, ...] = ()
    build: Build | None = None


def open_bundle(whole: Bundle, request: Request, *, test: bool) -> Opening:
    """Open the bundle by the plan that holds here, else as requested.

    With `test`, an engine that fails its self-test is passed over for the next one; without it no engine is tested
    here. Raises `BundleError`, `EngineError` or `DeviceError`, `Cancelled`, and `ValueError` if the user names both a
    plan and what it chooses.
    """
    CACHE.debug("what is kept for this user lies in %s", cache_place())
    path, plan, notes = find_plan(whole, request)
    if plan is None:
        return _open_or_build(whole, replace(request, warnings=notes), test)
    try:
        return _open_or_build(whole, request_by_plan(whole, request, path, plan), test)
    except (BundleError, EngineError, DeviceError) as error:
        return _open_or_build(whole, request_without_plan(whole, request, path, plan, error), test)


def _open_or_build(whole: Bundle, request: Request, test: bool) -> Opening:
    """Open the bundle; before that or meanwhile let another process build or check engines, if there are any to make.

    An opened scorer is closed before another process works on engines first: it needs the memory.
    """
    bundle = whole.with_localizer(request.localizer)
    scorer: StudyScorer | None = None
    refusal: EngineError | DeviceError | None = None
    with ExitStack() as unused:
        try:
            scorer = open_first(bundle, request, test=test)
            unused.callback(scorer.close)
        except (EngineError, DeviceError) as error:
            refusal = error
        job, warnings = _find_job(bundle, request, scorer)
        if scorer is not None and (job is None or not _comes_first(job, request)):
            build = None if job is None else Build(bundle, job, request, aside=True)
            unused.pop_all()
            return Opening(scorer, warnings, build)
    if job is not None:
        warnings += _made(bundle, request, job)
        try:
            return Opening(open_first(bundle, request, test=test), warnings)
        except (EngineError, DeviceError) as error:
            refusal = error
    assert refusal is not None
    raise type(refusal)(" ".join((str(refusal), *warnings))) from refusal


def _find_job(bundle: Bundle, request: Request, scorer: StudyScorer | None) -> tuple[Job | None, tuple[str, ...]]:
    """Return what another process can do for this request, and warnings if it cannot be done or failed before."""
    job: Job | None = None
    warnings: tuple[str, ...] = ()
    prebuilt = scorer is not None and scorer.choice is not None and ENGINES[scorer.choice.engine].prebuilt
    if request.build != "no" and not prebuilt:
        job, warnings = find_build(bundle, request)
    if job is None and scorer is not None and scorer.info.kind == "cpu":
        job, notes = find_check(bundle, request, request.build != "no")
        warnings += notes
    return job, warnings


def _comes_first(job: Job, request: Request) -> bool:
    """Whether the scorer waits for the job: `auto` waits for a GPU's engines, but not for the check of a CPU's."""
    return request.build == "now" or (request.build == "auto" and isinstance(job, BuildJob))


def _made(bundle: Bundle, request: Request, job: Job) -> tuple[str, ...]:
    """Do the job in another process and wait for it; return the warnings that come of it."""
    with Build(bundle, job, request) as build:
        warnings = build.wait(request.caller)
    # If a GPU's engines have records by now, opening the bundle says what stands in them.
    return () if isinstance(job, BuildJob) and build.judged else warnings
