"""Reading studies, opening a scorer, and messages about a report, for the verbs that score."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, OVER_BUDGET, UsageError, check_paths, say

if TYPE_CHECKING:
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = [
    "as_asked",
    "heads_of",
    "is_scored",
    "open_and_read",
    "open_scorer",
    "read_on_demand",
    "say_warnings_and_rejects",
    "status_of",
    "study_reader",
    "wait_for_check",
]

_ON_DEMAND = {"on_demand": True}


@contextmanager
def open_and_read(arguments: argparse.Namespace, on_demand: bool = False) -> Iterator[tuple[Scorer, Sequence[Study]]]:
    """Yield an open scorer and the studies, which are read while the scorer is opened.

    Files that cannot be read are among a study's rejects. `on_demand` is as in `load_studies`. A budget includes
    reading, so with `--budget-ms` reading starts only when the scorer is open.
    """
    # Modules that opening needs are imported first, so that no module is imported by both threads. pydicom, which is
    # slow to import, is imported while the networks load.
    import cv2  # noqa: F401

    import spinescore.runtime.scorer  # noqa: F401

    read = study_reader(arguments, on_demand)
    with ThreadPoolExecutor(1, "spinescore-read") as pool:
        reading = pool.submit(read) if getattr(arguments, "budget_ms", None) is None else None
        with open_scorer(arguments) as scorer:
            studies: Sequence[Study] = read() if reading is None else reading.result()
            if isinstance(studies, StudiesOnDemand) and reading is None:
                studies.ahead_bytes = 0
            with read_on_demand(lambda: studies):
                yield scorer, studies
            wait_for_check(scorer)


@contextmanager
def read_on_demand(read: Callable[[], Sequence[Study]]) -> Iterator[Sequence[Study]]:
    """Yield the studies that `read` returns, and close them at the end."""
    studies = read()
    try:
        yield studies
    finally:
        if isinstance(studies, StudiesOnDemand):
            studies.close()


def heads_of(studies: Sequence[Study]) -> Sequence[Study]:
    """Return the studies without their pixels, if these are read on demand."""
    return studies.heads if isinstance(studies, StudiesOnDemand) else studies


def study_reader(arguments: argparse.Namespace, on_demand: bool = False) -> Callable[[], Sequence[Study]]:
    """Return a function that reads the studies of PATH, or of the list of `--inputs`.

    Both raise UsageError; `study_reader` itself raises it for everything that can be checked before a file is read.
    """
    if arguments.inputs is None and not arguments.paths:
        arguments.wrong_usage("the following arguments are required: PATH, or --inputs LIST")
    if arguments.inputs is not None and arguments.paths:
        raise UsageError("radiographs are named by PATH or listed by --inputs LIST; leave one of the two out")
    if arguments.inputs is None:
        from spinescore.runtime.reading.studies import load_studies

        check_paths(arguments.paths)
        return partial(load_studies, arguments.paths, window=arguments.window, **_ON_DEMAND if on_demand else {})
    from spinescore.runtime.reading.filelist import load_listed, read_list

    if arguments.region or arguments.facing:
        raise UsageError("the list of --inputs states region and facing for each file; leave out --region and --facing")
    try:
        files = read_list(arguments.inputs)
    except ValueError as error:
        raise UsageError(str(error)) from error

    def read() -> Sequence[Study]:
        try:
            return load_listed(files, window=arguments.window, on_demand=on_demand)
        except ValueError as error:
            raise UsageError(str(error)) from error

    return read


def as_asked(studies: Sequence[Study], arguments: argparse.Namespace) -> Sequence[Study]:
    """Return the studies, changed by `--anonymous`, `--region` and `--facing`. Raises UsageError before scoring."""
    from spinescore.runtime.reading.anonymous import anonymous
    from spinescore.runtime.reading.userfacts import stated

    def changed(study: Study) -> Study:
        return stated(anonymous(study) if arguments.anonymous else study, arguments.region, arguments.facing)

    def checked(number: int) -> Study:
        try:
            return changed(studies[number])
        except ValueError as error:
            raise UsageError(f"study {number + 1}: {error}" if len(studies) > 1 else str(error)) from error

    if not isinstance(studies, StudiesOnDemand):
        return [checked(number) for number in range(len(studies))]
    for number in range(len(studies)) if arguments.region or arguments.facing else ():
        checked(number)
    return studies.changed(changed)


def open_scorer(arguments: argparse.Namespace) -> Scorer:
    """Return a scorer as the options of `options.add_scorer` ask for it. Raises UsageError if they contradict."""
    from spinescore.runtime.scorer import Scorer

    chosen = arguments.engine or arguments.precision or arguments.unaccepted or arguments.localizer
    if arguments.plan not in ("auto", "none") and chosen:
        raise UsageError(
            "--plan chooses engine and precision: leave out --engine, --precision, --unaccepted and --localizer"
        )
    return Scorer.open(
        arguments.bundle,
        arguments.device,
        engine=arguments.engine,
        precision=arguments.precision,
        localizer=arguments.localizer,
        require_acceptance=not arguments.unaccepted,
        build=arguments.build,
        progress=_say_of_engines,
        max_imputed_per_region=arguments.max_imputed,
        budget_ms=getattr(arguments, "budget_ms", None),
        plan=None if arguments.plan == "none" else arguments.plan,
    )


def _say_of_engines(line: str) -> None:
    """Print messages about building and checking engines, which take long, but not each step of opening."""
    from spinescore.runtime.caller import PREFIX

    if not line.startswith(PREFIX):
        say(line)


def wait_for_check(scorer: Scorer) -> None:
    """Wait until the check of this CPU's engines is done, so that the next call is fast. Ctrl-C stops the check."""
    if not scorer.is_checking:
        return
    say("waiting until the faster engine is checked, which is done once (Ctrl-C stops it; --build no leaves it out)")
    with suppress(KeyboardInterrupt):
        for warning in scorer.wait_for_check():
            say(f"warning: {warning}")


def say_warnings_and_rejects(report: StudyReport) -> None:
    """Print the report's warnings and rejects as messages."""
    for warning in report.warnings:
        say(f"warning: {warning}")
    rejects = [*report.rejects, *(region.reject for region in report.regions.values() if region.reject)]
    for line in dict.fromkeys(f"rejected ({reject.code}): {reject.message}" for reject in rejects):
        say(line)


def is_scored(report: StudyReport) -> bool:
    """Return whether at least one region was scored."""
    return any(region.status == "scored" for region in report.regions.values())


def status_of(report: StudyReport) -> int:
    """Return the exit status for this report."""
    if not is_scored(report):
        return NOTHING_SCORED
    return OVER_BUDGET if report.within_budget is False else OK
