"""Counts over new processes: one answer of the shipped bundle, and the network that OpenVINO computes wrongly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spinescore.benchmarks import openvino_streams, processes
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model

pytestmark = pytest.mark.slow

pytest.importorskip("openvino")


def test_the_shipped_bundle_gives_one_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    assert processes.main(["--count", "2", "--out", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert (record["processes"], record["right"], record["answers"]) == (2, 2, [2])
    assert 0 < record["mean_difference_of_probabilities"]["most"] < 0.05


def test_a_process_that_is_refused_is_not_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_score", lambda words: (4, {}) if "int8" in words else (0, REPORT))
    assert processes.main(["--count", "3"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["right"], record["mean_difference_of_probabilities"]["most"]) == (0, 1.0)


REPORT = {"regions": {"lumbar": {"discs": [{"corners": [{"probabilities": [1, 0, 0, 0]}] * 2}]}}, "findings": []}


def test_the_keras_network_is_one_that_the_exporter_reads():
    tensors = processes._keras_tensors()
    logits = run_model(build_resnet(tensors, 64, 64), np.ones((1, 3, 64, 64), np.float32), "random")
    assert logits.shape == (1, 8)
    assert np.isfinite(logits).all()


def test_the_settings_that_are_used_are_right_and_the_record_says_what_was_tried(tmp_path):
    assert openvino_streams.main(["--processes", "1", "--out", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert list(record["results"]) == list(openvino_streams.SETTINGS)
    for setting, found in record["results"].items():
        assert found["processes"] == 1
        assert found["wrong"] == 0 or (setting.startswith("two streams") and found["unscaled"] == 1)
