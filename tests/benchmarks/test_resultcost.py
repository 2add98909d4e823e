"""The benchmark of results times every public result, the first of a process apart."""

from __future__ import annotations

import pytest

from spinescore.benchmarks import resultcost


def test_every_result_is_timed_in_a_process_of_its_own(monkeypatch):
    pytest.importorskip("highdicom")
    monkeypatch.setattr(resultcost, "RESULTS", {"structured_report": resultcost.RESULTS["structured_report"]})
    found = resultcost.measure(1, 1, "phantom-reference")
    assert set(found) == {"structured_report"}
    for figures in found["structured_report"].values():
        assert 0 < figures["median"] <= figures["max"]
        assert figures["cpu_median"] > 0


def test_a_child_makes_each_result_as_often_as_asked(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(resultcost, "RESULTS", {"html": lambda study, report: made.append((study, report))})
    monkeypatch.setattr(resultcost, "load_study", lambda *files: "study")
    monkeypatch.setattr(resultcost.StudyReport, "from_json", lambda text: "report")
    (tmp_path / "report.json").write_bytes(b"{}")
    assert len(resultcost._times("html", tmp_path, 2)) == 3
    assert made == [("study", "report")] * 3
