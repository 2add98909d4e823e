"""An INT8 network that OpenVINO computes wrongly on two streams, scored in many new processes: one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers.keras_bundle import write_keras_bundle
from spinescore.runtime.phantom.labelled import write_labelled_study

pytestmark = pytest.mark.slow

pytest.importorskip("openvino")

PROCESSES = 8  # the fault was in about half of all processes


def test_every_process_gives_the_same_answer(tmp_path):
    bundle = write_keras_bundle(tmp_path / "bundle")
    study = write_labelled_study(tmp_path)
    points = {
        region: {level: dict(zip(("centre_px", "anterior_px"), pair, strict=True)) for level, pair in levels.items()}
        for region, levels in study.points.items()
    }
    (tmp_path / "points.json").write_text(json.dumps(points), encoding="utf-8")
    words = ["score", *map(str, study.files), "--bundle", str(bundle), "--keypoints", str(tmp_path / "points.json")]
    words += ["--device", "cpu", "--engine", "openvino", "--precision", "int8", "--unaccepted", "--json"]
    environment = {**os.environ, "SPINESCORE_CACHE": str(tmp_path / "cache")}
    answers = set()
    for _ in range(PROCESSES):
        command = [sys.executable, "-m", "spinescore.runtime.cli", *words]
        found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
        assert found.returncode == 0, found.stderr
        report = json.loads(found.stdout)
        assert (report["device"]["precision"], report["findings"]) == ("fp32+int8", [])
        answers.add(json.dumps([report["regions"], report["total"]]))
    assert len(answers) == 1
