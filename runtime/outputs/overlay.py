"""A picture of a region: the radiograph with the discs' points, the grader's crops, and the grades.

It shows the radiograph's pixels unchanged, with any text that is burned into them, and nothing of the header. Grades
differ in their digit, the shape of their badge, and their colour. Two corners of grade 3 are one bridge, and joined.
An asterisk stands beside grades and levels that a reader set.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import REJECT_CODES
from spinescore.runtime.outputs.corrections import BY_READER, has_marks, marked_level, star_of
from spinescore.runtime.outputs.marks import (
    COLOURS,
    MEANINGS,
    SHAPES,
    DiscMarks,
    badge_radius,
    disc_marks,
    shown_grey,
    untrusted_marks,
)
from spinescore.runtime.outputs.words import grade_digit
from spinescore.runtime.scoring.report import BundleRules, RegionReport
from spinescore.runtime.study import Radiograph
from spinescore.runtime.text import one_line

__all__ = ["draw_overlay", "draw_untrusted"]

Image = NDArray[np.uint8]
Point = NDArray[np.floating[Any]]  # x, y
Colour = tuple[int, int, int]  # blue, green, red

_HEIGHT_PX = 1000  # of the drawn radiograph; a smaller one is not enlarged
_MIN_WIDTH_PX = 480
_MARGIN_PX = 12
_LINE_PX = 22
_FAR_PX = 1_000_000

_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_CAUTION: Colour = (0, 159, 230)
_SQUARE: Colour = (115, 158, 0)
_NOT_SCORED: Colour = (170, 170, 170)


def _colour(grade: int | None) -> Colour:
    if grade is None:
        return _NOT_SCORED
    red, green, blue = bytes.fromhex(COLOURS[grade][1:])
    return blue, green, red


def draw_overlay(
    radiograph: Radiograph, region: RegionReport, rules: BundleRules | None, title: str, intended_use: str
) -> Image:
    """Return the picture of a scored region, H x W x 3, uint8, blue-green-red.

    `rules` are those of the report's bundle, from which the crops follow. `title` and `intended_use` stand above the
    radiograph. Discs without points (confidence 0) are left out.
    """
    picture, scale = _radiograph(radiograph)
    discs = disc_marks(region, rules)
    radius = int(np.clip(badge_radius(discs) * scale, 7, 13))
    for marks in discs:
        if marks.crop is not None:
            cv2.polylines(picture, [_fixed(_scaled(marks.crop, scale))], True, _SQUARE, 1, cv2.LINE_AA, 4)
    for marks in discs:
        _points(picture, marks, scale)
    for marks in discs:
        _grades(picture, marks, scale, radius)
    width = picture.shape[1]
    parts = [_header(title, intended_use, width), picture, _legend(width, has_marks(marks.disc for marks in discs))]
    return np.vstack(parts)


def draw_untrusted(radiograph: Radiograph, region: RegionReport, title: str, intended_use: str) -> Image:
    """Return the picture of a rejected region: its points in the colour of a warning, and the reason above them."""
    picture, scale = _radiograph(radiograph)
    for marks in untrusted_marks(region):
        _points(picture, marks, scale, _CAUTION)
    why = REJECT_CODES.get(region.reject.code, "") if region.reject else ""  # the message names the file
    lines = f"Not scored. The points shown are not to be trusted. {why} {intended_use}"
    return np.vstack([_header(title, lines, picture.shape[1]), picture])


def _radiograph(radiograph: Radiograph) -> tuple[Image, float]:
    small, scale = shown_grey(radiograph, _HEIGHT_PX)
    missing = max(0, _MIN_WIDTH_PX - small.shape[1])
    padded = np.pad(small, ((0, 0), (0, missing)))  # on the right, so that coordinates keep their meaning
    return np.ascontiguousarray(np.repeat(padded[:, :, None], 3, axis=2)), scale


def _scaled(points_px: Any, scale: float) -> NDArray[np.float64]:
    """Convert source pixels to picture pixels (integers are pixel centres in both)."""
    scaled: NDArray[np.float64] = (np.asarray(points_px, np.float64) + 0.5) * scale - 0.5
    return scaled


def _points(picture: Image, marks: DiscMarks, scale: float, colour: Colour = _WHITE) -> None:
    """Draw the centre, the anterior point, the line between them, and the level's name behind the spine."""
    centre, anterior = _scaled(marks.centre, scale), _scaled(marks.anterior, scale)
    _line(picture, centre, anterior, colour)
    for point in (centre, anterior):
        _disc(picture, point, 4, _BLACK)
        _disc(picture, point, 3, colour)
    _label(picture, marked_level(marks.disc), _scaled(marks.label, scale))


def _grades(picture: Image, marks: DiscMarks, scale: float, radius: int) -> None:
    if marks.is_bridge:
        upper, lower = (_scaled(badge.centre, scale) for badge in marks.badges)
        _line(picture, upper, lower, _colour(marks.badges[0].corner.grade), 3)
    for badge in marks.badges:
        centre = _scaled(badge.centre, scale)
        _line(picture, _scaled(badge.foot, scale), centre, _colour(badge.corner.grade))
        _badge(picture, centre, radius, badge.corner.grade)
        if star_of(badge.corner):
            _star(picture, centre + np.array([1.1, -1.1]) * radius)


def _badge(picture: Image, centre: Point, radius: int, grade: int | None) -> None:
    shape = SHAPES.get(grade)
    for size, colour in ((radius + 1.5, _BLACK), (radius, _colour(grade))):
        if shape is None:
            _disc(picture, centre, size, colour)
        else:
            cv2.fillPoly(picture, [_fixed(centre + size * np.array(shape))], colour, cv2.LINE_AA, 4)
    edge = round((radius + 1) * 16)
    for start in range(0, 360, 60) if grade is None else ():  # a broken edge
        cv2.ellipse(picture, _fixed(centre), (edge, edge), 0, start, start + 30, _NOT_SCORED, 2, cv2.LINE_AA, 4)
    _text(picture, grade_digit(grade), centre, radius / 22, _BLACK, centred=True)


def _star(picture: Image, centre: Point) -> None:
    """Draw an asterisk of lines, because the font has a small one that stands high."""
    for width, shade in ((4, _BLACK), (2, _WHITE)):
        for angle in (0.0, np.pi / 3, 2 * np.pi / 3):
            half = 5 * np.array([np.sin(angle), np.cos(angle)])
            cv2.line(picture, _fixed(centre - half), _fixed(centre + half), shade, width, cv2.LINE_AA, 4)


def _label(picture: Image, text: str, centre: Point) -> None:
    """Draw text on a black plate, so that it is readable on bone and on air."""
    x, y = round(float(centre[0])), round(float(centre[1]))
    half = _text_width(text, 0.42) // 2 + 3
    cv2.rectangle(picture, (x - half, y - 8), (x + half, y + 8), _BLACK, cv2.FILLED)
    _text(picture, text, centre, 0.42, _WHITE, centred=True)


def _header(title: str, intended_use: str, width: int) -> Image:
    """Return a strip with title and note. OpenCV crashes on half of a character, which `one_line` replaces."""
    lines = [(line, 0.65, _WHITE) for line in _wrapped(one_line(title), 0.65, width)]
    lines += [(line, 0.45, _CAUTION) for line in _wrapped(one_line(intended_use), 0.45, width)]
    strip: Image = np.zeros((_LINE_PX * len(lines) + _MARGIN_PX + 6, width, 3), np.uint8)
    for number, (line, size, colour) in enumerate(lines):
        _text(strip, line, np.array([_MARGIN_PX, _LINE_PX * (number + 1) + 2]), size, colour)
    return strip


def _legend(width: int, by_reader: bool) -> Image:
    x, y, places = _MARGIN_PX, _LINE_PX, []
    for grade, meaning in MEANINGS.items():
        needed = 30 + _text_width(meaning, 0.42) + 14
        if x > _MARGIN_PX and x + needed > width:
            x, y = _MARGIN_PX, y + _LINE_PX + 4
        places.append((x, y, grade, meaning))
        x += needed
    y += _LINE_PX + 4 if by_reader else 0
    strip: Image = np.zeros((y + _LINE_PX, width, 3), np.uint8)
    if by_reader:
        _star(strip, np.array([_MARGIN_PX + 9.0, y]))
        _text(strip, BY_READER, np.array([_MARGIN_PX + 26, y + 5]), 0.42, _WHITE)
    for x, y, grade, meaning in places:
        _badge(strip, np.array([x + 9, y]), 9, grade)
        _text(strip, meaning, np.array([x + 26, y + 5]), 0.42, _WHITE)
    return strip


def _wrapped(text: str, size: float, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer, size) > width - 2 * _MARGIN_PX:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fixed(points: Any) -> Any:
    """Return points in 1/16 pixel, as OpenCV takes them with `shift` 4; far ones are moved to where it can count."""
    return np.round(np.clip(np.asarray(points, np.float64), -_FAR_PX, _FAR_PX) * 16).astype(np.int32)


def _disc(picture: Image, centre: Point, radius: float, colour: Colour) -> None:
    cv2.circle(picture, _fixed(centre), round(radius * 16), colour, cv2.FILLED, cv2.LINE_AA, 4)


def _line(picture: Image, start: Point, end: Point, colour: Colour, thickness: int = 1) -> None:
    for width, shade in ((thickness + 2, _BLACK), (thickness, colour)):  # a dark edge keeps the line visible on bone
        cv2.line(picture, _fixed(start), _fixed(end), shade, width, cv2.LINE_AA, 4)


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def _text(picture: Image, text: str, place: Point, size: float, colour: Colour, centred: bool = False) -> None:
    """Draw text; `place` is its lower left end, or its middle if `centred`."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    width, height = cv2.getTextSize(text, font, size, 1)[0]
    x, y = (place[0] - width / 2, place[1] + height / 2) if centred else (place[0], place[1])
    cv2.putText(picture, text, (round(float(x)), round(float(y))), font, size, colour, 1, cv2.LINE_AA)
