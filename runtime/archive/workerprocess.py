"""The process that holds a `Scorer` and scores the studies of an archive. It gets and gives a JSON object a line.

It gets studies, {"task": number, "entry": {..}, "out": folder or null}, and answers

    {"progress": text}                      the bundle is being opened, or an engine checked
    {"ready": {..}}                         it is open; with engine, precision, device, bundle and memory
    {"task": number, "rows": [..], "unwritten": message or null}
    {"refused": message}                    the bundle cannot be opened; the process ends

The next study is read while one is scored, so that at most two are in memory. A study with which anything goes wrong
that no code names ends the process; so does the end of the parent.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.runtime.archive.scoring import Read, Request, json_rows, read_entry, rows_of_entry
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.documents import read
from spinescore.runtime.engines.choice import REFERENCE
from spinescore.runtime.errors import OutputError, SpineScoreError
from spinescore.runtime.machine.processes import end_with_parent
from spinescore.runtime.reading.facts import patient_key
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.bundleinfo import bundle_info
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import Study

__all__ = ["main", "open_scorer", "ready_facts", "score_with"]

_STUDIES_IN_MEMORY = 2
_NO_BUDGET_MS = 1e9  # a bundle's own budget would make results depend on the time
_DECODE_S = "60"  # on a machine whose cores are all busy a decoder may be slow without being stuck
_PAGES = Path("/proc/self/statm")

Say = Callable[..., None]


def main(text: str) -> None:
    """Open the bundle and score studies until the parent ends. `text` is the `Request` as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.environ.setdefault("SPINESCORE_DECODE_TIMEOUT_S", _DECODE_S)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's prints must not disturb the answers
    lines = _Lines()
    end_with_parent(lines.take)
    writing = threading.Lock()  # progress comes from another thread

    def say(**message: Any) -> None:
        with writing:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    request = read(Request, json.loads(text))
    try:
        scorer = open_scorer(request, lambda line: say(progress=line))
    except SpineScoreError as error:
        say(refused=str(error))
        sys.exit(1)
    say(ready=ready_facts(scorer))
    _work(lines, scorer, request, say)


def open_scorer(request: Request, progress: Callable[[str], None]) -> Scorer:
    """Open the scorer of a worker. Its engine never changes later. Raises SpineScoreError.

    OpenCV gets as many threads as the networks, since other processes use the other cores.
    """
    if request.threads is not None:
        import cv2

        cv2.setNumThreads(request.threads)
    return Scorer.open(
        request.bundle, request.device, threads=request.threads, engine=request.engine, precision=request.precision,
        localizer=request.localizer, require_acceptance=not request.unaccepted, build=request.build, plan=None,
        max_imputed_per_region=request.max_imputed, progress=progress,
    )  # fmt: skip


def ready_facts(scorer: Scorer) -> dict[str, Any]:
    """Return the facts of an open scorer that decide the rows, and the memory of this process."""
    device, choice = scorer._session.engine.scorer.info, scorer.choice
    if choice is None and device.kind == "cpu":
        choice = REFERENCE
    return {
        "device": device.kind,
        "engine": None if choice is None else choice.engine,
        "precision": None if choice is None else choice.precision,
        "name": device.name,
        "bundle": asdict(bundle_info(scorer.bundle)),
        "memory_bytes": _memory_bytes(),
        "patient_key_check": patient_key("", "check"),
    }


def score_with(scorer: Scorer, request: Request) -> Callable[[Study], StudyReport]:
    """Return the function that scores a study, without any budget."""
    budget_ms = None if scorer.bundle.manifest.budget_ms is None else _NO_BUDGET_MS
    return lambda study: scorer.score(study, budget_ms, strict=request.strict)


def _memory_bytes() -> int:
    """Return the resident memory of this process; 0 if the system does not tell it."""
    try:
        return int(_PAGES.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return 0


class _Lines:
    """The lines of a pipe, as JSON, in a queue."""

    def __init__(self) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()

    def take(self, line: bytes) -> None:
        """Add a line of the pipe."""
        self._queue.put(json.loads(line))

    def next(self) -> dict[str, Any]:
        """Return the next line; wait for it."""
        return self._queue.get()


def _work(lines: _Lines, scorer: Scorer, request: Request, say: Say) -> None:
    """Score the studies in the order in which they come."""
    studies: queue.Queue[tuple[dict[str, Any], Entry, Read | BaseException]] = queue.Queue()
    room = threading.Semaphore(_STUDIES_IN_MEMORY)

    def read_ahead() -> None:
        while True:
            task = lines.next()
            entry = Entry(**{**task["entry"], "files": tuple(task["entry"]["files"])})
            room.acquire()
            try:
                studies.put((task, entry, read_entry(entry, request.base)))
            except BaseException as error:
                studies.put((task, entry, error))

    threading.Thread(target=read_ahead, name="spinescore-ahead", daemon=True).start()
    bundle, score = bundle_info(scorer.bundle), score_with(scorer, request)
    while True:
        task, entry, study = studies.get()
        if isinstance(study, BaseException):
            raise study
        out, unwritten = None if task["out"] is None else Path(task["out"]), None
        try:
            rows = rows_of_entry(entry, study, score, bundle, request, out)
        except OutputError as error:
            unwritten = str(error)
            rows = rows_of_entry(entry, study, score, bundle, request, None)
        del study
        room.release()
        say(task=task["task"], rows=json_rows(rows), unwritten=unwritten)
