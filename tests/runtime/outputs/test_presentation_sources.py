"""Presentation states of every kind of radiograph: SOP classes, with and without each step of display, shutters."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from helpers import dicom_files, dicom_results
from spinescore.runtime import Radiograph, load_radiograph
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.outputs.presentation import presentation_states
from spinescore.runtime.reading.greyscale import table as fold
from spinescore.runtime.reading.shutter import bitmap_elements

CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "DX for processing": "1.2.840.10008.5.1.4.1.1.1.1.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "RF": "1.2.840.10008.5.1.4.1.1.12.2",
}


def lut(count: int, power: float) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, 16])
    item.add_new("LUTData", "OW", np.round(65535 * np.linspace(0, 1, count) ** power).astype("<u2").tobytes())
    return item


WINDOW = {"WindowCenter": "1800", "WindowWidth": "1500"}
STEPS = {
    "nothing": {},
    "window": WINDOW,
    "explained window": {**WINDOW, "WindowCenterWidthExplanation": "NORMAL"},
    "rescale": {"RescaleSlope": "2", "RescaleIntercept": "-500"},
    "rescale and window": {"RescaleSlope": "2", "RescaleIntercept": "-500", "RescaleType": "OD", **WINDOW},
    "narrow exact window": {"WindowCenter": "1800", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
    "modality LUT": {"ModalityLUTSequence": [lut(4096, 0.7)]},
    "modality LUT and window": {
        "ModalityLUTSequence": [lut(4096, 0.7)], "WindowCenter": "30000", "WindowWidth": "40000"
    },
    "VOI LUT": {"VOILUTSequence": [lut(4096, 2.0)]},
    "VOI LUT and window": {"VOILUTSequence": [lut(4096, 2.0)], **WINDOW},
    "everything": {
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "ModalityLUTSequence": [lut(4096, 0.7)],
        "VOILUTSequence": [lut(65535, 2.0)],
        **WINDOW,
        "WindowCenterWidthExplanation": "NORMAL",
    },
    "not for display": {"PixelIntensityRelationship": "LOG", "ModalityLUTSequence": [lut(4096, 0.2)], **WINDOW},
}  # fmt: skip


def state_of(case, source: Radiograph) -> Dataset:
    """The state of a radiograph, with the cervical region's graphics."""
    cervical = case.report.regions["cervical"]
    info = replace(
        cervical.radiograph,
        sop_instance_uid=source.sop_instance_uid,
        rows=source.rows,
        columns=source.columns,
        pixels_digest=None,
    )
    report = replace(case.report, regions={"cervical": replace(cervical, radiograph=info)})
    (state,) = presentation_states(replace(case.study, radiographs=(source,)), report)
    return state


def read(path: Path, sop_class: str, pixels: np.ndarray | None = None, **tags) -> Radiograph:
    pixels = dicom_files.picture(12, False, 96, 80) if pixels is None else pixels
    ds = dicom_files.radiograph_dataset(pixels, SOPClassUID=sop_class, **tags)
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    return load_radiograph(dicom_files.write(ds, path))


def shown(state: Dataset, radiograph: Radiograph) -> np.ndarray:
    """The table that the state gives for the radiograph's stored values (PS3.4 N.2)."""
    display = Dataset()
    display.PhotometricInterpretation = "MONOCHROME1" if state.PresentationLUTShape == "INVERSE" else "MONOCHROME2"
    (voi,) = state.SoftcopyVOILUTSequence
    for element in (*voi, *(state[keyword] for keyword in ("RescaleSlope", "RescaleIntercept") if keyword in state)):
        display[element.tag] = element
    return fold(display, radiograph.pixels, 12, radiograph.stored_min)[0]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", CLASSES)
def test_grey_scale_is_what_the_networks_saw(whole, tmp_path: Path, name: str, steps: str) -> None:
    source = read(tmp_path / "source.dcm", CLASSES[name], **STEPS[steps])
    state = state_of(whole, source)
    used = np.unique(source.pixels)
    np.testing.assert_allclose(shown(state, source)[used], source.table[used], atol=1e-3)
    plain = steps in ("window", "explained window", "rescale and window") or (
        steps == "not for display" and name in ("XA", "RF")
    )
    assert ("VOILUTSequence" in state.SoftcopyVOILUTSequence[0]) != plain
    assert ("RescaleSlope" in state) == (steps == "rescale and window")
    assert "ModalityLUTSequence" not in state
    assert state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPClassUID == CLASSES[name]


@dicom_results.needs_dciodvfy
@pytest.mark.parametrize("name", CLASSES)
def test_all_results_conform(tiny_scorer, tmp_path: Path, name: str) -> None:
    """A plain window without a rescale, which highdicom would look for in the frames of an XA or RF image."""
    tags = {
        "SOPClassUID": CLASSES[name],
        "WindowCenter": "127.5",
        "WindowWidth": "255",
        "VOILUTFunction": "LINEAR_EXACT",
    }
    tags |= dict.fromkeys(("RescaleSlope", "RescaleIntercept", "RescaleType"))
    case = dicom_results.score(tmp_path / "study", tiny_scorer, regions=("lumbar",), **tags)
    assert case.report.regions["lumbar"].status == "scored"
    (state,) = case.made("gsps")
    assert state.SoftcopyVOILUTSequence[0].WindowWidth == 255
    for kind in dicom_results.KINDS:
        (made,) = case.made(kind)
        assert dicom_results.violations(made, tmp_path) == []


@dicom_results.needs_dciodvfy
@pytest.mark.parametrize("steps", ["rescale and window", "modality LUT and window", "VOI LUT", "everything"])
@pytest.mark.parametrize("name", ["DX", "RF"])
def test_states_conform(whole, tmp_path: Path, name: str, steps: str) -> None:
    state = state_of(whole, read(tmp_path / "source.dcm", CLASSES[name], **STEPS[steps]))
    assert dicom_results.violations(state, tmp_path) == []


@pytest.mark.skipif(shutil.which("dcmp2pgm") is None, reason="dcmp2pgm is not installed (Debian's dcmtk)")
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["DX", "RF"])
def test_a_viewer_shows_what_the_networks_saw(whole, tmp_path: Path, name: str, steps: str) -> None:
    """dcmtk renders the stored image through the state, in 8 bits."""
    source = read(tmp_path / "source.dcm", CLASSES[name], **STEPS[steps])
    state, to = write_dicom(tmp_path / "state.dcm", state_of(whole, source)), tmp_path / "shown.pgm"
    subprocess.run(
        ["dcmp2pgm", "-p", str(state), str(tmp_path / "source.dcm"), str(to)], check=True, capture_output=True
    )
    grey = source.table[source.pixels.astype(int) - source.stored_min]
    np.testing.assert_allclose(cv2.imread(str(to), cv2.IMREAD_UNCHANGED) / 255.0, grey, rtol=0, atol=1.2 / 255)


SHUTTERS = {
    "RECTANGULAR": {
        "ShutterUpperHorizontalEdge": 10,
        "ShutterLowerHorizontalEdge": 90,
        "ShutterLeftVerticalEdge": 5,
        "ShutterRightVerticalEdge": 70,
    },
    "CIRCULAR": {"CenterOfCircularShutter": [48, 40], "RadiusOfCircularShutter": 35},
    "POLYGONAL": {"VerticesOfThePolygonalShutter": [8, 40, 90, 10, 90, 70]},
}


@dicom_results.needs_dciodvfy
@pytest.mark.parametrize("shade", [None, 0, 30000])
@pytest.mark.parametrize("shapes", [*([shape] for shape in SHUTTERS), list(SHUTTERS)])
@pytest.mark.parametrize("window", [{}, WINDOW], ids=["no window", "window"])
def test_shutter_goes_with_the_state(whole, tmp_path: Path, shapes: list[str], shade: int | None, window: dict) -> None:
    tags = {keyword: found for shape in shapes for keyword, found in SHUTTERS[shape].items()}
    tags |= {} if shade is None else {"ShutterPresentationValue": shade}
    source = read(tmp_path / "source.dcm", CLASSES["DX"], ShutterShape=shapes, **tags, **window)
    state = dcmread(write_dicom(tmp_path / "state.dcm", state_of(whole, source)))
    stated = [state.ShutterShape] if isinstance(state.ShutterShape, str) else list(state.ShutterShape)
    assert stated == shapes
    assert state.ShutterPresentationValue == (shade or 0)
    for shape in shapes:
        for keyword, found in SHUTTERS[shape].items():
            assert (list(state[keyword].value) if isinstance(found, list) else state[keyword].value) == found
    assert ("VOILUTSequence" in state.SoftcopyVOILUTSequence[0]) != bool(window)
    seen = np.unique(source.pixels[source.pixels != source.occluded[0]])
    np.testing.assert_allclose(shown(state, source)[seen], source.table[seen], atol=1e-3)
    assert dicom_results.violations(state, tmp_path) == []


def test_no_shutter_without_one(whole, tmp_path: Path) -> None:
    state = state_of(whole, read(tmp_path / "source.dcm", CLASSES["DX"], ShutterShape="BITMAP", **WINDOW))
    assert not [element.keyword for element in state if "Shutter" in element.keyword]


@pytest.mark.skipif(shutil.which("dcmp2pgm") is None, reason="dcmp2pgm is not installed (Debian's dcmtk)")
@pytest.mark.parametrize("shapes", [[], ["CIRCULAR"]])
def test_a_viewer_shows_the_bitmap_of_a_shutter(whole, tmp_path: Path, shapes: list[str]) -> None:
    down, across = np.indices((96, 80)) + 1
    hidden = (down + across < 60) | (across > 72)
    bitmap = Dataset()
    for tag, vr, found in bitmap_elements(hidden):
        bitmap.add_new(tag, vr, found)
    tags = {element.keyword: element.value for element in bitmap if element.tag.group < 0x6000}
    tags |= {keyword: found for shape in shapes for keyword, found in SHUTTERS[shape].items()}
    ds = dicom_files.radiograph_dataset(
        dicom_files.picture(12, False, 96, 80), SOPClassUID=CLASSES["DX"], ShutterShape=[*shapes, "BITMAP"],
        ShutterPresentationValue=20000, **tags, **WINDOW,
    )  # fmt: skip
    ds.file_meta.MediaStorageSOPClassUID = CLASSES["DX"]
    ds.update({element.tag: element for element in bitmap})
    source = load_radiograph(dicom_files.write(ds, tmp_path / "source.dcm"))
    state = state_of(whole, source)
    assert state.ShutterShape == "BITMAP"
    assert dicom_results.violations(state, tmp_path) == [] or shutil.which("dciodvfy") is None
    to = tmp_path / "shown.pgm"
    write_dicom(tmp_path / "state.dcm", state)
    subprocess.run(
        ["dcmp2pgm", "-p", str(tmp_path / "state.dcm"), str(tmp_path / "source.dcm"), str(to)],
        check=True, capture_output=True,
    )  # fmt: skip
    grey = source.table[source.pixels.astype(int) - source.stored_min]
    assert grey[hidden] == pytest.approx(20000 / 65535, abs=1e-3)
    np.testing.assert_allclose(cv2.imread(str(to), cv2.IMREAD_UNCHANGED) / 255.0, grey, rtol=0, atol=1.2 / 255)
