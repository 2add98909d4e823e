"""A report tells the pixels that it was made from, and results refuse others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import tiny_study
from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import write_bundle
from spinescore.runtime import OutputError, Scorer, StudyReport, html, load_study, structured_report, write_results
from spinescore.runtime.scoring.pixelidentity import has_scored_pixels, pixels_digest


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("tiny")), "cpu") as opened:
        yield opened


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_the_digest_tells_every_changed_pixel_and_size(dtype):
    pixels = np.random.default_rng(1).integers(0, 127, (131, 150)).astype(dtype)
    digest = pixels_digest(pixels)
    assert pixels_digest(pixels.copy("F")) == digest == pixels_digest(pixels.astype(pixels.dtype.newbyteorder(">")))
    for row, column in ((0, 0), (33, 149), (130, 149)):
        other = pixels.copy()
        other[row, column] += 1
        assert pixels_digest(other) != digest
    assert len({digest, pixels_digest(pixels.T), pixels_digest(pixels[:-1]), pixels_digest(pixels[:, ::-1])}) == 4


def test_only_pixels_of_the_same_decoder_are_compared(scorer):
    info = scorer.score([CERVICAL.radiograph, LUMBAR.radiograph]).regions["cervical"].radiograph
    other = replace(CERVICAL.radiograph, pixels=CERVICAL.radiograph.pixels + 1)
    assert has_scored_pixels(CERVICAL.radiograph, info)
    assert not has_scored_pixels(other, info)
    assert has_scored_pixels(replace(other, decoder="another"), info)
    assert has_scored_pixels(other, replace(info, pixels_digest=None))
    assert info.pixels_digest not in repr(info)


def test_results_refuse_other_pixels_of_the_same_size_and_uids(scorer, tmp_path):
    tiny_study.write_study(tmp_path / "study")
    study = load_study(tmp_path / "study")
    report = scorer.score(study)
    assert StudyReport.from_json(report.to_json()) == report
    first, *rest = study.radiographs
    other = replace(study, radiographs=(replace(first, pixels=first.pixels[::-1]), *rest))
    for call in (structured_report, html, lambda *pair: write_results(*pair, tmp_path / "out")):
        call(study, report)
        with pytest.raises(OutputError, match=f"pixels of the {first.region} radiograph .* are not those that the"):
            call(other, report)
    regions = {
        name: replace(region, radiograph=replace(region.radiograph, pixels_digest=None))
        for name, region in report.regions.items()
    }
    structured_report(other, replace(report, regions=regions))  # an older report
