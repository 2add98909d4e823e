"""The worker's process: it opens the bundle, scores, and is ended if it is silent."""

from __future__ import annotations

import os
import signal

import pytest

from spinescore.runtime.appliance.configuration.config import Score
from spinescore.runtime.appliance.work.dispatch import Dispatcher, ProcessWorker
from spinescore.runtime.bundle import Bundle


@pytest.fixture
def appliance(make, bundle):
    """An appliance whose worker is a process; its clock stands still unless a test moves it."""
    one = make()
    one.worker = ProcessWorker(Score(str(bundle), "cpu"), Bundle.open(bundle).sha256)
    one.dispatcher = Dispatcher(one.queue, one.worker, one.index, one.places, one.clock, one.config.score)
    yield one
    one.dispatcher.close()


def steps(appliance, until):
    for _ in range(600):
        appliance.dispatcher.step(0.1)
        if until():
            return
    raise AssertionError("it never came so far")


def test_a_silent_process_is_ended_and_its_study_scored_by_the_next_one(appliance, files):
    steps(appliance, lambda: appliance.dispatcher.is_ready)
    first = appliance.worker.pid
    assert appliance.worker.memory_bytes() > 1 << 20
    appliance.receive(*files)
    os.kill(first, signal.SIGSTOP)
    appliance.clock.pass_s(3.0)
    steps(appliance, lambda: appliance.dispatcher.is_busy)
    appliance.clock.pass_s(61.0)
    steps(appliance, lambda: appliance.study()["attempts"] == 1)
    steps(appliance, lambda: appliance.study()["state"] == "delivering")
    assert appliance.worker.pid != first
    (fault,) = appliance.index.rows("SELECT code, study FROM faults")
    assert tuple(fault) == ("worker-timeout", 1)


def test_a_process_that_ends_is_started_again(appliance):
    steps(appliance, lambda: appliance.dispatcher.is_ready)
    os.kill(appliance.worker.pid, signal.SIGKILL)
    steps(appliance, lambda: not appliance.dispatcher.is_ready)
    steps(appliance, lambda: appliance.dispatcher.is_ready)


def refusal(one, worker) -> str:
    """The message of a worker that cannot open the bundle."""
    dispatcher = Dispatcher(one.queue, worker, one.index, one.places, one.clock, one.config.score)
    steps_left = iter(range(600))
    while dispatcher.shown.get("state") != "refused" and next(steps_left, None) is not None:
        dispatcher.step(0.1)
    dispatcher.close()
    return dispatcher.shown["message"]


def test_a_bundle_that_cannot_be_opened_is_said(make, tmp_path):
    assert "no-bundle" in refusal(make(), ProcessWorker(Score(str(tmp_path / "no-bundle"), "cpu"), "0" * 64))


def test_a_bundle_that_was_replaced_while_the_service_runs_scores_nothing(make, bundle):
    told = refusal(make(), ProcessWorker(Score(str(bundle), "cpu"), "0" * 64))
    assert told == f"the bundle {bundle} is another one than at the service's start; start the service again"
