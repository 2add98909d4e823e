"""Two drawn radiographs with known points and grades, and what holds for every report on them."""

import json
from dataclasses import replace

import jsonschema
import numpy as np

from helpers.tiny import HEIGHT, draw
from spinescore.runtime import StudyReport
from spinescore.runtime.scoring.report import report_schema

OTHER_GRADES = ((3, 3), (0, 0), (1, 2), (2, 2), (0, 1), (2, 1))
CERVICAL = draw("cervical")
LUMBAR = draw("lumbar", OTHER_GRADES)
VALIDATOR = jsonschema.Draft202012Validator(report_schema())


def blank(**tags):
    """The cervical radiograph with nothing in it, and other tags."""
    return replace(CERVICAL.radiograph, pixels=np.zeros_like(CERVICAL.radiograph.pixels), **tags)


def spineless(**tags):
    """The cervical radiograph with a bright bar in place of all that the networks know, and other tags."""
    pixels = np.zeros_like(CERVICAL.radiograph.pixels)
    pixels[:, 300:450] = 100
    return replace(CERVICAL.radiograph, pixels=pixels, **tags)


def checked(report):
    """The report, after its JSON was found valid and to give the same report again."""
    VALIDATOR.validate(json.loads(report.to_json()))
    assert StudyReport.from_json(report.to_json()) == report
    return report


def grades(region):
    return tuple(tuple(corner.grade for corner in disc.corners) for disc in region.discs)


def points(region):
    return np.array([[disc.centre_px, disc.anterior_px] for disc in region.discs])


def assert_found(region, drawn):
    """All grades right, every point within three quarters of a pixel of the localizer's input."""
    assert region.status == "scored"
    assert grades(region) == drawn.grades
    assert np.abs(points(region) - drawn.points).max() < 0.75 * drawn.radiograph.rows / HEIGHT
