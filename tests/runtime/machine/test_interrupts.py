"""Processes that are started without interrupts hear no Ctrl-C, and their parent hears it as before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from spinescore.runtime.machine.processes import without_interrupts


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that are blocked")
def test_a_process_that_starts_hears_no_ctrl_c():
    program = "import sys; print('up', flush=True); sys.stdin.read(); print('end')"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with without_interrupts():
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with process:
        assert process.stdout.readline() == b"up\n"
        os.kill(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert (said, errors, process.returncode) == (b"end\n", b"", 0)
