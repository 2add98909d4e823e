"""Wherever a service ends: after the next start each study has exactly one set of results, delivered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime import load_study

TESTS = Path(__file__).resolve().parents[2]


def test_an_end_before_each_step_on_the_disk_loses_and_doubles_nothing(memory_folder, bundle, score, tmp_path):
    """The steps are those of receiving, of the results and of delivering."""
    report = tmp_path / "report.json"
    report.write_text(score(load_study(*tiny_files(tmp_path / "study"))).to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "helpers.appliance_crashes", str(memory_folder), str(bundle), str(report)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == {}, done.stderr
    assert outcome["steps"] > 40  # Python 3.10 hides those of pathlib


def test_an_end_between_a_correction_and_its_delivery_loses_and_doubles_nothing(memory_folder, bundle):
    command = [sys.executable, "-m", "helpers.appliance_review_crashes", str(memory_folder), str(bundle)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == {}, done.stderr
    assert outcome["steps"] > 25  # Python 3.10 hides those of pathlib


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_an_end_before_each_line_of_following_orthanc_loses_and_doubles_nothing(memory_folder, step):
    command = [sys.executable, "-m", "helpers.appliance_orthanc_crashes", str(memory_folder), str(step)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == {}, done.stderr
    assert outcome["ends"] > 400 / step
