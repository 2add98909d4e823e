"""The measurement of decoders runs, and decoders are asked in the order that it found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spinescore.benchmarks import decode
from spinescore.runtime.reading.decoding import codecs
from spinescore.runtime.reading.decoding.syntaxes import HTJ2K, JPEG, JPEG_2000, JPEG_LS, RLE, codecs_of

pytest.importorskip("imagecodecs", reason="the pictures are compressed with imagecodecs")

RECORDS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("decode-epyc-*.json"))
SYNTAXES = {RLE, *JPEG, *JPEG_LS, *JPEG_2000, *HTJ2K}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return decode.draw_picture(120, 96)


def test_picture_is_a_radiograph_of_12_bits_and_always_the_same(picture) -> None:
    assert (picture.shape, picture.dtype) == ((120, 96), np.uint16)
    assert picture.max() <= 4095
    assert np.ptp(picture) > 3500
    np.testing.assert_array_equal(picture, decode.draw_picture(120, 96))


def test_every_decoder_of_every_syntax_is_measured(monkeypatch, tmp_path: Path, picture, capsys) -> None:
    monkeypatch.setattr(decode, "draw_picture", lambda: picture)
    assert decode.main(["--rounds", "1", "--out", str(tmp_path / "decode.json")]) == 0
    record = json.loads((tmp_path / "decode.json").read_text(encoding="utf-8"))
    table = capsys.readouterr().out
    for result in record["results"]:
        assert result["name"] in table
        names = [entry["decoder"] for entry in result["decoders"]]
        assert names == list(codecs.installed(result["transfer_syntax"])) != []
        for entry in result["decoders"]:
            assert entry["correct"], (result["name"], entry)
            assert entry["max_difference"] <= result["bound"]
            assert all(entry[what] > 0 for what in ("median_ms", "processor_ms", "two_at_once_ms", "worker_ms"))
    assert {result["transfer_syntax"] for result in record["results"]} >= SYNTAXES - set(HTJ2K)


def test_wrong_pixels_are_not_called_correct(monkeypatch, picture) -> None:
    (coded,) = [one for one in decode.compressed(picture) if one.name == "JPEG-LS lossless"]
    monkeypatch.setattr(decode, "run_codec", lambda *given: picture + np.uint16(1))
    assert not any(entry["correct"] for entry in decode.measure(coded, 1)["decoders"])


def test_rounds_must_be_some() -> None:
    with pytest.raises(SystemExit):
        decode.main(["--rounds", "0"])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_decoders_are_asked_in_the_order_of_the_record(path: Path) -> None:
    """By processor time, which the machine's other work hardly changes: the first is the fastest that is correct.

    Or as fast as can be told: within a quarter.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {result["transfer_syntax"] for result in record["results"]} == SYNTAXES
    for result in record["results"]:
        measured = {entry["decoder"]: entry["processor_ms"] for entry in result["decoders"] if entry["correct"]}
        asked = [name for name in codecs_of(result["transfer_syntax"]) if name in measured]
        assert set(asked) == set(codecs_of(result["transfer_syntax"])) == set(measured), result["name"]
        assert measured[asked[0]] <= 1.25 * min(measured.values()), result["name"]


def test_there_is_a_record() -> None:
    assert RECORDS
