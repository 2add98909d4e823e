"""A running service seen from outside: with curl over its socket, with `status`, and by systemd's socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers.appliance import tiny_files, write_served
from spinescore.benchmarks.harness.appliance import processes_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl asks the service, and is not installed"),
]

WAIT_S = 60.0
NODE = """\
[node]
host = "127.0.0.1"
port = {port}

[[peer]]
ae_title = "XRAY"
host = "127.0.0.1"
"""


class Service:
    """A running service, and what it tells."""

    def __init__(self, root: Path, process: subprocess.Popen, manager: socket.socket) -> None:
        self.root, self.process, self.manager = root, process, manager

    def curl(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer; status 0 if there is none."""
        words = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--unix-socket",
                 str(self.root / "spool" / "http.sock"), f"http://localhost{path}"]  # fmt: skip
        body, _, status = subprocess.run(words, capture_output=True, text=True).stdout.rpartition("\n")
        return int(status), body

    def ready(self) -> bool:
        status, body = self.curl("/health/ready")
        assert (status == 200) == (status != 0 and json.loads(body)["ready"])
        return status == 200

    def metrics(self) -> dict[str, float]:
        """The samples by name and labels, as `name{label=value}`."""
        families = text_string_to_metric_families(self.curl("/metrics")[1])
        return {
            one.name + "".join(f"{{{key}={value}}}" for key, value in sorted(one.labels.items())): one.value
            for family in families
            for one in family.samples
        }

    def status(self) -> int:
        words = [
            sys.executable,
            "-m",
            "spinescore.runtime.cli",
            "status",
            "--config",
            str(self.root / "appliance.toml"),
        ]
        return subprocess.run(words, capture_output=True).returncode

    def told(self) -> list[str]:
        """The lines that systemd got since the last call."""
        lines = []
        with suppress(BlockingIOError):
            while True:
                lines += self.manager.recv(65536).decode().split("\n")
        return lines

    def process_of(self, name: str) -> int:
        found = processes_of(self.process.pid)
        if name not in found:
            raise ProcessLookupError(f"there is no process {name}")
        return found[name]

    def kill(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process_of(name), signal.SIGKILL)


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.2)


@contextmanager
def service(root: Path, bundle: Path) -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = write_served(root, bundle, NODE.format(port=port))
    (root / "notify").unlink(missing_ok=True)
    words = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--config", str(config)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(root / "notify"))
        manager.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": str(root / "notify")}
        with subprocess.Popen(words, env=environment, start_new_session=True) as process:
            try:
                one = Service(root, process, manager)
                yield one
                one.told()
                process.terminate()
                assert process.wait(WAIT_S) == 0
                assert "STOPPING=1" in one.told()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def test_a_service_tells_how_it_is(memory_folder, bundle):
    with service(memory_folder, bundle) as one:
        until(one.ready)
        assert one.status() == 0
        assert one.curl("/health/live")[0] == 200
        assert json.loads(one.curl("/v1/status")[1])["worker"]["engine"].endswith("on cpu")
        until(lambda: "WATCHDOG=1" in one.told())
        tiny_files(memory_folder / "inbox" / "study", "1.2.3")
        until(lambda: one.metrics()["spinescore_studies{state=delivered}"] == 1)
        before = one.metrics()
        assert before["spinescore_received_instances_total"] == 2
        assert before["spinescore_received_to_delivered_seconds_count{destination=out}"] == 3
        assert before["spinescore_ready"] == 1
        assert not [name for name in ("1.2.3", "PatientID") if name in one.curl("/v1/status")[1]]

        until(lambda: one.kill("work") or not one.ready())  # the next one may be ready too soon to be seen
        assert one.status() == 3
        assert one.metrics()["spinescore_ready"] == 0
        until(one.ready)
        assert one.metrics()["spinescore_worker_restarts_total{reason=worker-crashed}"] >= 1
        for name in ("receive", "web"):
            one.kill(name)
        until(lambda: one.metrics().get("spinescore_process_restarts_total{process=web}") == 1)
        until(one.ready)
    with service(memory_folder, bundle) as one:  # a socket was left by a process that was killed
        until(one.ready)
        after = one.metrics()
        assert not [
            name for name in before if name.endswith(("_total", "_count", "_sum")) and after[name] < before[name]
        ]


def test_a_process_that_hangs_stops_the_watchdog(memory_folder, bundle):
    with service(memory_folder, bundle) as one:
        until(lambda: "READY=1" in one.told())
        hung = one.process_of("send")
        os.kill(hung, signal.SIGSTOP)
        time.sleep(3.0)
        one.told()
        time.sleep(3.0)
        assert "WATCHDOG=1" not in one.told()
        until(lambda: not one.ready())  # the others answer meanwhile
        assert "send is silent" in one.curl("/health/ready")[1]
        os.kill(hung, signal.SIGCONT)
        until(lambda: "WATCHDOG=1" in one.told())
        until(one.ready)
