"""Counts over new processes: one answer of the shipped bundle."""

from __future__ import annotations

import json

import pytest

from spinescore.benchmarks import processes

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
