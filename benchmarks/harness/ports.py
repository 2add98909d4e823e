"""Ports of the loopback interface, and waiting for a condition."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

__all__ = ["free_port", "listens", "wait_until"]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a program listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], subject: str, wait_s: float = 300.0) -> None:
    """Wait until a condition is true. Raises `TimeoutError`, which names the subject."""
    end = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{subject} did not happen within {wait_s:g} s")
        time.sleep(0.05)
