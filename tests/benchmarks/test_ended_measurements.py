"""A measurement that is ended by a signal leaves no process and no folder; neither does `spinescore serve --demo`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.golden_bundle import write_golden_bundle
from spinescore.runtime.verbs import NOTHING_SCORED, OK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

MODULE = (sys.executable, "-m", "spinescore.benchmarks.")
WAIT_S = 60.0


def running(folder: Path) -> dict[int, str]:
    """The command lines of all processes whose temporary files are in a folder, without those that have ended."""
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if is_ours and command:
            commands[int(process.name)] = command
    return commands


def wait_for(condition, subject: str):
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end, f"{subject} did not happen"
        time.sleep(0.1)
    return value


def end_when(folder: Path, words: list[str], sign: str, number: signal.Signals) -> int:
    """Start a command, send it a signal when a process with `sign` in its command line runs; return its status."""
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "SPINESCORE_CACHE": str(folder / "cache"),
                   "SPINESCORE_CHECK": "0"}  # fmt: skip
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, env=environment, cwd=folder, stdout=quiet, stderr=quiet) as process:
        try:
            wait_for(lambda: any(sign in command for command in running(temporary).values()), f"a process {sign}")
            process.send_signal(number)
            status = process.wait(WAIT_S)
        finally:
            process.kill()
    wait_for(lambda: not running(temporary), f"the end of {running(temporary)}")
    assert list(temporary.iterdir()) == []
    return status


@pytest.fixture(autouse=True)
def heard():
    """Processes in the background of a shell would ignore Ctrl-C, as their parent does, and `nohup` the terminal."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("words", "sign", "number"),
    [
        (["appliance", "--latency", "5", "--bundle", "{bundle}"], "appliance.work.workerprocess", signal.SIGTERM),
        (["appliance", "--kills", "50", "--bundle", "{bundle}"], '"role": "send"', signal.SIGINT),
        (["console", "--studies", "5", "--bundle", "{bundle}"], "appliance.work.workerprocess", signal.SIGHUP),
        (["archive", "--count", "2", "--scale", "0.25", "--flat", "0"], "--child loop", signal.SIGTERM),
    ],
)
def test_a_measurement_takes_its_processes_with_it(tmp_path, words, sign, number):
    pytest.importorskip("pynetdicom")
    if "--kills" in words and not (shutil.which("dcmsend") and shutil.which("Orthanc")):
        pytest.skip("needs dcmtk and Orthanc")
    bundle = write_golden_bundle(tmp_path / "bundle", "none")
    name, *rest = (word.format(bundle=bundle) for word in words)
    assert end_when(tmp_path, [*MODULE[:2], MODULE[2] + name, *rest], sign, number) != 0


def test_the_demo_ends_in_good_order_when_its_terminal_is_closed(tmp_path):
    pytest.importorskip("pynetdicom")
    words = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--demo"]
    status = end_when(tmp_path, words, "appliance.work.workerprocess", signal.SIGHUP)
    assert status in (OK, NOTHING_SCORED)
