"""Different studies, each scored once, as in a day's work; `rounds` repeats one study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks.harness.timing import Limit, figures
from spinescore.runtime.errors import InputRejected

if TYPE_CHECKING:
    from spinescore.benchmarks.harness.subject import Subject
    from spinescore.runtime.phantom.labelled import PhantomStudy
    from spinescore.runtime.scorer import Scorer

__all__ = ["studies"]


def studies(
    subject: Subject,
    scorer: Scorer,
    given: Sequence[PhantomStudy],
    source: str,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time each study once, from its paths to the report, until `seconds` are over.

    Files are read once beforehand, so that they are in the page cache, like those of the repeated study. A study that
    cannot be read, or has no region scored, is counted in `not_scored` and not timed.
    """
    values: list[float] = []
    not_scored = 0
    limit = Limit(len(given), seconds)
    for number, study in enumerate(given):
        if limit.reached(number):
            break
        _warm(study.files)
        work = subject.on(study).work(scorer)
        started = clock()
        try:
            scored = any(region.status == "scored" for region in work().regions.values())
            values += [(clock() - started) * 1e3] if scored else []
        except InputRejected:
            scored = False
        not_scored += not scored
    return {
        "source": source,
        "given": len(given),
        "scored": len(values),
        "not_scored": not_scored,
        "whole": figures(values) if values else None,
    }


def _warm(paths: Sequence[Path]) -> None:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            with suppress(OSError):
                file.read_bytes()
