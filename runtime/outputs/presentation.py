"""Grayscale softcopy presentation states: points, crops and grades as graphics on the radiograph itself.

There is one state for each scored region. A viewer that applies it shows the radiograph as the networks saw it. If the
source's rescale and first window gave that grey scale, the state has these. Otherwise it has one VOI LUT: the table of
the networks, which folds the source's LUTs, another window, or contrast taken from the pixels into one curve (PS3.4
N.2, PS3.3 C.11.8). The state also has the source's Display Shutter.

Points, crops and grades are separate layers, so that a viewer can hide each. Graphics are clipped to the image, as
PIXEL units require (PS3.3 C.10.5); 0.0\\0.0 is the outer corner of the first pixel.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.outputs.corrections import BY_READER, STAR, has_marks, marked_level, star_of
from spinescore.runtime.outputs.dicomobjects import highdicom, objects_by_region
from spinescore.runtime.outputs.groups import HALF_PIXEL
from spinescore.runtime.outputs.marks import DiscMarks, badge_radius, disc_marks
from spinescore.runtime.outputs.words import NOTICE, grade_digit, region_title
from spinescore.runtime.reading.display import Display, Rescale, Window
from spinescore.runtime.reading.shutter import (
    BITMAP,
    bitmap_elements,
    hidden_by_bitmap,
    read_shutter,
    shutter_shapes,
)
from spinescore.runtime.reading.tags import number, text
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import RegionReport, StudyReport
from spinescore.runtime.study import Radiograph, Region

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["presentation_states"]

_SAME = 1e-4  # of the grey scale: a smaller difference between two tables does not count
_LARGEST = 1e9  # a rescale with a larger number is not taken over
_AS_STORED, _ANY_WINDOW = Rescale(1.0, 0.0), Window(0.5, 1.0, "LINEAR")  # the window is replaced by a curve


def presentation_states(study: StudyInput, report: StudyReport, *, created: datetime | None = None) -> list[Dataset]:
    """Return a DICOM presentation state for each scored region: points, crops and grades as layers on its radiograph.

    The objects are Grayscale Softcopy Presentation States in one new series of the radiographs' study, in the order of
    the report's regions. A region that was not scored has none. `study` is the study that was scored, as it was given
    to `Scorer.score`. Its headers are needed (DICOM files have them; an array gets one by
    `radiograph_from_array(.., header=)`), and its grey-scale tables. `created` is the date and time in the objects, now
    if it is None. The UIDs do not depend on it.

    Nothing is written or sent: save a dataset with `save_as(path, enforce_file_format=True)`, or use `write_results`.
    Needs the extra `results`. Raises OutputError if that is missing, if the report belongs to another study, or if a
    radiograph has no header that a result can refer to.
    """

    def state(
        radiograph: Radiograph, name: Region, region: RegionReport, source: Dataset, shared: dict[str, Any]
    ) -> Dataset:
        display, plain = _display(radiograph)
        title = region_title(name, region)
        layers, annotations = _graphics(disc_marks(region, report.bundle.rules), source, title)
        dataset: Dataset = highdicom().pr.GrayscaleSoftcopyPresentationState(
            referenced_images=[source],
            content_label="MSASSS",
            content_description=f"{title}. {NOTICE}",
            graphic_layers=layers,
            graphic_annotations=annotations,
            series_description="mSASSS (not a medical device)",
            **_grey_scale(display, plain, radiograph.header),
            specific_character_set=None,  # `finished` sets it
            **shared,
        )
        _mend_grey_scale(dataset, display, plain, radiograph)
        _add_shutter(dataset, radiograph)
        _set_aspect(dataset, radiograph)
        return dataset

    return objects_by_region(study, report, created, "gsps", state)


def _graphics(marks: tuple[DiscMarks, ...], source: Dataset, title: str) -> tuple[list[Any], list[Any]]:
    """Return the graphic layers, and an annotation for each layer that is not empty."""
    pr, canvas, radius = highdicom().pr, _Canvas(source.Columns, source.Rows), badge_radius(marks)
    key = f" {STAR} {BY_READER}" if has_marks(mark.disc for mark in marks) else ""
    place = (0.01, 0.01, 0.6, 0.08)
    heading = pr.TextObject(f"{title}\r\n{NOTICE}{key}", "DISPLAY", place, text_justification="LEFT")
    crops = [outline for mark in marks for outline in canvas.outline(mark.crop)]
    points = [point for mark in marks for point in canvas.points(mark.centre, mark.anterior)]
    levels = [canvas.text(marked_level(mark.disc), mark.label, radius) for mark in marks]
    grades = [
        canvas.text(grade_digit(badge.corner.grade) + star_of(badge.corner), badge.centre, radius)
        for mark in marks
        for badge in mark.badges
    ]
    drawn: tuple[tuple[str, str, tuple[int, int, int], list[Any], list[Any]], ...] = (  # with a colour in CIELab
        ("CROPS", "What the grader saw", (57, -41, 13), crops, []),
        ("POINTS", "Centre and anterior point of each disc", (100, 0, 0), points, levels),
        ("GRADES", "mSASSS grade of each corner, ? where it has none", (71, 17, 75), [], [heading, *grades]),
    )
    layers, annotations = [], []
    for order, (name, description, colour, graphics, texts) in enumerate(drawn, 1):
        layers.append(pr.GraphicLayer(name, order, description, highdicom().color.CIELabColor(*colour)))
        if graphics or texts:
            shown = {"graphic_objects": graphics or None, "text_objects": texts or None}
            annotations.append(pr.GraphicAnnotation([source], layers[-1], **shown))
    return layers, annotations


class _Canvas:
    """Makes graphic and text objects in the image's pixels, within its bounds."""

    def __init__(self, columns: int, rows: int) -> None:
        self._size = np.array([columns, rows], np.float64)
        self._pr = highdicom().pr

    def points(self, *points_px: NDArray[np.float64]) -> list[Any]:
        """Return the points inside the image, and the line through them if all are inside."""
        places = [point + HALF_PIXEL for point in points_px]
        inside = [place for place in places if (place >= 0).all() and (place <= self._size).all()]
        objects = [self._pr.GraphicObject("POINT", place[None], "PIXEL") for place in inside]
        if len(inside) == len(places):
            objects.append(self._pr.GraphicObject("POLYLINE", np.array(places), "PIXEL"))
        return objects

    def outline(self, corners_px: NDArray[np.float64] | None) -> list[Any]:
        """Return the part of a convex polygon inside the image as a closed line, or nothing."""
        import cv2

        if corners_px is None:
            return []
        columns, rows = self._size
        image = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
        area, shared = cv2.intersectConvexConvex((corners_px + HALF_PIXEL).astype(np.float32), image)
        if area <= 0 or shared is None:
            return []
        polygon = np.clip(shared.reshape(-1, 2).astype(np.float64), 0, self._size)
        return [self._pr.GraphicObject("POLYLINE", np.vstack([polygon, polygon[:1]]), "PIXEL")]

    def text(self, words: str, middle_px: NDArray[np.float64], half_height: float) -> Any:
        """Return text in a box around `middle_px`; a box that would leave the image is moved into it."""
        half = np.minimum(np.array([max(len(words), 2) * 0.6, 1.0]) * max(half_height, 1.0), self._size / 2)
        middle = np.clip(middle_px + HALF_PIXEL, half, self._size - half)
        box = (*map(float, middle - half), *map(float, middle + half))
        return self._pr.TextObject(words, "PIXEL", bounding_box=box)


def _display(radiograph: Radiograph) -> tuple[Display, bool]:
    """Return the header's display, and whether its rescale and first window alone give the radiograph's table."""
    from spinescore.runtime.reading.greyscale import header_table

    bits = radiograph.table.size.bit_length() - 1
    image = radiograph
    display, first = header_table(image.header, bits, image.stored_min, image.padding, image.occluded)
    modality, voi = display.modality, display.voi
    plain = isinstance(voi, Window) and voi.width >= 1 and display.presentation is None and radiograph.has_window
    if isinstance(modality, Rescale):
        plain &= max(abs(modality.slope), abs(modality.intercept)) <= _LARGEST
    plain &= modality is None or isinstance(modality, Rescale)
    same = plain and first is not None and np.abs(first - radiograph.table).max() < _SAME
    return display, bool(same)


def _grey_scale(display: Display, plain: bool, header: Dataset) -> dict[str, Any]:
    """Return all grey-scale transformations: highdicom copies a missing one, and takes XA and RF for multi-frame."""
    hd = highdicom()
    rescale = display.modality if plain and isinstance(display.modality, Rescale) else _AS_STORED
    window = display.voi if plain and isinstance(display.voi, Window) else _ANY_WINDOW
    shape = "INVERSE" if display.inverted else "IDENTITY"
    kind = text(header, "RescaleType") or "US"
    shown = hd.pr.SoftcopyVOILUTTransformation(window.center, window.width, voi_lut_function=window.function)
    return {
        "presentation_lut_transformation": hd.PresentationLUTTransformation(shape),
        "modality_lut_transformation": hd.ModalityLUTTransformation(rescale.intercept, rescale.slope, kind),
        "voi_lut_transformations": [shown],
    }


def _mend_grey_scale(state: Dataset, display: Display, plain: bool, radiograph: Radiograph) -> None:
    """Remove a rescale that changes nothing; add the radiograph's table if no window describes it."""
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    if not plain or display.modality is None:
        for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
            delattr(state, keyword)
    if plain:
        return
    grey = 1.0 - radiograph.table if display.inverted else radiograph.table
    lut, item = Dataset(), Dataset()
    descriptor = [grey.size % 65536, radiograph.stored_min, 16]  # 0 entries stand for 65536 (C.11.2.1.1)
    lut.add(DataElement("LUTDescriptor", "SS" if radiograph.stored_min < 0 else "US", descriptor))
    lut.LUTExplanation = "As the networks saw it"
    lut.add(DataElement("LUTData", "OW", np.round(grey * 65535.0).astype("<u2").tobytes()))
    item.VOILUTSequence = [lut]
    state.SoftcopyVOILUTSequence = [item]


def _add_shutter(state: Dataset, radiograph: Radiograph) -> None:
    """Add the source's shutter if the radiograph was seen through it (PS3.3 C.7.6.11).

    A state has either shapes or a bitmap (C.7.6.15). For a source with both, the bitmap hides all that they hide.
    """
    if radiograph.occluded is None:
        return
    header, rows, columns = radiograph.header, radiograph.rows, radiograph.columns
    bitmap = hidden_by_bitmap(header, rows, columns)
    shapes = shutter_shapes(header, [])
    shutter = None if bitmap is None else read_shutter(header, rows, columns, [])
    if shutter is None and not shapes:  # no shutter, or an array with masked pixels
        return
    if shutter is not None:
        state.ShutterShape = BITMAP
        for element in bitmap_elements(~shutter.seen):
            state.add_new(*element)
    else:
        state.ShutterShape = list(shapes)
        for numbers in shapes.values():
            for keyword, values in numbers.items():
                setattr(state, keyword, values)
    shade = number(radiograph.header, "ShutterPresentationValue") or 0.0
    state.ShutterPresentationValue = round(min(max(shade, 0.0), 65535.0))


def _set_aspect(state: Dataset, radiograph: Radiograph) -> None:
    """Set the spacing of pixels that are not square (PS3.3 C.10.4)."""
    if radiograph.spacing_mm is None or radiograph.spacing_mm[0] == radiograph.spacing_mm[1]:
        return
    area = state.DisplayedAreaSelectionSequence[0]
    area.PresentationPixelSpacing = [f"{side:.8g}" for side in radiograph.spacing_mm]
    del area.PresentationPixelAspectRatio
