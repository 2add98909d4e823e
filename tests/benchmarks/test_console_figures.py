"""The measurement of the service for consoles, in small; nothing is held to a time."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it asks over a unix socket"),
]


def test_every_figure_of_a_small_run(tmp_path, capsys):
    from spinescore.benchmarks import console

    out = tmp_path / "r.json"
    assert console.main(["--studies", "2", "--rounds", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert record["schema"] == console.SCHEMA
    for name in ("frames", "dicom"):
        assert record[name]["megabytes"] == pytest.approx(30.0, abs=0.2)
        assert record[name]["studies"] == 2
        assert record[name]["answer_ms"]["p50"] > record[name]["scoring_ms"]["p50"] > 0
        assert record[name]["overhead_ms"]["p50"] > 0
    if shutil.which("cc"):
        for name in ("unix", "tcp"):
            figures = record["library"][name]
            assert figures["answer_ms"]["p95"] >= figures["answer_ms"]["p50"] > figures["scoring_ms"]["p50"] > 0
            above_ms = figures["answer_ms"]["p95"] - record["in_process_ms"]["p50"]
            assert figures["above_in_process_ms"]["p95"] == pytest.approx(above_ms, abs=0.01)
    assert (record["at_once"]["consoles"], record["at_once"]["studies"]) == (4, 8)
    assert record["at_once"]["slowest_over_queue"] > 0
    assert record["start"]["first_answer_s"]["p50"] > record["start"]["opening_s"]["p50"] > 0
    assert record["in_process_ms"]["p50"] > 0
