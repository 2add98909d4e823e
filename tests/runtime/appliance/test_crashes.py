"""Whatever ends, and wherever it ends: after the next start each study has exactly one set of results, delivered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime import load_study

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture
def memory_folder(tmp_path):
    """A folder in memory if there is one, where an fsync takes no time."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def test_an_end_before_each_step_on_the_disk_loses_and_doubles_nothing(memory_folder, bundle, score, tmp_path):
    """The steps are those of receiving, of the results and of delivering."""
    report = tmp_path / "report.json"
    report.write_text(score(load_study(*tiny_files(tmp_path / "study"))).to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "helpers.appliance_crashes", str(memory_folder), str(bundle), str(report)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == {}, done.stderr
    assert outcome["steps"] > 50
