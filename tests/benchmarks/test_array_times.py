"""The benchmark of arrays beside files, on a tiny bundle; nothing is held to a time."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import tiny, tiny_study
from spinescore.benchmarks import arrays
from spinescore.benchmarks.bench.subject import PhantomStudy
from spinescore.runtime import Scorer, load_study


def test_three_ways_and_one_total(tmp_path) -> None:
    study = load_study(tiny_study.write_study(tmp_path / "study"))
    with Scorer.open(tiny.write_bundle(tmp_path / "bundle"), "cpu", threads=1) as scorer:
        found = arrays.measure(scorer, study, 1)
    assert (found["same_total"], found["ratio"]["study"]) == (True, 1.0)
    assert set(found["median_ms"]) == {"study", "arrays", "headers"}
    assert min(found["median_ms"].values()) > 0


def test_the_record_says_what_ran(tmp_path, monkeypatch, capsys) -> None:
    def draw(scratch: Path) -> PhantomStudy:
        return PhantomStudy(sorted(tiny_study.write_study(scratch).glob("*.dcm")), {}, {"phantom_seed": 7})

    monkeypatch.setattr(arrays, "draw_study", draw)
    bundle, out = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "r.json"
    assert arrays.main(["--bundle", str(bundle), "--rounds", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["rounds"], record["study"]) == (arrays.SCHEMA, 1, {"phantom_seed": 7})
