"""A console that uses spinescore: it hands over pixels in memory, and stays responsive while they are scored.

    python examples/console.py [FOLDER]

The scorer is opened once, when the program starts, and a separate thread scores the studies. A synthetic study replaces
the detector. A real console has its own code instead of the functions below `main`.
"""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from pydicom import dcmread

from spinescore.runtime import (
    Radiograph,
    Scorer,
    SpineScoreError,
    Study,
    StudyReport,
    radiograph_from_array,
    write_results,
)
from spinescore.runtime.phantom.study import PhantomView, dicom_file, draw_study

SEED = 1_500_000  # of the synthetic study
BUDGET_MS = 5000.0  # the console shows the picture after this time, with grades or without them
LOG = logging.getLogger("console")
T = TypeVar("T")


def main(folder: Path) -> int:
    """Open a scorer, score one study, store its results, close. Returns the exit status."""
    to_console_log()
    stop = threading.Event()  # set when the user leaves the program, to cancel opening and scoring
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    with ThreadPoolExecutor(1, "scoring") as worker:
        scorer = wait_for(worker.submit(open_scorer, stop))
        if scorer is None:
            return 1
        with scorer:
            study = from_the_detector()
            report = wait_for(worker.submit(score, scorer, study, stop))
    if report is None:
        return 1
    show(report)
    store(folder, study, report)
    return 0


def wait_for(task: Future[T]) -> T:
    """Return a task's result. Windows delivers Ctrl-C only between two waits, so each has a timeout."""
    while not wait([task], timeout=0.1).done:
        pass  # a console's event loop runs here
    return task.result()


def open_scorer(stop: threading.Event) -> Scorer | None:
    """Open a scorer when the program starts. Without one the console still works, but shows no grades."""
    try:
        return Scorer.open("phantom-reference", "cpu", budget_ms=BUDGET_MS, build="no", cancel=stop, progress=LOG.info)
    except SpineScoreError as error:
        LOG.error("no grades will be shown (%s): %s", error.code, error)
        return None


def score(scorer: Scorer, study: Study, stop: threading.Event) -> StudyReport | None:
    """Score a study in the worker's thread. Logs the reason and returns None if there is no report."""
    try:
        return scorer.score(study, cancel=stop, on_stage=show_progress)
    except SpineScoreError as error:
        LOG.error("the study was not scored (%s): %s", error.code, error)
        return None


def show_progress(stage: str, number: int, count: int) -> None:
    """Move the progress bar. The worker's thread calls this when a stage begins."""
    LOG.info("stage %d of %d: %s", number, count, stage)


def show(report: StudyReport) -> None:
    """Show the grades, the range of the total, and the warnings."""
    for name, region in report.regions.items():
        LOG.info("%s: %s, total %s", name, region.status, region.total)
        for disc in region.discs:
            LOG.info("  %s: %s", disc.level, ", ".join(f"{corner.site} {corner.grade}" for corner in disc.corners))
    LOG.info("mSASSS %s, possible %s to %s", report.total.value, *report.total.range)
    for text in report.warnings:
        LOG.warning(text)


def store(folder: Path, study: Study, report: StudyReport) -> None:
    """Write the report, its page, and the DICOM objects that a console sends to the archive."""
    for path in write_results(study, report, folder, formats=["json", "html", "sr", "gsps", "sc"]):
        LOG.info("written: %s", path)


def to_console_log() -> None:
    """Send the log of spinescore to the console's own log; spinescore has no handler of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name, level in (("console", logging.INFO), ("spinescore", logging.DEBUG)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)


def from_the_detector() -> Study:
    """Return two exposures as arrays, with the facts that the console knows about each."""
    return Study(tuple(exposure(view) for view in draw_study(SEED).values()))


def exposure(view: PhantomView) -> Radiograph:
    """Return one exposure of the synthetic patient as a radiograph. Results refer to its header."""
    # A console makes its own header: docs/program.md.
    header = dcmread(io.BytesIO(dicom_file(SEED, view)), stop_before_pixels=True)
    return radiograph_from_array(view.image.pixels, region=view.region, facing=view.facing, header=header)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "results")))
