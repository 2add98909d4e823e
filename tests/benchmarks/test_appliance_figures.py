"""The measurement of the appliance, in small; nothing is held to a time."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.golden_bundle import write_golden_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the appliance runs on Linux"),
]


def test_every_figure_of_a_small_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pynetdicom")
    from spinescore.benchmarks import appliance

    monkeypatch.setenv("SPINESCORE_CHECK", "0")
    bundle, out = write_golden_bundle(tmp_path / "b", "none"), tmp_path / "r.json"
    words = ["--latency", "2", "--received", "3", "--studies", "4", "--idle", "0.5", "--bundle", str(bundle)]
    assert appliance.main([*words, "--out", str(out)]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert record["schema"] == appliance.SCHEMA
    assert record["latency"]["studies"] == 2
    assert record["latency"]["received_to_delivered_s"]["min"] > 0
    assert (record["steady"]["studies"], record["steady"]["delivered"]) == (4, 4)
    assert [look["studies"] for look in record["steady"]["after"]] == [1, 2, 3, 4]
    assert set(record["steady"]["after"][-1]) == {"studies", "supervisor", "receive", "send", "web", "work"}
    assert record["receiving"]["objects"] == 3
    assert record["receiving"]["megabytes_per_s"] > 0
    assert record["idle"]["core_percent"] >= 0
