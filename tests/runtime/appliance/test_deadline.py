"""The deadline of an exchange over the network."""

from __future__ import annotations

import socket

import pytest

from spinescore.runtime.appliance import deadline as deadline_module
from spinescore.runtime.appliance.deadline import Deadline


def test_a_connection_that_is_made_after_the_time_is_over_is_ended(monkeypatch):
    monkeypatch.setattr(deadline_module, "_AGAIN_S", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs, Deadline(0.0) as deadline:
        while not deadline.is_over:
            pass
        deadline.watch(ours.dup())
        theirs.settimeout(10)
        assert theirs.recv(1) == b""


def test_a_connection_of_a_deadline_that_was_cancelled_is_left_alone():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Deadline(0.05) as deadline:
            deadline.watch(ours.dup())
        theirs.settimeout(0.2)
        with pytest.raises(TimeoutError):  # and not the end
            theirs.recv(1)
        assert not deadline.is_over
