"""What `score`, `demo`, `crops` and `compare` share: reading files, opening a scorer, saying what was refused."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, OVER_BUDGET, UsageError, check_paths, say

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport
    from spinescore.runtime.scorer import Scorer

__all__ = [
    "as_asked",
    "check_folder",
    "is_scored",
    "open_and_read",
    "open_scorer",
    "say_what_was_refused",
    "status_of",
]


def check_folder(folder: Path | None) -> None:
    """Refuse, before any work, a folder for results that is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")


@contextmanager
def open_and_read(arguments: argparse.Namespace) -> Iterator[tuple[Scorer, list[Study]]]:
    """A scorer, and the studies in files and folders, which are read while it is opened.

    What cannot be read stands in a study's rejects. With `--budget-ms`, which counts reading, that waits until it has
    the machine to itself.
    """
    # What opening needs is imported first, and nothing by both threads; pydicom, which is slow, while networks load.
    import cv2  # noqa: F401

    import spinescore.runtime.scorer  # noqa: F401
    from spinescore.runtime.dicom import load_studies

    check_paths(arguments.paths)
    with ThreadPoolExecutor(1, "spinescore-read") as pool:
        read = partial(load_studies, arguments.paths, window=arguments.window)
        reading = pool.submit(read) if getattr(arguments, "budget_ms", None) is None else None
        with open_scorer(arguments) as scorer:
            yield scorer, read() if reading is None else reading.result()


def as_asked(studies: Sequence[Study], arguments: argparse.Namespace) -> list[Study]:
    """The studies as `--anonymous`, `--region` and `--facing` have them. Raises UsageError, before any is scored."""
    from spinescore.runtime.intake import anonymous, stated

    changed = []
    for number, study in enumerate(studies, 1):
        known = anonymous(study) if arguments.anonymous else study
        try:
            changed.append(stated(known, arguments.region, arguments.facing))
        except ValueError as error:
            raise UsageError(f"study {number}: {error}" if len(studies) > 1 else str(error)) from error
    return changed


def open_scorer(arguments: argparse.Namespace) -> Scorer:
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
        progress=say,
        max_imputed_per_region=arguments.max_imputed,
        budget_ms=getattr(arguments, "budget_ms", None),
        plan=None if arguments.plan == "none" else arguments.plan,
    )


def say_what_was_refused(report: StudyReport) -> None:
    for warning in report.warnings:
        say(f"warning: {warning}")
    rejects = [*report.rejects, *(region.reject for region in report.regions.values() if region.reject)]
    for line in dict.fromkeys(f"rejected ({reject.code}): {reject.message}" for reject in rejects):
        say(line)


def is_scored(report: StudyReport) -> bool:
    return any(region.status == "scored" for region in report.regions.values())


def status_of(reports: Sequence[StudyReport]) -> int:
    if not any(is_scored(report) for report in reports):
        return NOTHING_SCORED
    return OVER_BUDGET if any(report.within_budget is False for report in reports) else OK
