"""The measurement of the review page, in small; nothing is held to a time."""

from __future__ import annotations

import json

import pytest

from helpers.browser import need_browser

pytestmark = pytest.mark.slow


def test_every_figure_of_a_small_run(tmp_path, capsys, monkeypatch):
    need_browser()
    monkeypatch.setenv("SPINESCORE_CHECK", "0")
    from spinescore.benchmarks import review

    out = tmp_path / "r.json"
    assert review.main(["--opens", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert record["schema"] == review.SCHEMA
    assert record["view"] == {"rows": 3000, "columns": 2400, "megabytes": 14.4}
    for name in ("first_ms", "again_ms", "address_ms", "window_ms"):
        assert record[name]["p50"] > 0
