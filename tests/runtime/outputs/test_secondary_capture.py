"""Secondary captures: the overlay's pixels, no text of the header, and the flags of derived images."""

from __future__ import annotations

import numpy as np

from helpers import dicom_results
from spinescore.runtime.outputs.overlay import draw_overlay


def test_the_picture_is_the_overlay(whole):
    manifest = whole.bundle.manifest
    note = f"Not a medical device. {manifest.name} {manifest.version}. {manifest.intended_use}"
    images = {image.sop_instance_uid: image for image in whole.study.radiographs}
    for capture, (name, region) in zip(whole.made("sc"), whole.report.regions.items(), strict=True):
        image = images[region.radiograph.sop_instance_uid]
        title = f"mSASSS {name}: {region.total:g} of 36"
        drawn = draw_overlay(image, region, whole.report.bundle.rules, title, note)
        np.testing.assert_array_equal(capture.pixel_array, drawn[..., ::-1])


def test_it_says_what_it_is(whole):
    for capture, region in zip(whole.made("sc"), whole.report.regions.values(), strict=True):
        assert (capture.PhotometricInterpretation, capture.SamplesPerPixel) == ("RGB", 3)
        assert capture.BurnedInAnnotation == "YES"
        assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert capture.ConversionType == "WSD"
        assert "PixelSpacing" not in capture
        (source,) = capture.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == region.radiograph.sop_instance_uid
        assert list(capture.PatientOrientation) == ["P", "F"]


def test_once_lossy_always_lossy(tiny_scorer, tmp_path):
    tags = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10.5",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    (capture,) = dicom_results.score(tmp_path, tiny_scorer, regions=("lumbar",), **tags).made("sc")
    assert capture.LossyImageCompression == "01"
    assert capture.LossyImageCompressionRatio == 10.5


def test_nothing_is_captured_of_what_was_not_scored(tiny_scorer, tmp_path):
    case = dicom_results.score(tmp_path, tiny_scorer, blank="cervical")
    assert [capture.BodyPartExamined for capture in case.made("sc")] == ["LSPINE"]
