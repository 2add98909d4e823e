"""pydicom datasets in memory are read like files, and are not changed."""

from __future__ import annotations

import io
import random
from importlib import util
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from helpers.dicom_files import assert_stored, picture, radiograph_dataset, write
from spinescore.runtime import InputRejected, load_radiograph, load_studies, load_study, radiograph_from_array
from spinescore.runtime.outputs.source import source_of


def without_meta(**tags: object) -> Dataset:
    ds = radiograph_dataset(**tags)
    del ds.file_meta
    return ds


def big_endian(**tags: object) -> Dataset:
    ds = radiograph_dataset(**tags)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = picture().astype(">u2").tobytes() + b"\0" * (picture().nbytes % 2)
    return ds


def streamed(**tags: object) -> Dataset:
    ds = radiograph_dataset(**tags)
    ds.PixelData = io.BytesIO(ds.PixelData)
    return ds


@pytest.mark.parametrize("made", [radiograph_dataset, without_meta, big_endian, streamed])
def test_what_a_program_made(made) -> None:
    ds = made(PatientOrientation=["P", "F"])
    found = load_radiograph(ds)
    assert_stored(found, picture())
    assert (found.region, found.facing, found.spacing_mm) == ("cervical", "left", (0.15, 0.2))
    assert found.source == f"dataset {ds.SOPInstanceUID}"
    assert "PixelData" in ds
    assert "PixelData" not in found.header
    assert source_of(found).PatientID == "P-1"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
@pytest.mark.parametrize("deferred", [None, 64])
def test_what_was_read_from_a_file(tmp_path: Path, syntax, deferred) -> None:
    made = radiograph_dataset(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Anna")
    if syntax is not None:
        made.file_meta.TransferSyntaxUID = syntax
    path = write(made, tmp_path / "secret-name.dcm")
    expected = load_radiograph(path)
    ds = pydicom.dcmread(path, defer_size=deferred)
    found = load_radiograph(ds)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.table, expected.table)
    assert found.warnings == expected.warnings
    assert found.header == expected.header
    assert found.header.PatientName == "Müller^Anna"
    ds.PatientName = "Other^One"
    assert found.header.PatientName == "Müller^Anna"


@pytest.mark.skipif(util.find_spec("pylibjpeg") is None, reason="pydicom's RLE needs nothing, but the reader's does")
@pytest.mark.parametrize("with_meta", [True, False])
def test_compressed(with_meta: bool) -> None:
    ds = radiograph_dataset()
    ds.compress(RLELossless)
    if not with_meta:
        ds["PixelData"].is_undefined_length = False  # as of `ds.PixelData = encapsulate([frame])`
    found = load_radiograph(ds)
    assert_stored(found, picture())
    assert found.decoder != "none"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"PixelData": None}, "no-pixels"),
        ({"Rows": None, "Columns": None}, "no-pixels"),
        ({"Rows": 40}, "corrupt-pixels"),
        ({"SamplesPerPixel": 3}, "not-radiograph"),
        ({"Rows": 60000, "Columns": 60000}, "too-large"),
    ],
)
def test_errors_name_the_sop_instance(change: dict, code: str) -> None:
    ds = radiograph_dataset()
    uid = ds.SOPInstanceUID
    for keyword, value in change.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.filename = "/home/someone/Quorvexel.dcm"
    with pytest.raises(InputRejected, match=f"^dataset {uid}") as refused:
        load_radiograph(ds)
    assert refused.value.code == code
    assert "Quorvexel" not in str(refused.value)


def test_floating_point_pixels_and_no_uid() -> None:
    ds = radiograph_dataset(PixelData=None, SOPInstanceUID=None)
    ds.FloatPixelData = np.zeros(37 * 51, np.float32).tobytes()
    with pytest.raises(
        InputRejected, match="dataset without a SOP Instance UID holds floating-point pixels"
    ) as refused:
        load_radiograph(ds)
    assert refused.value.code == "not-radiograph"


def test_studies(tmp_path: Path) -> None:
    neck, back = radiograph_dataset(), radiograph_dataset(BodyPartExamined="LSPINE")
    path = write(back, tmp_path / "back.dcm")
    study = load_study(neck, path)
    assert {image.region for image in study.radiographs} == {"cervical", "lumbar"}
    assert study.study_instance_uid == "1.2.3.4"
    other = radiograph_dataset(StudyInstanceUID="1.2.3.5")
    assert [len(one.radiographs) for one in load_studies([neck, back, other])] == [2, 1]
    studies = load_studies([neck, back, other], on_demand=True)
    assert [len(one.radiographs) for one in studies] == [2, 1]
    studies.close()
    broken = radiograph_dataset(Rows=40, BodyPartExamined="LSPINE")
    study = load_study(neck, broken)
    assert [reject.code for reject in study.rejects] == ["corrupt-pixels"]
    assert len(load_study(neck, neck).radiographs) == 1


@pytest.mark.filterwarnings("ignore")  # pydicom's, while this test reads what no device writes
def test_spoiled_headers_are_read_or_refused_as_in_a_file() -> None:
    made = radiograph_dataset(PatientOrientation=["P", "F"], WindowCenter="900", WindowWidth="1500")
    made.save_as(stream := io.BytesIO(), enforce_file_format=True)
    data = stream.getvalue()
    rng, same, read = random.Random(11), 0, 0
    for _ in range(150):
        spoiled = bytearray(data)
        for _ in range(rng.choice((1, 2, 4))):
            spoiled[rng.randrange(300, data.index(b"\xe0\x7f\x10\0"))] = rng.randrange(256)
        try:
            ds = pydicom.dcmread(io.BytesIO(bytes(spoiled)), force=True)
        except Exception:
            continue
        try:
            expected = load_radiograph(bytes(spoiled))
            found = load_radiograph(ds)
        except InputRejected:
            found = None
        try:
            array = radiograph_from_array(picture(), header=ds)
        except (InputRejected, ValueError):
            array = None
        if found is not None:
            read += 1
            same += np.array_equal(found.pixels, expected.pixels) and np.array_equal(found.table, expected.table)
        if found is not None and array is not None:
            assert (array.region, array.facing, array.spacing_mm) == (found.region, found.facing, found.spacing_mm)
    assert same == read > 50
