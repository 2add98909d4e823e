"""Different studies, each scored once: what a day's work takes, where `rounds` repeats one study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks.bench.figures import figures
from spinescore.benchmarks.bench.rounds import Limit
from spinescore.runtime.errors import InputRejected

if TYPE_CHECKING:
    from spinescore.benchmarks.bench.subject import PhantomStudy, Subject
    from spinescore.runtime.scorer import Scorer

__all__ = ["OWN", "PHANTOMS", "studies"]

PHANTOMS, OWN = "phantoms", "own"


def studies(
    subject: Subject,
    scorer: Scorer,
    given: Sequence[PhantomStudy],
    source: str,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Milliseconds from paths to report over `given`, one value a study, until `seconds` are over.

    Files are read once beforehand, so that all are in the page cache, as those of the repeated study are. A study that
    cannot be read, or of which no region is scored, is counted, and is not among the values.
    """
    values: list[float] = []
    done = not_scored = 0
    limit = Limit(len(given), seconds)
    for study in given:
        if limit.reached(done):
            break
        _warm(study.files)
        work = subject.on(study).work(scorer)
        done += 1
        started = clock()
        try:
            report = work()
        except InputRejected:
            not_scored += 1
            continue
        took_ms = (clock() - started) * 1e3
        if any(region.status == "scored" for region in report.regions.values()):
            values.append(took_ms)
        else:
            not_scored += 1
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
