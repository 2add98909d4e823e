"""The process that holds a `Scorer` and scores the studies of an archive. It gets and gives a JSON object a line.

It gets studies, {"task": number, "entry": {..}, "out": folder or null}, and answers

    {"progress": text}                      the bundle is being opened, or an engine checked
    {"ready": {..}}                         it is open; with engine, precision, device, bundle and memory
    {"task": number, "rows": [..], "unwritten": message or null}
    {"refused": message}                    the bundle cannot be opened, or the archive is gone; the process ends

The next study is read while one is scored, so that at most two are in memory. A study with which anything goes wrong
that no code names ends the process; so does the end of the parent.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from spinescore.runtime.archive.layout import ArchiveError
from spinescore.runtime.archive.scoring import Request, read_entry, rows_of_entry
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.documents import read
from spinescore.runtime.engines.choice import REFERENCE
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.child import Message, answering
from spinescore.runtime.machine.memory import resident_bytes
from spinescore.runtime.reading.facts import patient_key
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.bundleinfo import bundle_info
from spinescore.runtime.study import Study

__all__ = ["main", "open_scorer", "ready_facts"]

_STUDIES_IN_MEMORY = 2
_DECODE_S = "60"  # on a machine whose cores are all busy a decoder may be slow without being stuck

Say = Callable[..., None]


def main(text: str) -> None:
    """Open the bundle and score studies until the parent ends. `text` is the `Request` as JSON."""
    os.environ.setdefault("SPINESCORE_DECODE_TIMEOUT_S", _DECODE_S)
    tasks: queue.Queue[Message] = queue.Queue()
    say = answering(tasks.put)
    request = read(Request, json.loads(text))
    try:
        scorer = open_scorer(request, lambda line: say(progress=line))
    except SpineScoreError as error:
        say(refused=str(error))
        sys.exit(1)
    say(ready=ready_facts(scorer))
    try:
        _work(tasks, scorer, request, say)
    except ArchiveError as error:
        say(refused=str(error))
        sys.exit(1)


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
        "memory_bytes": resident_bytes(),
        "patient_key_check": patient_key("", "check"),
    }


def _work(tasks: queue.Queue[Message], scorer: Scorer, request: Request, say: Say) -> None:
    """Score the studies in the order in which they come."""
    studies: queue.Queue[tuple[Message, Entry, Study | str | BaseException]] = queue.Queue()
    room = threading.Semaphore(_STUDIES_IN_MEMORY)

    def read_ahead() -> None:
        while True:
            task = tasks.get()
            entry = read(Entry, task["entry"])
            room.acquire()
            try:
                studies.put((task, entry, read_entry(entry, request.base)))
            except BaseException as error:
                studies.put((task, entry, error))

    threading.Thread(target=read_ahead, name="spinescore-ahead", daemon=True).start()
    while True:
        task, entry, study = studies.get()
        if isinstance(study, BaseException):
            raise study
        rows, unwritten = rows_of_entry(entry, study, scorer, request, task["out"])
        del study
        room.release()
        say(task=task["task"], rows=rows, unwritten=unwritten)
