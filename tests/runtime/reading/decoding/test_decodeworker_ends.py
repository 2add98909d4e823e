"""The life of the decoding worker: its start, its end, its files, and its limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from helpers.decoding_worker import (  # noqa: F401  # its fixture is for every test
    FRAME,
    NAME,
    decoded,
    fresh_pool,
    running,
)
from helpers.dicom_files import COLUMNS, ROWS, picture
from spinescore.runtime.machine import processes
from spinescore.runtime.reading.decoding import decode, pool


def test_a_worker_that_died_idle_is_replaced() -> None:
    decoded()
    worker = pool.Pool.of_this_process()._idle[0]
    worker._process.kill()
    worker._process.wait()
    np.testing.assert_array_equal(decoded(), picture(16))


def test_a_worker_ends_with_its_input() -> None:
    decoded()
    worker = pool.Pool.of_this_process()._idle[0]
    worker._input.close()
    assert worker._process.wait(60) == 0


def test_nothing_is_left_behind() -> None:
    """The process ends cleanly: no warning, no worker that lives on, no file left."""
    code = f"""
import os, sys
import numpy as np
from spinescore.runtime.reading.decoding import decode, pool
from spinescore.runtime.reading.pixelformat import PixelFormat
declared = PixelFormat({ROWS}, {COLUMNS}, 16, 16, 15, False, "MONOCHROME2")
decode.run_apart({NAME!r}, bytes.fromhex({FRAME.hex()!r}), {str(uid.JPEGLSLossless)!r}, declared)
print(pool.Pool.of_this_process()._idle[0]._process.pid)
"""
    ended = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, b"")
    if sys.platform == "linux":
        assert not Path("/proc", ended.stdout.decode().strip()).exists()
        assert list(Path("/dev/shm").glob("spinescore*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_stopping_closes_every_file() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    decoded()
    assert open_files() > before
    pool.stop()
    assert open_files() == before


def test_a_worker_loads_little() -> None:
    code = (
        "import sys; import spinescore.runtime.reading.decoding.worker; "
        "print(sorted({'cv2', 'onnxruntime', 'pydicom', 'multiprocessing'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def no_worker(monkeypatch) -> None:
    monkeypatch.setattr(pool, "_Worker", lambda: pytest.fail("a worker was started"))


def test_switched_off(monkeypatch) -> None:
    no_worker(monkeypatch)
    monkeypatch.setenv(decode.IN_PROCESS_VARIABLE, "1")
    np.testing.assert_array_equal(decoded(), picture(16))
    monkeypatch.setenv(decode.IN_PROCESS_VARIABLE, "0")
    assert not decode.in_process()


def test_frozen_and_embedded_applications_are_not_started_again(monkeypatch) -> None:
    no_worker(monkeypatch)
    with monkeypatch.context() as frozen:
        frozen.setattr(sys, "frozen", True, raising=False)
        np.testing.assert_array_equal(decoded(), picture(16))
    for executable in ("/opt/console/viewer", "C:/console/viewer.exe", None):
        monkeypatch.setattr(processes.spawn, "get_executable", lambda name=executable: name)
        np.testing.assert_array_equal(decoded(), picture(16))


@pytest.mark.parametrize("start", ["raise SystemExit(3)", "import os; os.abort()"])
def test_a_worker_that_does_not_start(monkeypatch, start: str) -> None:
    monkeypatch.setattr(pool, "_command", running(start))
    np.testing.assert_array_equal(decoded(), picture(16))
    assert decode.in_process()  # it is not tried again for every image


@pytest.mark.parametrize(("stated", "limit_s"), [("", 5.0), ("2.5", 2.5), ("0", 5.0), ("-1", 5.0), ("nan", 5.0),
                                                 ("inf", 5.0), ("soon", 5.0)])  # fmt: skip
def test_time_limit(monkeypatch, stated: str, limit_s: float) -> None:
    monkeypatch.setenv(decode.TIMEOUT_VARIABLE, stated)
    assert decode.time_limit_s() == limit_s
