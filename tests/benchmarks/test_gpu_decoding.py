"""The part `decoding` of the GPU command, on a double of nvImageCodec and without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nvimgcodec_here import nvimgcodec_here

from spinescore.benchmarks import decode
from spinescore.benchmarks.gpu import decoding
from spinescore.benchmarks.gpu.__main__ import Options
from spinescore.benchmarks.gpu.record import Record
from spinescore.runtime.reading import nvimagecodec

pytest.importorskip("imagecodecs", reason="the codestreams are written with imagecodecs")


@pytest.fixture
def wrong(monkeypatch, tmp_path: Path) -> Iterator[Path]:
    ramp = np.linspace(0, 4095, 60 * 50).reshape(60, 50).astype(np.uint16)
    monkeypatch.setattr(decode, "draw_picture", lambda *size: ramp)
    with nvimgcodec_here(monkeypatch, tmp_path) as file:
        yield file


def checks(folder: Path) -> dict[str, dict]:
    record = Record.start(folder / "record.json", {})
    decoding.run(record, Options(quick=True, scratch=folder))
    return {check["name"].removeprefix("gpu-decode: "): check for check in record.document["checks"]}


def test_everything_passes(wrong, tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert {check["status"] for check in found.values()} == {"passed"}, found
    assert len(found["JPEG lossless, 12 bits"]["figures"]["exact"]) == 7
    timed = found["JPEG 2000 lossless, timed"]["figures"]
    assert timed["given_to_the_gpu"] == "yes"
    assert timed["nvimgcodec"]["runs"] == timed["imagecodecs.jpeg2k"]["runs"] == 3
    assert found["JPEG 2000, 60 dB, timed"]["figures"]["given_to_the_gpu"] == "no"
    assert found["JPEG 2000 lossless, read"]["figures"]["decoder"] == "nvimgcodec"
    assert "JPEG 2000, 60 dB, read" not in found


def test_wrong_values_fail(wrong, tmp_path: Path) -> None:
    wrong.write_text("one jpeg images", encoding="utf-8")
    found = checks(tmp_path)
    failed = {name for name, check in found.items() if check["status"] == "failed"}
    assert {"JPEG lossless, predictor 1, timed", "JPEG lossless, predictor 1, read"} <= failed
    assert not [name for name in failed if "2000" in name or "quality" in name]
    assert found["JPEG lossless, predictor 1, timed"]["figures"]["values_that_differ"] == 1
    assert "differ from those of imagecodecs.jpeg8" in found["JPEG lossless, predictor 1, timed"]["reason"]


def test_wrong_samples_fail(wrong, tmp_path: Path) -> None:
    wrong.write_text("zeros jpeg2k", encoding="utf-8")
    found = checks(tmp_path)
    assert found["samples of JPEG 2000 lossless"]["status"] == found["JPEG 2000 lossless, 8 bits"]["status"] == "failed"
    assert found["samples of JPEG lossless"]["status"] == "passed"
    assert found["JPEG 2000 lossless, read"]["figures"]["decoder"] == "imagecodecs.jpeg2k"


def test_what_is_not_decoded_is_skipped(wrong, tmp_path: Path) -> None:
    wrong.write_text("raise jpeg", encoding="utf-8")
    found = checks(tmp_path)
    assert found["JPEG lossless, 16 bits"]["status"] == "skipped"
    assert "internal error #8" in found["JPEG lossless, predictor 4, timed"]["reason"]


def test_a_crash_costs_the_checks_of_its_family(wrong, tmp_path: Path) -> None:
    wrong.write_text("abort jpeg", encoding="utf-8")
    found = checks(tmp_path)
    assert found["JPEG lossless, predictor 1, timed"]["status"] == "failed"
    assert "made the decoder crash" in found["JPEG lossless, predictor 1, timed"]["reason"]
    assert found["JPEG baseline, quality 90, timed"]["status"] == "skipped"  # the runtime would not have given it
    assert found["JPEG 2000 lossless, timed"]["status"] == "passed"


@pytest.mark.parametrize("what", ["not installed", "no driver", "no GPU"])
def test_without_it(monkeypatch, wrong, tmp_path: Path, what: str) -> None:
    if what == "not installed":
        monkeypatch.setattr(nvimagecodec, "is_installed", lambda: False)
    elif what == "no driver":
        monkeypatch.setattr(nvimagecodec, "driver_is_here", lambda: False)
    else:
        wrong.write_text("no-gpu", encoding="utf-8")
    ((name, check),) = checks(tmp_path).items()
    assert (name, check["status"]) == ("here", "skipped")
    assert {"not installed": "is not installed", "no driver": "no NVIDIA driver", "no GPU": "#35"}[what] in check[
        "reason"
    ]
