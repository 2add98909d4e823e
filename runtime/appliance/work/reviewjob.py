"""A reader's job for the worker: the view of a radiograph, or the report of a study with a correction.

It goes the way of a console's job (`consolejob`), and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from spinescore.runtime.appliance.store.resultset import JobObject
from spinescore.runtime.appliance.work.consolejob import ConsoleJob
from spinescore.runtime.fields import OPTIONAL
from spinescore.runtime.scoring.correction import Correction

__all__ = ["JOBS", "VIEW", "ReviewJob", "WebJob", "name_of"]

VIEW = "view"  # the file with a view


@dataclass(frozen=True)
class ReviewJob:
    """A study's objects to score with corrections; `seen` is the report that the reader sees.

    Without corrections it is one radiograph, and its view is made.
    """

    key: str
    folder: str
    objects: tuple[JobObject, ...]
    corrections: Annotated[tuple[Correction, ...], OPTIONAL] = ()
    seen: Annotated[str | None, OPTIONAL] = None


WebJob = ConsoleJob | ReviewJob
JOBS: Mapping[str, type[WebJob]] = {"score": ConsoleJob, "review": ReviewJob}  # by their names in messages


def name_of(job: WebJob) -> str:
    """Return the name of a job's kind in messages."""
    return next(name for name, kind in JOBS.items() if isinstance(job, kind))
