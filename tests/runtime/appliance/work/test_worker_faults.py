"""What happens to a study, and to the others, if the worker crashes, hangs, leaks, or cannot score."""

from __future__ import annotations

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime.appliance.seen.status import retry, status
from spinescore.runtime.errors import EngineError, InputRejected


def fails(appliance, fault):
    """Have the worker fail with this study's jobs, and score all others."""
    act = appliance.worker.act
    appliance.worker.act = lambda job: fault(job) if job.study_instance_uid == "1.2.3.4" else act(job)


def crash(appliance):
    def act(job):
        appliance.worker.end = "SIGSEGV"
        return []

    return act


def hang(appliance):
    def act(job):
        appliance.worker.silent = True
        return []

    return act


def leak(appliance):
    def act(job):
        appliance.worker.memory = 9000 << 20
        return []

    return act


@pytest.mark.parametrize(
    ("fault", "code"), [(crash, "worker-crashed"), (hang, "worker-timeout"), (leak, "worker-memory")]
)
def test_a_worker_that_fails_is_ended_and_its_study_tried_once_more(make, files, tmp_path, fault, code):
    appliance = make()
    fails(appliance, fault(appliance))
    appliance.receive(*files)
    appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    appliance.run(200)
    assert appliance.states() == {"1.2.3.4": "parked", "1.2.9": "delivered"}
    assert appliance.study()["code"] == code
    assert [job.study_instance_uid for job in appliance.worker.jobs].count("1.2.3.4") == 2
    assert (appliance.worker.killed, appliance.worker.starts) == (2, 3)
    state = status(appliance.places, appliance.index, appliance.clock)
    assert (state["parked"], state["last_faults"][0]["code"]) == ({code: 1}, code)
    del appliance.worker.act
    assert retry(appliance.index, appliance.clock, 1) == "study 1 is due again"
    appliance.run(5)
    assert appliance.states()["1.2.3.4"] == "delivered"
    assert "not parked" in retry(appliance.index, appliance.clock, 1)


def test_an_engine_that_fails_is_a_fault_of_the_worker(make, files):
    def score(study):
        raise EngineError("it computes nonsense")

    appliance = make(score=score)
    appliance.receive(*files)
    appliance.run(10)
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "worker-crashed")
    assert appliance.delivered() == {}


def test_a_reject_is_a_result(make, files):
    def score(study):
        raise InputRejected("two-patients", "two")

    appliance = make(score=score)
    appliance.receive(*files)
    appliance.run(10)
    assert appliance.delivered() == {"revision-1": ["not-scored.json", "set.json"]}


def test_a_worker_that_cannot_open_its_bundle_blames_no_study(make, files):
    appliance = make()

    def start():
        appliance.worker.starts, appliance.worker.silent = appliance.worker.starts + 1, True
        appliance.worker.said, appliance.worker.end = [{"refused": "the bundle is altered"}], "exit status 1"

    appliance.worker.open = start
    appliance.receive(*files)
    appliance.run(60)
    assert appliance.study()["state"] == "due"
    assert 5 <= appliance.worker.starts <= 7  # after 1, 2, 4, 8 .. seconds
    assert status(appliance.places, appliance.index, appliance.clock)["worker"]["state"] == "not running"
    assert appliance.dispatcher.shown["message"] == "the bundle is altered"


def test_the_check_of_faster_engines_is_shown_until_it_is_done(make):
    appliance = make()
    appliance.step()
    appliance.step()
    appliance.worker.said = [{"check": "OpenVINO int8 is being checked"}]
    appliance.step()
    appliance.step()
    assert appliance.dispatcher.shown["check"] == "OpenVINO int8 is being checked"
    appliance.worker.said = [{"beat": "idle", "checking": False}]
    appliance.step()
    assert "check" not in appliance.dispatcher.shown


def test_a_damaged_object_parks_its_study(make, files):
    appliance = make()
    received = appliance.receive(*files)
    path = appliance.places.object(received[0].sha256)
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    appliance.run(5)
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "object-damaged")
    assert [one.status for one in appliance.receive(*files)] == ["stored", "known"]
    appliance.run(5)
    assert (appliance.study()["state"], appliance.study()["revision"]) == ("delivered", 1)


def test_an_interrupted_study_is_due_again_after_the_others(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    appliance.clock.pass_s(3.0)
    appliance.queue.advance()
    appliance.queue.take()
    assert appliance.study()["state"] == "scoring"
    appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    again = make(appliance.clock)
    again.run(6)
    assert set(again.states().values()) == {"delivered"}
