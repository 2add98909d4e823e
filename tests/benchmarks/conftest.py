"""A tiny study in the place of the phantom that `spinescore bench` draws, and no rests between its turns."""

import pytest

from helpers import tiny, tiny_study
from spinescore.runtime.phantom import labelled
from spinescore.runtime.phantom.labelled import PhantomStudy


@pytest.fixture
def study(tmp_path, monkeypatch):
    files = sorted(tiny_study.write_study(tmp_path / "study").iterdir())
    images = [{"rows": tiny.HEIGHT, "columns": tiny.WIDTH} for _ in files]
    drawn = PhantomStudy(files, {}, {"transfer_syntax": "uncompressed", "images": images})
    monkeypatch.setattr(labelled, "write_labelled_study", lambda scratch: drawn)
    monkeypatch.setattr("spinescore.benchmarks.harness.timing.SETTLE_S", 0.0)
    monkeypatch.setattr("spinescore.benchmarks.bench.starts.SETTLE_S", 0.0)
    return drawn
