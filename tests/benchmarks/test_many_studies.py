"""The measurement of many studies in one call: every study is scored, in one process, and its memory is noted."""

from __future__ import annotations

import json
import sys

import pytest

from spinescore.benchmarks import manystudies
from spinescore.benchmarks.harness import studies


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of processes is read from /proc")
def test_two_studies_beside_the_largest_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(studies, "draw_view", lambda seed, region, scale: DRAW(seed, region, 0.1))
    assert manystudies.main(["--count", "2", "--inputs", "--out", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["studies"], record["inputs"]) == (manystudies.SCHEMA, 2, "list")
    assert 50 < record["peak_mib"]["largest"] < 1000
    assert len(record["resident_mib_over_the_call"]) == 11


DRAW = studies.draw_view
