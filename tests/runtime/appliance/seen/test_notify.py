"""What systemd is told, through a datagram socket as it gives one to a service."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from spinescore.runtime.appliance.seen import notify
from spinescore.runtime.appliance.seen.notify import Systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A manager's address, and a function that returns the lines that came there since its last call."""
    name = str(tmp_path / "n") if request.param == "path" else f"@spinescore-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        receiver.setblocking(False)

        def lines() -> list[str]:
            try:
                return receiver.recv(65536).decode().split("\n")
            except BlockingIOError:
                return []

        yield name, lines


def test_a_manager_hears_of_each_change_once(manager):
    address, lines = manager
    systemd = Systemd(address)
    systemd.tell(["the worker is opening"], moved=True, opening=True)
    assert lines() == ["STATUS=the worker is opening", "EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1"]
    systemd.tell([], moved=True, opening=False)
    assert lines() == ["READY=1", "STATUS=ready", "WATCHDOG=1"]
    systemd.tell([], moved=False, opening=False)
    assert lines() == []  # a process did not move: nothing feeds the watchdog
    systemd.tell(["no\nREADY=1", "b"], moved=False, opening=True)
    assert lines() == ["STATUS=no\\nREADY=1; b"]
    systemd.tell([], moved=True, opening=False)
    assert lines()[0] == "READY=1"
    systemd.stopping()
    assert lines()[0] == "STOPPING=1"


def test_a_manager_that_is_busy_is_told_again(manager, monkeypatch):
    address, lines = manager
    monkeypatch.setattr(notify, "_SEND_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10_000):
                other.sendto(b"x", "\0" + address[1:] if address.startswith("@") else address)
    systemd = Systemd(address)
    systemd.tell([], moved=True, opening=False)
    while lines():
        pass
    systemd.tell([], moved=False, opening=False)
    assert lines() == ["READY=1", "STATUS=ready"]


def test_without_a_manager_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Systemd().tell([], moved=True, opening=False)
    Systemd(str(tmp_path / "gone")).tell([], moved=True, opening=False)  # nor if it is gone
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        Systemd().stopping()
        assert receiver.recv(100).startswith(b"STOPPING=1")
