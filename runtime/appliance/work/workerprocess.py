"""The process that holds the `Scorer`: it hears of jobs and says how they ended, each message a JSON object on a line.

It hears:

    {"study": job}                 score a study of the spool
    {"score": job}                 score a console's study
    {"review": job}                score a study with a reader's correction, or make a view
    {"cancel": key}                give up the job of a console or a reader with this key

It says:

    {"beat": step}                 work goes on; a worker that is silent for too long is ended
    {"ready": true, "engine": ..}  the bundle is open, its engine accepted and warm: studies can be scored
    {"check": text}                faster engines are being checked, or built, meanwhile
    {"done": input_key, "engine": ..}                      the results are in their folder
    {"failed": input_key, "code": .., "message": .., "again": bool}   they could not be made
    {"answered": key, "code": .., "message": .., "engine": ..}        a console's or a reader's job is over
    {"refused": message}           the bundle cannot be opened

It has no connection to the index, and ends with its parent.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spinescore.runtime.appliance.store.places import FULL
from spinescore.runtime.appliance.store.resultset import Job, JobFault, Score, make_results
from spinescore.runtime.appliance.work.consoleanswer import BadRequest, answer_console
from spinescore.runtime.appliance.work.consolejob import ConsoleJob
from spinescore.runtime.appliance.work.reviewanswer import answer_review
from spinescore.runtime.appliance.work.reviewjob import JOBS, WebJob
from spinescore.runtime.caller import PREFIX
from spinescore.runtime.documents import read
from spinescore.runtime.errors import BudgetExceeded, Cancelled, InputRejected, SpineScoreError
from spinescore.runtime.machine.child import Message, answering
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.report import DeviceInfo, StudyReport
from spinescore.runtime.study import Study

__all__ = ["do_console", "do_job", "main"]

Say = Callable[..., None]

_IDLE_BEAT_S = 1.0


def main(request: str) -> None:
    """Open the bundle and do jobs until the parent ends. `request` is JSON: bundle, its hash, device and strict."""
    _die_with_parent()
    jobs = _Jobs()
    say = answering(jobs.hear)

    def progress(line: str) -> None:
        say(**{"beat" if line.startswith(PREFIX) else "check": line})

    options = json.loads(request)
    try:
        scorer = Scorer.open(options["bundle"], options["device"], build="background", progress=progress)
    except SpineScoreError as error:
        say(refused=str(error))
        sys.exit(1)
    if scorer.bundle.sha256 != options["sha256"]:
        text = f"the bundle {options['bundle']} is another one than at the service's start; start the service again"
        say(refused=text)
        sys.exit(1)
    say(ready=True, engine=_engine_of(scorer._session.engine.scorer.info))

    def score(study: Study, *, strict: bool = False, **more: Any) -> StudyReport:
        strict = strict or options["strict"]
        return scorer.score(study, strict=strict, on_stage=lambda stage, number, count: say(beat=stage), **more)

    goes_on = True
    while goes_on:
        order = jobs.next(_IDLE_BEAT_S)
        if order is None:
            say(beat="idle", checking=scorer.is_checking)
        elif isinstance(order[0], Job):
            goes_on = do_job(order[0], score, say)
        else:
            goes_on = do_console(order[0], score, say, order[1])
    sys.exit(1)


class _Jobs:
    """The jobs that the parent gave, in their order."""

    def __init__(self) -> None:
        self._orders: queue.Queue[tuple[Job | WebJob, threading.Event]] = queue.Queue()
        self._cancels: dict[str, threading.Event] = {}  # of the console's job that came last

    def hear(self, message: Message) -> None:
        """Take a message of the parent, in the thread that hears it."""
        if "cancel" in message:
            if message["cancel"] in self._cancels:
                self._cancels[message["cancel"]].set()
            return
        cancel = threading.Event()
        for name in JOBS.keys() & message.keys():
            job = read(JOBS[name], message[name])
            self._cancels = {job.key: cancel}
            self._orders.put((job, cancel))
        if "study" in message:
            self._orders.put((read(Job, message["study"]), cancel))

    def next(self, wait_s: float) -> tuple[Job | WebJob, threading.Event] | None:
        """Return the next job; None if none came within `wait_s` seconds."""
        try:
            return self._orders.get(timeout=wait_s)
        except queue.Empty:
            return None


class _Noted:
    """Scores studies, and keeps the name of the engine that did it last."""

    def __init__(self, score: Score) -> None:
        self._score, self.engine = score, ""

    def __call__(self, study: Study, **more: Any) -> StudyReport:
        report = self._score(study, **more)
        self.engine = _engine_of(report.device)
        return report


def do_job(job: Job, score: Score, say: Say) -> bool:
    """Do one job and say how it ended. Return False if this process should end, so that the next one is new."""
    noted = _Noted(score)
    failed = partial(say, failed=job.input_key)
    try:
        make_results(job, noted, lambda step: say(beat=step))
    except JobFault as error:
        failed(code=error.fault.code, message=error.fault.message, again=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        failed(code="no-space", message="the spool's disk is full; free space there", again=True)
    except Exception as error:
        failed(code="worker-crashed", message=f"scoring the study failed ({type(error).__name__})", again=True)
        return False
    else:
        say(done=job.input_key, engine=noted.engine)
    return True


def do_console(job: WebJob, score: Score, say: Say, cancel: threading.Event) -> bool:
    """Do the job of a console or a reader and say how it ended. Return False if this process should end."""
    noted = _Noted(partial(score, cancel=cancel))

    def beat(step: str) -> None:
        if cancel.is_set():
            raise Cancelled(f"given up, because the console asked for that, before this step: {step}")
        say(beat=step)

    goes_on, fault = True, None
    try:
        if isinstance(job, ConsoleJob):
            fault = answer_console(job, noted, beat)
        else:
            answer_review(job, noted, beat)
    except BadRequest as error:
        fault = "http-request", str(error)
    except JobFault as error:
        fault = error.fault.code, error.fault.message
    except (InputRejected, Cancelled, BudgetExceeded) as error:
        fault = error.code, str(error)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in FULL
        goes_on = full or not Path(job.folder).is_dir()  # a folder that is gone has no console any more
        fault = ("no-space", "the spool's disk is full; free space there") if full else (
            "worker-crashed", f"scoring the study failed ({type(error).__name__})")  # fmt: skip
    code, message = fault or (None, None)
    say(answered=job.key, code=code, message=message, engine=noted.engine)
    return goes_on


def _engine_of(device: DeviceInfo) -> str:
    return f"{device.engine} {device.precision} on {device.kind}"


def _die_with_parent() -> None:
    """Have this process killed when its parent ends, even if a library holds it up at that time."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
