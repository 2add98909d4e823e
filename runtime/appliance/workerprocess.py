"""The process that holds the `Scorer`: it gets jobs through one pipe and writes a JSON object a line to another.

    {"beat": step}                 work goes on; a worker that is silent for too long is ended
    {"ready": true, "engine": ..}  the bundle is open, its engine accepted and warm: studies can be scored
    {"check": text}                faster engines are being checked, or built, meanwhile
    {"done": input_key, "engine": ..}                      the results are in their folder
    {"failed": input_key, "code": .., "message": .., "again": bool}   they could not be made
    {"refused": message}           the bundle cannot be opened

It has no connection to the index, and ends with its parent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from spinescore.runtime.appliance.child import answering
from spinescore.runtime.appliance.places import FULL
from spinescore.runtime.appliance.resultset import Job, JobFault, make_results
from spinescore.runtime.caller import PREFIX
from spinescore.runtime.documents import read
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.report import DeviceInfo, StudyReport
from spinescore.runtime.study import Study

__all__ = ["do_job", "main"]

Say = Callable[..., None]
Score = Callable[[Study], StudyReport]

_IDLE_BEAT_S = 1.0


def main(request: str) -> None:
    """Open the bundle and do jobs until the parent ends. `request` is JSON: bundle, device, strict, and the pipe."""
    _die_with_parent()
    say = answering()

    def progress(line: str) -> None:
        say(**{"beat" if line.startswith(PREFIX) else "check": line})

    options = json.loads(request)
    try:
        scorer = Scorer.open(options["bundle"], options["device"], build="background", progress=progress)
    except SpineScoreError as error:
        say(refused=str(error))
        sys.exit(1)
    say(ready=True, engine=_engine_of(scorer._session.engine.scorer.info))

    def score(study: Study) -> StudyReport:
        strict = options["strict"]
        return scorer.score(study, strict=strict, on_stage=lambda stage, number, count: say(beat=stage))

    with os.fdopen(options["pipe"], "rb", buffering=0) as jobs:
        _work(jobs, score, say, lambda: say(beat="idle", checking=scorer.is_checking))


def _work(jobs: Any, score: Score, say: Say, rest: Callable[[], None]) -> None:
    """Do the jobs that come through a pipe until it ends."""
    text = b""
    while True:
        if not select.select([jobs], [], [], _IDLE_BEAT_S)[0]:
            rest()
            continue
        piece = jobs.read(1 << 16)
        if not piece:
            return
        *lines, text = (text + piece).split(b"\n")
        for line in lines:
            if not do_job(read(Job, json.loads(line)), score, say):
                sys.exit(1)


def do_job(job: Job, score: Score, say: Say) -> bool:
    """Do one job and say how it ended. Return False if this process should end, so that the next one is new."""
    engine = ""

    def noted(study: Study) -> StudyReport:
        nonlocal engine
        report = score(study)
        engine = _engine_of(report.device)
        return report

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
        say(done=job.input_key, engine=engine)
    return True


def _engine_of(device: DeviceInfo) -> str:
    return f"{device.engine} {device.precision} on {device.kind}"


def _die_with_parent() -> None:
    """Have this process killed when its parent ends, even if a library holds it up at that time."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
