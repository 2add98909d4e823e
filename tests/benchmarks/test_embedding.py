"""The benchmark of what a scorer costs the program around it, on a tiny bundle; nothing is held to a time."""

from __future__ import annotations

import json

import numpy as np

from helpers import tiny, tiny_study
from helpers.scoring import CERVICAL
from spinescore.benchmarks import embedding
from spinescore.benchmarks.harness.environment import memory_bytes
from spinescore.runtime.phantom.labelled import PhantomStudy


def test_the_record_has_every_figure(tmp_path, monkeypatch, capsys):
    folder = tiny_study.write_study(tmp_path / "study")
    drawn = PhantomStudy(sorted(folder.glob("*.dcm")), {}, {})
    monkeypatch.setattr(embedding, "write_labelled_study", lambda scratch: drawn)
    monkeypatch.setattr(embedding, "_EVERY", 2)
    bundle, out = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "r.json"
    words = ["--bundle", str(bundle), "--runs", "2", "--studies", "5", "--threads", "1", "--out", str(out)]
    assert embedding.main(words) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["runs"]) == (embedding.SCHEMA, 2)
    assert set(record["arrays"]) == {"dicom_ms", "arrays_ms", "ratio"}
    assert set(record["lateness"]) == {"scoring_ms", "hashing_ms", "idle_ms"}
    assert record["cancel"]["until_ended_ms"]["n"] + record["cancel"]["done_before"] >= 2
    assert [look["studies"] for look in record["soak"]["looks"]] == [2, 4, 5]
    last = record["soak"]["looks"][-1]
    assert last["threads"] >= 1
    assert (last["resident_bytes"] is None) == (memory_bytes()["resident_bytes"] is None)


def test_the_studies_of_a_soak_differ_in_size_and_type_and_pixels():
    made = [embedding._other(CERVICAL.radiograph, number) for number in range(15)]
    assert len({(image.pixels.shape, image.pixels.dtype) for image in made}) == 15
    again = embedding._other(CERVICAL.radiograph, 3)
    assert np.array_equal(again.pixels, made[3].pixels)
    other = embedding._other(CERVICAL.radiograph, 18)
    assert other.pixels.shape == made[3].pixels.shape
    assert not np.array_equal(other.pixels, made[3].pixels)
