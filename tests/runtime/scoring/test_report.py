"""Reports to JSON and back, and the published schema."""

import copy
import json
from contextlib import nullcontext

import jsonschema
import pytest

from helpers.made_reports import REPORT, made_report
from spinescore.runtime.errors import CODES
from spinescore.runtime.scoring.report import (
    StudyReport,
    report_schema,
)

SCHEMA = report_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("indent", [None, 2])
def test_round_trip(indent):
    text = REPORT.to_json(indent)
    assert StudyReport.from_json(text) == REPORT
    assert StudyReport.from_json(text.encode()) == REPORT
    assert StudyReport.from_json(text).to_json(indent) == text
    assert ("\n" in text) == (indent is not None)
    VALIDATOR.validate(json.loads(text))


@pytest.mark.parametrize("grade", [7, -1, 1.5, True, "2"])
def test_a_grade_that_is_none_is_refused(grade):
    document = json.loads(REPORT.to_json())
    document["regions"]["cervical"]["discs"][0]["corners"][1]["grade"] = grade
    with pytest.raises(
        ValueError, match=r"cervical\.discs\[0\]\.corners\[1\]\.grade: expected a whole number in \[0, 3\]"
    ):
        StudyReport.from_json(json.dumps(document))


def test_reports_of_before_the_expected_score_still_read():
    document = json.loads(REPORT.to_json())
    for region in document["regions"].values():
        del region["expected"]
        for found in region["discs"]:
            del found["total"], found["range"]
    del document["total"]["expected"]
    VALIDATOR.validate(document)
    report = StudyReport.from_json(json.dumps(document))
    assert report.regions["cervical"].expected is None
    assert report.regions["cervical"].discs[0].total is None
    assert report.total == REPORT.total


def test_the_schema_is_valid_and_knows_every_reject():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = [name for name, code in CODES.items() if code.severity in ("reject", "warning")]
    assert SCHEMA["$defs"]["code"]["enum"] == told
    skipped = [name for name, code in CODES.items() if code.severity == "skipped"]
    assert SCHEMA["properties"]["skipped"]["items"]["enum"] == skipped


def test_fields_that_a_later_version_added_are_ignored():
    document = json.loads(REPORT.to_json())
    document["later"] = document["regions"]["cervical"]["discs"][0]["corners"][0]["later"] = {"x": 1}
    VALIDATOR.validate(document)
    assert StudyReport.from_json(json.dumps(document)) == REPORT


def broken(*path, value):
    document = copy.deepcopy(json.loads(REPORT.to_json()))
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return document


CORNER = ("regions", "cervical", "discs", 0, "corners", 0)


@pytest.mark.parametrize(
    "document",
    [
        broken("schema", value="spinescore.report/2"),
        broken("regions", "thoracic", value=None),
        broken("regions", "lumbar", "reject", value=None),
        broken("regions", "lumbar", "reject", "code", value="odd"),
        broken("regions", "cervical", "status", value="missing"),
        broken("regions", "cervical", "discs", value=[]),
        broken(*CORNER, "grade", value=4),
        broken(*CORNER, "grade", value=None),
        broken(*CORNER, "status", value="abstained"),
        broken(*CORNER, "site", value="C1-inferior"),
        broken(*CORNER, "probabilities", value=[0.5, 0.5]),
        broken("regions", "cervical", "discs", 0, "total", value=7),
        broken("regions", "cervical", "expected", value={"mean": 1}),
        broken("total", "value", value=73),
        broken("timings_ms", "read", value=-1),
        broken("budget_ms", value=0),
    ],
)
def test_the_schema_refuses(document):
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema": "spinescore.report/2"}', '{"schema": "spinescore.report/1"}',
     json.dumps(broken("regions", value=[])), json.dumps(broken("study", value={})),
     json.dumps(broken("total", value=3)), json.dumps(broken("total", "expected", value=3))],
)  # fmt: skip
def test_what_is_no_report(text):
    with pytest.raises(ValueError, match=r"report|Expecting"):
        StudyReport.from_json(text)


def scored_document():
    return json.loads(made_report({"cervical": (1,) * 12, "lumbar": (0,) * 12}).to_json())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("regions", "cervical", "total"), 13, r"regions\.cervical\.total: it is 13, but the grades add up to 12"),
        (("regions", "lumbar", "discs", 2, "total"), 1, r"regions\.lumbar\.discs\[2\]\.total: it is 1"),
        (("total", "value"), 11, r"total\.value: it is 11, but the regions' totals add up to 12"),
        (("regions", "lumbar", "total"), None, r"lumbar\.total: it is None, but 0 corners have no grade"),
        (("total", "value"), None, r"total\.value: it is None, but all regions have totals"),
        (("regions", "lumbar", "radiograph"), None, r"lumbar\.radiograph: the region is scored, but has no radiograph"),
        (
            ("regions", "lumbar", "reject"),
            {"code": "blank", "message": "x", "source": None},
            r"scored, but has a re",
        ),
        (("regions", "lumbar", "discs", 3, "points"), "moved", r"discs\[3\]\.points: expected one of given, found"),
        (("regions", "lumbar", "discs", 3, "corners", 0, "probabilities"), [1, 1, 0, 0], r"they add up to 2, not to 1"),
        (("regions", "lumbar", "expected", "interval"), [0, 72], r"\[0, 72\] ends before it begins, or beyond 36"),
        (
            ("total", "expected"),
            {"mean": 60, "sd": 1, "interval": [9, 13]},
            r"\.mean: it is 60, but",
        ),
        (("regions", "lumbar", "discs", 0, "corners", 1, "site"), "S1-superior", r"corners\[1\]\.site: expected L1-"),
        (("regions", "lumbar", "discs", 0, "corners", 1, "status"), "abstained", r"L1-superior is abstained, but its"),
        (("regions", "cervical", "range"), [0, 36], r"cervical\.range: it is \[0, 36\], but the grades leave 12 to 12"),
        (("regions", "cervical", "range"), [12, 13], r"cervical\.range: .* leave 12 to 12"),
        (("regions", "cervical", "missing"), 1, r"cervical\.missing: it is 1, but 0 corners have no grade"),
        (("regions", "lumbar", "discs", 3, "range"), [1, 1], r"discs\[3\]\.range: it is \[1, 1\]"),
        (("total", "range"), [14, 10], r"total\.range: it is \[14, 10\], but the regions' ranges add up to \[12, 12\]"),
        (("total", "expected"), {"mean": 3, "sd": 1, "interval": [4, 2]}, r"total\.expected\.interval: \[4, 2\] ends"),
        (("regions", "lumbar", "expected", "interval"), [3, 1], r"lumbar\.expected\.interval: \[3, 1\] ends before"),
        (("total", "status"), "incomplete", r"total\.status: it is incomplete, but the total is complete"),
        (("total", "imputed_sites"), ["S1-superior"], r"total\.imputed_sites: they are not the sites"),
        (("regions", "lumbar", "discs", 3, "confidence"), 1.5, r"confidence: expected a number in \[0, 1\]"),
        (("regions", "lumbar", "discs", 3, "centre_px"), [1, "2"], r"centre_px\[1\]: expected a number"),
        (("regions", "lumbar", "discs", 3, "corners", 0, "probabilities"), [50, 0, 0, 0], r"probabilities\[0\]: "),
        (("timings_ms", "grade"), "3", r"timings_ms\.grade: expected a number, found '3'"),
        (("device", "name"), 3, r"device\.name: expected text, found 3"),
        (("warnings",), -1, r"warnings: expected an array"),
        (("regions", "lumbar", "radiograph", "turn_deg"), 45, r"turn_deg: expected"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(path, value, message):
    document = node = scored_document()
    StudyReport.from_json(json.dumps(document))
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        StudyReport.from_json(json.dumps(document))


def test_a_grade_that_somebody_edited_with_its_totals_does_not_keep_the_old_range():
    document = scored_document()
    document["regions"]["cervical"]["discs"][0]["corners"][0]["grade"] = 3
    document["regions"]["cervical"]["total"] = document["total"]["value"] = 14
    with pytest.raises(ValueError, match=r"cervical\.range: it is \[12, 12\], but the grades leave 14 to 14"):
        StudyReport.from_json(json.dumps(document))


@pytest.mark.parametrize(("most", "fits"), [(2, False), (3, True), (None, True)])
def test_a_total_needs_as_few_missing_corners_as_may_be_imputed(most, fits):
    document = json.loads(made_report({"cervical": (1,) * 9 + (None,) * 3, "lumbar": (0,) * 12}).to_json())
    document["max_imputed_per_region"] = most
    with nullcontext() if fits else pytest.raises(ValueError, match="3 corners have no grade, 2 may be imputed"):
        StudyReport.from_json(json.dumps(document))
