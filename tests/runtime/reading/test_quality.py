"""Findings on a radiograph before it is scored, from header and pixels: each code is raised, and not raised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import DigitalXRayImageStorageForProcessing, SecondaryCaptureImageStorage

from helpers import dicom_files, phantom_views
from spinescore.benchmarks.spoiled import SPOILS
from spinescore.runtime.errors import CODES
from spinescore.runtime.reading.anonymous import anonymous
from spinescore.runtime.reading.quality import finding, picture_findings
from spinescore.runtime.reading.studies import load_radiograph, load_study
from spinescore.runtime.study import REGIONS, Radiograph


def codes(findings):
    return [found.code for found in findings]


HEADERS = [
    ({"ImageType": ["DERIVED", "PRIMARY", "LOCALIZER"]}, "localizer-image"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "SCOUT"]}, "localizer-image"),
    ({"ImageType": ["DERIVED", "SECONDARY"]}, "secondary-capture"),
    ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary-capture"),
    ({"ConversionType": "DF"}, "secondary-capture"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
    ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, "for-processing"),
    ({"BurnedInAnnotation": "YES"}, "burned-in-text"),
    ({"LossyImageCompressionRatio": "45"}, "lossy-compression"),
    ({"LossyImageCompressionRatio": ["4", "45"]}, "lossy-compression"),
    ({"PixelSpacing": None}, "no-spacing"),
]


@pytest.mark.parametrize(("tags", "code"), HEADERS, ids=str)
def test_a_header_tells(tmp_path, tags, code):
    found = load_radiograph(dicom_files.write(dicom_files.radiograph_dataset(**tags), tmp_path / "odd.dcm"))
    (said,) = found.findings
    assert (said.code, said.severity, said.source) == (code, CODES[code].severity, "odd.dcm")
    assert said.message.startswith("odd.dcm: ")
    assert said.message.endswith(f"; {CODES[code].next_step}.")


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"ImageType": ["DERIVED", "PRIMARY", ""], "PresentationIntentType": "FOR PRESENTATION"},
        {"BurnedInAnnotation": "NO", "LossyImageCompressionRatio": "12.5"},
        {"PixelSpacing": None, "ImagerPixelSpacing": [0.15, 0.15]},
    ],
    ids=str,
)
def test_a_usual_header_raises_nothing(tmp_path, tags):
    found = load_radiograph(dicom_files.write(dicom_files.radiograph_dataset(**tags), tmp_path / "usual.dcm"))
    assert found.findings == ()


def test_anonymous_findings_name_no_file(tmp_path):
    path = dicom_files.write(dicom_files.radiograph_dataset(BurnedInAnnotation="YES"), tmp_path / "Miller.dcm")
    (found,) = anonymous(load_study(path)).radiographs[0].findings
    assert (found.code, found.source) == ("burned-in-text", "radiograph 1")
    assert found.message.startswith("radiograph 1: ")


def test_names_that_are_no_text_can_be_printed():
    assert finding("inverted", "\udcffx.dcm", "odd").message.startswith("?x.dcm: odd; ")
    assert finding("inverted", "", "odd").message.startswith("The radiograph: odd; ")


@pytest.mark.parametrize("region", REGIONS)
def test_a_sound_picture_raises_nothing(region):
    assert picture_findings(phantom_views.radiograph(region)) == ()


@pytest.mark.parametrize("spoil", ["inverted", "window too bright", "noisy", "one grey", "noise alone"])
def test_a_spoiled_picture_raises_its_code(spoil):
    truth = {region: phantom_views.truth(region) for region in REGIONS}
    radiographs, _ = SPOILS[spoil].make(np.random.default_rng(1), phantom_views.study(), truth)
    for radiograph in radiographs:
        found = picture_findings(radiograph)
        assert SPOILS[spoil].code in codes(found)
        assert all(said.message.startswith(radiograph.source) for said in found)


@pytest.mark.parametrize(
    ("spacing_mm", "aspect", "ratio"),
    [
        ((0.15, 0.15), None, None),
        ((0.15, 0.155), None, None),
        ((0.15, 0.2), None, 1.333),
        ((0.2, 0.1), ["1", "1"], 2.0),
        ((1e-300, 1e300), None, 1000.0),
        (None, ["1", "2"], 2.0),
        (None, ["20", "20"], None),
        (None, ["0", "2"], None),
        (None, ["1", "-2"], None),
        (None, None, None),
    ],
)
def test_pixels_that_are_not_square(tmp_path, spacing_mm, aspect, ratio):
    tags = {} if aspect is None else {"PixelAspectRatio": aspect}
    read = load_radiograph(dicom_files.write(dicom_files.radiograph_dataset(**tags), tmp_path / "odd.dcm"))
    sound = replace(phantom_views.radiograph("lumbar"), spacing_mm=spacing_mm, header=read.header)
    found = picture_findings(sound)
    assert [(said.code, said.values["ratio"]) for said in found] == ([("stretched-pixels", ratio)] if ratio else [])


def test_a_collimator_outside_of_which_all_is_white_does_not_saturate():
    radiograph = phantom_views.radiograph("lumbar")
    rising = radiograph.table[-1] > radiograph.table[0]
    pixels = np.pad(radiograph.pixels, 150, constant_values=radiograph.table.size - 1 if rising else 0)
    assert "saturated" not in codes(picture_findings(replace(radiograph, pixels=pixels)))


@pytest.mark.parametrize("shape", [(128, 128), (129, 700), (2, 3)])
def test_any_size_and_kind_of_pixels_can_be_looked_at(shape):
    rng = np.random.default_rng(1)
    table = np.linspace(0, 1, 4096, dtype=np.float32)
    for dtype, low in ((np.uint16, 0), (np.int16, -2048)):
        pixels = rng.integers(low, low + 4096, shape, dtype=dtype)
        assert set(codes(picture_findings(Radiograph(pixels, table, stored_min=low)))) <= set(CODES)
