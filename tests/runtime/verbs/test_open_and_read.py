"""Studies are read while the scorer is opened."""

from __future__ import annotations

import json
import threading

import pytest

from helpers import tiny
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import Scorer, cli
from spinescore.runtime.reading import studies as dicom


@pytest.mark.parametrize(
    ("options", "order"),
    [((), ["reading", "opened", "read"]), (("--budget-ms", "1e6"), ["opened", "reading", "read"])],
)
def test_studies_are_read_while_the_scorer_is_opened_unless_their_time_counts(
    tmp_path, capsys, monkeypatch, options, order
):
    happened, started, opened = [], threading.Event(), threading.Event()
    load, opens = dicom.load_studies, Scorer.open

    def slow_load(*arguments, **named):
        happened.append("reading")
        started.set()
        opened.wait(20)
        happened.append("read")
        return load(*arguments, **named)

    def slow_open(*arguments, **named):
        if not options:
            started.wait(20)
        happened.append("opened")
        opened.set()
        return opens(*arguments, **named)

    monkeypatch.setattr(dicom, "load_studies", slow_load)
    monkeypatch.setattr(Scorer, "open", slow_open)
    study, bundle = write_study(tmp_path / "study"), tiny.write_bundle(tmp_path / "bundle")
    assert cli.main(["score", str(study), "--bundle", str(bundle), "--json", *options]) == 0
    assert happened == order
    assert json.loads(capsys.readouterr().out)["total"]["value"] == TOTAL
