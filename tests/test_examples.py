"""The examples run as a user runs them, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from spinescore.runtime import StudyReport

CONSOLE = Path(__file__).parents[1] / "examples" / "console.py"
STAGES = ("select", "upload", "localize", "crop", "grade", "report")


def test_the_console_scores_a_study_and_stores_it(tmp_path):
    folder = tmp_path / "results"
    command = [sys.executable, "-W", "error", str(CONSOLE), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    report = StudyReport.from_json((folder / "report.json").read_text(encoding="utf-8"))
    for kind in ("SR", "PR", "OT"):
        assert kind in {dcmread(path).Modality for path in folder.rglob("*.dcm")}
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert report.total.status in ("complete", "imputed", "incomplete")
    assert f"console INFO mSASSS {report.total.value}, possible" in ran.stderr
    assert "console INFO opening: self-test of " in ran.stderr
    for number, stage in enumerate(STAGES, 1):
        assert ran.stderr.count(f"stage {number} of 6: {stage}\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no process can send Ctrl-C to another one alone")
def test_the_console_that_is_left_while_it_opens_ends_at_once(tmp_path):
    command = [sys.executable, str(CONSOLE), str(tmp_path / "results")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as console:
        assert console.stderr is not None
        first = console.stderr.readline()
        os.kill(console.pid, signal.SIGINT)
        rest = console.stderr.read()
    assert "opening: the files of bundle phantom-reference are checked" in first
    assert (
        console.returncode,
        "(cancelled): Given up, because the caller asked for that, before this step" in rest,
    ) == (1, True), rest
    assert "Traceback" not in rest
    assert not (tmp_path / "results").exists()


def test_what_a_user_copies_is_short():
    assert len(CONSOLE.read_text(encoding="utf-8").splitlines()) < 130
