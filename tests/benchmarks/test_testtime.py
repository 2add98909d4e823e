"""The benchmark of averaging at test time, on a tiny bundle; nothing is held to a time."""

from __future__ import annotations

import json

import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks import testtime
from spinescore.runtime import load_study


@pytest.mark.parametrize("averaging", [([1.0], True, True), ([1.0, 1.5], True, False)])
def test_network_runs_are_timed_apart_on_one_thread(tmp_path, averaging):
    bundle = tiny.write_bundle(tmp_path / "bundle", test_time=averaging)
    study = load_study(tiny_study.write_study(tmp_path / "study"))
    figures = testtime._turns(bundle, ("onnxruntime", "fp32"), study, None, 3)
    assert set(figures) == {"plain_ms", "extra_runs_ms", "beside_ms", "ratio"}
    assert figures["plain_ms"] > 0
    expected = (figures["extra_runs_ms"] + figures["beside_ms"]) / figures["extra_runs_ms"]
    assert figures["ratio"] == pytest.approx(expected, rel=0.1, abs=0.1)


def test_every_run_of_a_network_is_timed():
    class Device:
        def run(self, *arguments):
            ran.append(arguments)

    ran: list[tuple[int, ...]] = []
    device = Device()
    runs_ms = testtime._timed_runs(device)
    device.run(1, 2, 3)
    device.run(4, 5, 6)
    assert ran == [(1, 2, 3), (4, 5, 6)]
    assert len(runs_ms) == 2


def test_the_record_says_what_ran(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(testtime, "measure", lambda *arguments: asked.append(arguments[:3]) or [{"ratio": 1.0}])
    assert testtime.main(["--rounds", "3", "--engine", "openvino:bf16", "--out", str(tmp_path / "r.json")]) == 0
    assert asked == [("synthetic:hrnet-w32", 3, [("openvino", "bf16")])]
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["results"]) == (testtime.SCHEMA, [{"ratio": 1.0}])
