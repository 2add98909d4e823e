"""The limit on the time of an exchange over HTTP, at its edges."""

from __future__ import annotations

import socket
import time

import pytest

pytest.importorskip("requests")

from spinescore.runtime.appliance.webclient import _Deadline


def test_a_connection_that_was_made_after_its_time_is_ended():
    deadline = _Deadline(0.0)
    give_up_s = time.monotonic() + 60.0
    while not deadline.is_over and time.monotonic() < give_up_s:
        time.sleep(0.01)
    ours, theirs = socket.socketpair()
    with theirs:
        deadline.watch(ours)
        assert theirs.recv(1) == b""
        deadline.cancel()
