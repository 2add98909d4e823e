"""Presentation states: every graphic lies where the report says, and the grey scale is the source's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from helpers import dicom_files, dicom_results
from spinescore.runtime import load_radiograph
from spinescore.runtime.outputs.marks import disc_marks
from spinescore.runtime.outputs.presentation import presentation_states

HALF_PIXEL = 0.5


def layers(state) -> dict:
    """Layer -> (list of (n, 2) points by graphic type, list of text objects)."""
    found = {}
    for annotation in state.GraphicAnnotationSequence:
        graphics = [
            (item.GraphicType, np.array(item.GraphicData).reshape(-1, 2))
            for item in annotation.get("GraphicObjectSequence", ())
        ]
        found[annotation.GraphicLayer] = graphics, list(annotation.get("TextObjectSequence", ()))
    return found


def states(case) -> list:
    return list(zip(case.made("gsps"), case.report.regions.values(), strict=True))


def test_points_are_the_reports(whole):
    for state, region in states(whole):
        graphics, texts = layers(state)["POINTS"]
        points = np.array([data[0] for kind, data in graphics if kind == "POINT"])
        wanted = [point for disc in region.discs for point in (disc.centre_px, disc.anterior_px)]
        np.testing.assert_allclose(points, np.add(wanted, HALF_PIXEL), rtol=0, atol=1e-9)
        assert sum(kind == "POLYLINE" for kind, _ in graphics) == len(region.discs)
        assert [text.UnformattedTextValue for text in texts] == [disc.level for disc in region.discs]


def test_crops_are_what_the_grader_saw(whole):
    for state, region in states(whole):
        graphics, _ = layers(state)["CROPS"]
        marks = disc_marks(region, whole.report.bundle.rules)
        assert len(graphics) == len(marks) == 6
        for (kind, data), mark in zip(graphics, marks, strict=True):
            assert kind == "POLYLINE"
            np.testing.assert_array_equal(data[0], data[-1])
            for corner in mark.crop + HALF_PIXEL:
                assert np.linalg.norm(data - corner, axis=1).min() < 0.01


def test_grades_stand_in_front_of_their_discs(whole):
    gaps = dicom_results.with_gaps(whole)
    for state, region in states(gaps):
        _, (heading, *grades) = layers(state)["GRADES"]
        shown = [corner.grade for disc in region.discs if disc.confidence > 0 for corner in disc.corners]
        assert [text.UnformattedTextValue for text in grades] == ["?" if g is None else str(g) for g in shown]
        assert "Not a medical device." in heading.UnformattedTextValue
        badges = [badge for mark in disc_marks(region, whole.report.bundle.rules) for badge in mark.badges]
        for text, badge in zip(grades, badges, strict=True):
            box = np.array([text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner])
            np.testing.assert_allclose(box.mean(axis=0), badge.centre + HALF_PIXEL, atol=1e-6)


def test_graphics_are_clipped_to_the_image(whole):
    """Discs at the edge: graphics outside of the picture are left out, and all others lie inside."""
    cervical = whole.report.regions["cervical"]
    moved = [replace(disc, anterior_px=(-20.0, disc.anterior_px[1])) for disc in cervical.discs[:1]]
    moved += [replace(disc, centre_px=(30.0, 5.0), anterior_px=(2.0, 5.0)) for disc in cervical.discs[1:2]]
    region = replace(cervical, discs=(*moved, *cervical.discs[2:]))
    report = replace(whole.report, regions={"cervical": region})
    (state,) = presentation_states(whole.study, report)
    info = region.radiograph
    for graphics, texts in layers(state).values():
        for _, data in graphics:
            assert data.min() >= 0
            assert (data <= (info.columns, info.rows)).all()
        for text in (text for text in texts if text.BoundingBoxAnnotationUnits == "PIXEL"):
            corners = [*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner]
            assert min(corners) >= 0
            assert max(corners[0::2]) <= info.columns
            assert max(corners[1::2]) <= info.rows
    points = [data for kind, data in layers(state)["POINTS"][0] if kind == "POINT"]
    assert len(points) == 11


def shown(state, pixels: np.ndarray) -> np.ndarray:
    """The grey, in 0 .. 1, that a viewer shows for stored values, by pydicom's own functions (PS3.4 N.2)."""
    values = apply_modality_lut(pixels, state) if "RescaleSlope" in state else pixels
    (item,) = state.SoftcopyVOILUTSequence
    item.PhotometricInterpretation, item.BitsStored, item.PixelRepresentation = "MONOCHROME2", 16, 0
    item.file_meta = state.file_meta
    if "VOILUTSequence" in item:
        grey = apply_voi_lut(values, item) / 65535.0
    else:
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            if keyword in state:
                setattr(item, keyword, state[keyword].value)
        item.BitsStored, item.PixelRepresentation = 12, int(pixels.dtype.kind == "i")
        low = -2048 if pixels.dtype.kind == "i" else 0
        slope, intercept = float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))
        bottom, top = low * slope + intercept, (low + 4095) * slope + intercept
        grey = (apply_voi_lut(values.astype(np.float64), item) - bottom) / (top - bottom)
    return 1.0 - grey if state.PresentationLUTShape == "INVERSE" else grey


WINDOW = {"WindowCenter": "1800", "WindowWidth": "1500"}
GREYS = {
    "window": WINDOW,
    "inverse": {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"},
    "rescaled": {**WINDOW, "RescaleSlope": "2", "RescaleIntercept": "-500"},
    "sigmoid": {**WINDOW, "VOILUTFunction": "SIGMOID"},
    "exact": {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"},
    "no window": {},
    "no window, inverse": {"PhotometricInterpretation": "MONOCHROME1"},
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", GREYS)
def test_grey_scale_is_the_sources(whole, tmp_path, name, signed):
    pixels = dicom_files.picture(12, signed, 64, 48)
    ds = dicom_files.radiograph_dataset(pixels, 12, **GREYS[name])
    source = load_radiograph(dicom_files.write(ds, tmp_path / "source.dcm"))
    cervical = whole.report.regions["cervical"]
    uid = source.sop_instance_uid
    info = replace(cervical.radiograph, sop_instance_uid=uid, rows=64, columns=48, pixels_digest=None)
    lost = tuple(replace(disc, confidence=0.0) for disc in cervical.discs)
    report = replace(whole.report, regions={"cervical": replace(cervical, radiograph=info, discs=lost)})
    (state,) = presentation_states(replace(whole.study, radiographs=(source,)), report)
    wanted = source.table[source.pixels.astype(np.int32) - source.stored_min]
    np.testing.assert_allclose(shown(state, source.pixels), wanted, atol=1e-3)
    assert ("RescaleSlope" in state) == (name == "rescaled")
    assert ("VOILUTSequence" in state.SoftcopyVOILUTSequence[0]) == name.startswith("no window")


def test_another_window_than_the_first_is_a_curve(whole):
    """If the networks used another window than the header's, the state shows that window."""
    cervical = whole.report.regions["cervical"]
    uid = cervical.radiograph.sop_instance_uid
    source = next(image for image in whole.study.radiographs if image.sop_instance_uid == uid)
    other = replace(source, table=np.sqrt(source.table))
    report = replace(whole.report, regions={"cervical": cervical})
    (state,) = presentation_states(replace(whole.study, radiographs=(other,)), report)
    wanted = other.table[other.pixels.astype(np.int32) - other.stored_min]
    np.testing.assert_allclose(shown(state, other.pixels), wanted, atol=1e-3)


def test_oblong_pixels_keep_their_shape(tiny_scorer, tmp_path):
    tags = {"PixelSpacing": ["0.2", "0.1"]}
    (state,) = dicom_results.score(tmp_path, tiny_scorer, regions=("lumbar",), **tags).made("gsps")
    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.2, 0.1]
    assert "PresentationPixelAspectRatio" not in area
