"""What an export costs: the weights are real checkpoints, and the figures are those of the export's process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spinescore.benchmarks import exporting


@pytest.mark.skipif(sys.platform == "win32", reason="the memory of processes is not counted there")
def test_figures_of_a_small_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--localizer", "hrnet-w4", "--grader", "resnet50-w4", "--golden-studies", "1"]
    assert exporting.main([*words, "--out", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == record
    assert (record["schema"], record["networks"]) == (exporting.SCHEMA, ["hrnet-w4", "resnet50-w4"])
    assert record["user_s"] > 0
    assert 50 < record["peak_mib"] < 4000
