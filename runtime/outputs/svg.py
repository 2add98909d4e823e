"""A radiograph with its marks as an SVG picture for a page: embedded pixels, and a group for each kind of mark.

The picture's user units are the radiograph's pixels (integer coordinates are pixel centres), so that a mark stands at
the coordinates that the report states. Grades differ in their digit, the shape of their badge, and their colour. An
asterisk stands beside grades and levels that a reader set.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.outputs.corrections import BY_READER, STAR, marked_level, star_of
from spinescore.runtime.outputs.marks import COLOURS, MEANINGS, Badge, DiscMarks, badge_radius, shown_grey
from spinescore.runtime.outputs.words import grade_digit
from spinescore.runtime.scoring.report import CornerReport
from spinescore.runtime.study import Radiograph

__all__ = ["clean", "embedded_picture", "figure", "spoken", "symbol", "symbols"]

_HEIGHT_PX = 1600
_MOST_BYTES = 900_000  # of one JPEG picture, so that a page of two stays below 2.5 MB
_QUALITIES = (90, 75, 60, 45)

_NOT_SCORED = "#cccccc"
_SHAPES: dict[int | None, str] = {
    0: '<circle class="shape" r="10" fill="{}"/>',
    1: '<rect class="shape" x="-9" y="-9" width="18" height="18" rx="3" fill="{}"/>',
    2: '<path class="shape" d="M0-12 12 0 0 12-12 0Z" fill="{}"/>',
    3: '<path class="shape" d="M-6.2-10.8H6.2L12.4 0 6.2 10.8H-6.2L-12.4 0Z" fill="{}"/>',
    None: '<circle class="shape" r="10" fill="{}" stroke-dasharray="3.1 2.1"/>',
}


def clean(text: object) -> str:
    """Return text from the input as HTML: markup is escaped, controls and lone surrogates are replaced."""
    printable = "".join(
        char if char.isprintable() or char == " " else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )
    return html.escape(printable, quote=True)


def symbols() -> str:
    """Return the definitions of all badges, which a page needs once."""
    drawn = (
        f'<symbol id="badge-{_name(grade)}" viewBox="-13 -13 26 26" overflow="visible">'
        f'{shape.format(_colour(grade))}<text class="digit" y="5.4">{grade_digit(grade)}</text></symbol>'
        for grade, shape in _SHAPES.items()
    )
    return f'<svg class="symbols" aria-hidden="true">{"".join(drawn)}</svg>'


def symbol(grade: int | None) -> str:
    """Return a badge for use within text; the words beside it give its meaning."""
    return (
        f'<svg viewBox="-13 -13 26 26" aria-hidden="true"><use href="#badge-{_name(grade)}" {_placed(0, 0, 13)}/></svg>'
    )


def embedded_picture(radiograph: Radiograph) -> tuple[str, tuple[int, int]]:
    """Return the radiograph as a data URL (JPEG, 8 bit, at most 1600 rows), and that picture's rows and columns."""
    import cv2

    grey, _ = shown_grey(radiograph, _HEIGHT_PX)
    for quality in _QUALITIES:
        _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= _MOST_BYTES:
            break
    url = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
    return url, (grey.shape[0], grey.shape[1])


def figure(radiograph: Radiograph, url: str, alt: str, discs: Sequence[DiscMarks]) -> str:
    """Return the picture at `url` with the marks of its discs in the groups crops, points, levels and grades."""
    rows, columns = radiograph.rows, radiograph.columns
    radius = float(np.clip(badge_radius(discs), 0.010 * rows, 0.017 * rows))
    groups = {
        "crops": [_crop(marks.crop) for marks in discs if marks.crop is not None],
        "points": [_points(marks, radius) for marks in discs],
        "levels": [_level(marks, radius) for marks in discs],
        "grades": [*map(_bridge, discs), *(_badge(badge, radius) for marks in discs for badge in marks.badges)],
    }
    marks = "".join(f'<g class="{name}">{"".join(drawn)}</g>\n' for name, drawn in groups.items() if any(drawn))
    return (
        f'<svg viewBox="-0.5 -0.5 {columns} {rows}" role="group" aria-label="{clean(alt)}">'
        f'<image x="-0.5" y="-0.5" width="{columns}" height="{rows}" preserveAspectRatio="none" role="img" '
        f'aria-label="{clean(alt)}" href="{url}"/>\n{marks}</svg>'
    )


def _crop(outline: NDArray[np.float64]) -> str:
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in outline)}"/>'


def _points(marks: DiscMarks, radius: float) -> str:
    """Return a filled centre and a hollow anterior point, joined by the disc's axis."""
    (x, y), (ax, ay) = marks.centre, marks.anterior
    dot = 0.3 * radius
    return (
        f"{_lines('edge', 'axis', marks.centre, marks.anterior)}"
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot:.1f}"/>'
        f'<circle class="anterior" cx="{ax:.1f}" cy="{ay:.1f}" r="{dot:.1f}"/>'
    )


def _level(marks: DiscMarks, radius: float) -> str:
    x, y = marks.label
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{1.2 * radius:.1f}">{clean(marked_level(marks.disc))}</text>'


def _bridge(marks: DiscMarks) -> str:
    """Return the line that joins the badges of a bridge, or nothing."""
    return _lines("bridge-edge", "bridge", *(badge.centre for badge in marks.badges)) if marks.is_bridge else ""


def _badge(badge: Badge, radius: float) -> str:
    (x, y), site = badge.centre, clean(badge.corner.site)
    return (
        f'{_lines("edge", "lead", badge.foot, badge.centre)}<a id="mark-{site}" href="#row-{site}">'
        f"<title>{clean(spoken(badge.corner))}</title>"
        f'<use href="#badge-{_name(badge.corner.grade)}" {_placed(x, y, 1.3 * radius)}/>{_star(badge, radius)}</a>'
    )


def _star(badge: Badge, radius: float) -> str:
    """Return the asterisk at the upper right of a badge if a reader set the grade, or nothing."""
    if not star_of(badge.corner):
        return ""
    (x, y), size = badge.centre, 2.4 * radius
    return (
        f'<text class="star" x="{x + 1.2 * radius:.1f}" y="{y - 0.1 * radius:.1f}" font-size="{size:.1f}">{STAR}</text>'
    )


def spoken(corner: CornerReport) -> str:
    """Return a corner in words: `C5-inferior: grade 2, syndesmophyte, probability 0.93`."""
    by_reader = f", {BY_READER}" if star_of(corner) else ""
    if corner.grade is None:
        counts = "" if corner.imputed is None else f", counts as {corner.imputed:g}"
        return f"{corner.site}: not graded{by_reader}{counts}"
    if by_reader:
        return f"{corner.site}: grade {corner.grade}, {MEANINGS[corner.grade]}{by_reader}"
    probability = "" if corner.probabilities is None else f", probability {corner.probabilities[corner.grade]:.2f}"
    return f"{corner.site}: grade {corner.grade}, {MEANINGS[corner.grade]}{probability}"


def _placed(x: float, y: float, half: float) -> str:
    return f'x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}"'


def _lines(edge: str, name: str, start: NDArray[np.float64], end: NDArray[np.float64]) -> str:
    """Return a line, and before it its edge."""
    place = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line class="{edge}" {place}/><line class="{name}" {place}/>'


def _name(grade: int | None) -> str:
    return "none" if grade is None else str(grade)


def _colour(grade: int | None) -> str:
    return _NOT_SCORED if grade is None else COLOURS[grade]
