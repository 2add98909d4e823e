"""Two hundred studies are sent to an appliance whose processes are killed: each report arrives once."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from helpers.golden_bundle import write_golden_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the appliance runs on Linux"),
    pytest.mark.skipif(not (shutil.which("dcmsend") and shutil.which("Orthanc")), reason="needs dcmtk and Orthanc"),
]

STUDIES = 200


def test_kills_at_random_lose_and_double_nothing(tmp_path, monkeypatch):
    pytest.importorskip("pynetdicom")
    from spinescore.benchmarks import appliance
    from spinescore.benchmarks.appliancekills import MUST_BE_NONE
    from spinescore.benchmarks.harness.appliance import ROLES

    monkeypatch.setenv("SPINESCORE_CHECK", "0")
    bundle, out = write_golden_bundle(tmp_path / "bundle", "none"), tmp_path / "record.json"
    status = appliance.main(["--kills", str(STUDIES), "--bundle", str(bundle), "--out", str(out)])
    outcome = json.loads(out.read_text(encoding="utf-8"))["kills"]
    assert {name: outcome[name] for name in MUST_BE_NONE} == dict.fromkeys(MUST_BE_NONE, 0)
    assert (status, outcome["reports_arrived"]) == (0, STUDIES)
    assert (outcome["states"], outcome["latest_revision"]) == ({"delivered": STUDIES}, 1)
    assert sum(outcome["kills"].values()) == STUDIES // 10
    assert {*ROLES, "supervisor", "all"} <= set(outcome["kills"])
    assert outcome["transfers_not_acknowledged"] > 0
