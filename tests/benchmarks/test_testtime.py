"""The benchmark of averaging at test time, on a tiny bundle; nothing is held to a time."""

from __future__ import annotations

import json

import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks import testtime
from spinescore.runtime import load_study


@pytest.mark.parametrize("averaging", [([1.0], True, True), ([1.0, 1.5], True, False)])
def test_three_turns_on_one_thread(tmp_path, averaging):
    bundle = tiny.write_bundle(tmp_path / "bundle", test_time=averaging)
    study = load_study(tiny_study.write_study(tmp_path / "study"))
    found = testtime._turns(bundle, ("onnxruntime", "fp32"), study, None, 1)
    assert set(found) == {"plain_ms", "averaged_ms", "extra_runs_ms", "ratio"}
    assert min(found["plain_ms"], found["averaged_ms"], found["extra_runs_ms"]) > 0


def test_the_record_says_what_ran(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(testtime, "measure", lambda *arguments: asked.append(arguments[:3]) or [{"ratio": 1.0}])
    assert testtime.main(["--rounds", "3", "--engine", "openvino:bf16", "--out", str(tmp_path / "r.json")]) == 0
    assert asked == [("synthetic:hrnet-w32", 3, [("openvino", "bf16")])]
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["results"]) == (testtime.SCHEMA, [{"ratio": 1.0}])
