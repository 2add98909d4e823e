"""Processes of the supervisor: one that hangs is ended and started again, later each time it fails."""

from __future__ import annotations

import os
import signal
import time

import pytest

from spinescore.runtime.appliance.supervisor import _Process

WAIT_S = 60.0


@pytest.fixture
def process(make):
    appliance, said = make(), []
    lock = os.open(os.devnull, os.O_RDONLY)
    one = _Process("send", appliance.config, lock, appliance.clock, said.append)
    one.clock, one.log = appliance.clock, said
    yield one
    one.close()
    os.close(lock)


def until_heard(process) -> None:
    deadline = time.monotonic() + WAIT_S
    while process.silent_s() is None:
        assert not process.step()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_is_silent_is_ended_and_started_again(process):
    until_heard(process)
    process.clock.pass_s(30.0)
    before_s = process.clock.now()
    assert not process.moved_since(before_s)
    deadline = time.monotonic() + WAIT_S
    while not process.moved_since(before_s - 1.0) and time.monotonic() < deadline:
        process.step()
        time.sleep(0.05)
    first = process.pid
    os.kill(first, signal.SIGSTOP)
    time.sleep(0.1)
    process.step()  # what it said before
    process.clock.pass_s(61.0)
    assert process.step()
    assert process.log == ["the process send ended (silent for 60 s) and is started again"]
    assert process.silent_s() is None
    assert process.moved_since(process.clock.now())  # the supervisor has it in hand
    process.step()
    assert process.pid is None
    process.clock.pass_s(1.0)
    until_heard(process)
    assert process.pid != first


def test_a_process_that_fails_again_and_again_is_started_later_and_later(process):
    waits = []
    for _ in range(4):
        process.step()
        process._process.kill()
        process._process.wait()
        assert process.step()
        waited = 0
        while process.pid is None:
            process.clock.pass_s(0.5)
            waited += 0.5
            process.step()
        waits.append(waited)
    assert waits == [1.0, 2.0, 4.0, 8.0]
