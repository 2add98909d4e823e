"""The process that holds the `Scorer`: it gets jobs through one pipe and writes a JSON object a line to another.

    {"beat": step}                 work goes on; a worker that is silent for too long is ended
    {"ready": true}                the bundle is open, and studies can be scored
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

from spinescore.runtime.appliance.places import FULL
from spinescore.runtime.appliance.resultset import Job, JobFault, make_results
from spinescore.runtime.documents import read
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.processes import end_with_parent
from spinescore.runtime.scorer import Scorer
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import Study
from spinescore.runtime.text import brief

__all__ = ["main"]

_IDLE_BEAT_S = 1.0


def main(request: str) -> None:
    """Open the bundle and do jobs until the parent ends. `request` is JSON: bundle, device, strict, jobs (a number)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's prints must not disturb the answers
    end_with_parent()
    os.umask(0o077)

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    options = json.loads(request)
    try:
        scorer = Scorer.open(options["bundle"], options["device"], build="background",
                             progress=lambda line: say(beat=line))  # fmt: skip
    except SpineScoreError as error:
        say(refused=str(error))
        sys.exit(1)
    say(ready=True)
    with os.fdopen(options["jobs"], "rb", buffering=0) as jobs:
        _work(scorer, jobs, options["strict"], say)


def _work(scorer: Scorer, jobs: Any, strict: bool, say: Callable[..., None]) -> None:
    text = b""
    while True:
        if not select.select([jobs], [], [], _IDLE_BEAT_S)[0]:
            say(beat="idle")
            continue
        piece = jobs.read(1 << 16)
        if not piece:
            return
        *lines, text = (text + piece).split(b"\n")
        for line in lines:
            _do(read(Job, json.loads(line)), scorer, strict, say)


def _do(job: Job, scorer: Scorer, strict: bool, say: Callable[..., None]) -> None:
    """Do one job and say how it ended. A fault of the program or the engine ends the process, so that it is new."""
    engine = ""

    def score(study: Study) -> StudyReport:
        nonlocal engine
        report = scorer.score(study, strict=strict, on_stage=lambda stage, number, count: say(beat=stage))
        engine = f"{report.device.engine} {report.device.precision} on {report.device.kind}"
        return report

    failed = partial(say, failed=job.input_key)
    try:
        make_results(job, score, lambda step: say(beat=step))
    except JobFault as error:
        failed(code=error.fault.code, message=error.fault.message, again=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        failed(code="no-space", message="the spool's disk is full; free space there", again=True)
    except Exception as error:
        failed(code="worker-crashed", message=f"scoring the study failed ({brief(error)})", again=True)
        sys.exit(1)
    else:
        say(done=job.input_key, engine=engine)


def _die_with_parent() -> None:
    """Have this process killed when its parent ends, even if a library holds it up at that time."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
