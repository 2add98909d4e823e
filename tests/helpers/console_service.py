"""A real service for consoles with its own processes, over its Unix socket or over TCP."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.console_build import need_unix
from spinescore.runtime import cli

WAIT_S = 60.0


def is_ready(path: Path) -> bool:
    """Whether the service behind a Unix socket is ready to score."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(WAIT_S)
        try:
            stream.connect(str(path))
        except OSError:
            return False
        stream.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return stream.recv(100).startswith(b"HTTP/1.1 200 ")


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """A service alone. Yields the address of its socket when it is ready."""
    command = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--http-only", "--device", "cpu"]
    with subprocess.Popen([*command, "--folder", str(folder), *options], stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + WAIT_S
            while not is_ready(folder / "http.sock"):
                assert time.monotonic() < end, "the service was never ready"
                assert process.poll() is None, process.stderr.read().decode()
                time.sleep(0.05)
            yield str(folder / "http.sock")
        finally:
            process.terminate()
            process.communicate(timeout=WAIT_S)


def need_service() -> None:
    """Skip the test where there is no service."""
    need_unix()
    try:
        cli._parser().parse_args(["serve", "--http-only"])
    except SystemExit:
        pytest.skip("this version has no local HTTP service")


@contextmanager
def serving_over_tcp(folder: Path) -> Iterator[tuple[str, str]]:
    """A service alone on loopback TCP. Yields its address and its token when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(folder, "--port", str(port)):
        yield f"127.0.0.1:{port}", (folder / "token").read_text(encoding="utf-8").strip()


def printed_grades(text: str) -> list[tuple[str, int]]:
    """The grades that an example printed."""
    return [(site, int(grade)) for site, grade in re.findall(r"\b([CTLS]\d+-(?:inferior|superior))\s+(-?\d)", text)]
