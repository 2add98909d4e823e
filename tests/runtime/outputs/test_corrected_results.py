"""Results of a report that readers corrected: each shows what was changed, by whom, and what it was before."""

from __future__ import annotations

import io
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from helpers import dicom_results, pages
from helpers.dicom_results import needs_dciodvfy
from helpers.scoring import checked
from spinescore.runtime import Correction, correct, keypoints_of
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.dicomobjects import write_dicom
from spinescore.runtime.outputs.groups import person_name
from spinescore.runtime.outputs.html import html
from spinescore.runtime.outputs.overlay import draw_overlay
from spinescore.runtime.outputs.rows import COLUMNS, row
from spinescore.runtime.outputs.srtext import report_text
from spinescore.runtime.outputs.uids import content_name
from spinescore.runtime.verbs.summary import study_summary

AT, LATER = "2026-11-29T15:04:05+00:00", "2026-11-29T16:00:00+00:00"
PERSON = ("121006", "DCM", "Person")
BERG, BRAUN = "Berg^Änna", "Dr Braun"


@pytest.fixture(scope="module")
def corrected(tiny_scorer, whole):
    """The whole study with corrected points and grades: C3-superior by two readers, L1-inferior not readable."""
    disc = whole.report.regions["cervical"].discs[1]
    (x, y), (ax, ay) = disc.centre_px, disc.anterior_px
    corrections = [
        Correction(
            BERG,
            AT,
            points={"cervical": {"C3/C4": ((x + 3, y), (ax + 4, ay + 2))}},
            grades={"C3-superior": 2, "L1-inferior": None},
            comment="No <b>bridge</b>.\nSeen before.",
        ),
        Correction(BRAUN, LATER, grades={"C3-superior": 3, "T12-inferior": 0}),
    ]
    scored = tiny_scorer.score(whole.study, keypoints=keypoints_of(corrections))
    report = checked(correct(scored, corrections, before=whole.report))
    return dicom_results.Case(whole.study, report, whole.bundle)


@pytest.fixture(scope="module")
def taken_out(whole):
    return replace(whole, report=correct(whole.report, [Correction(BRAUN, AT, unreadable=("cervical",))]))


def objects(case):
    return {kind: case.made(kind) for kind in dicom_results.KINDS}


# ---- UIDs


def test_uids_are_others_and_the_same_when_made_again(whole, corrected, taken_out):
    uids = [
        ds.SOPInstanceUID for case in (whole, corrected, taken_out) for made in objects(case).values() for ds in made
    ]
    assert len(uids) == len(set(uids)) == 5 + 5 + 3
    again = dicom_results.Case(corrected.study, corrected.report, corrected.bundle)
    assert [ds.SOPInstanceUID for ds in again.made("sr")] == [ds.SOPInstanceUID for ds in corrected.made("sr")]


@pytest.mark.parametrize(
    "change", [{"reader": "X"}, {"at": LATER}, {"comment": "Other."}, {"grades": {"C4-superior": 0}}]
)
def test_a_reader_a_time_a_comment_and_a_confirmed_grade_make_another_result(whole, change):
    own = Correction("AB", AT, grades={"C3-superior": whole.report.regions["cervical"].discs[0].corners[1].grade})
    made = [
        replace(whole, report=correct(whole.report, [one])).made("sr")[0].SOPInstanceUID
        for one in (own, replace(own, **change))
    ]
    assert len({*made, whole.made("sr")[0].SOPInstanceUID}) == 3


# ---- the structured report


@needs_dciodvfy
@pytest.mark.parametrize("name", ["corrected", "taken_out"])
def test_dciodvfy_finds_no_error(name, request, tmp_path):
    case = request.getfixturevalue(name)
    made = [ds for of_kind in objects(case).values() for ds in of_kind]
    assert [dicom_results.violations(ds, tmp_path) for ds in made] == [[]] * len(made)


def read_back(ds):
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return dcmread(io.BytesIO(buffer.getvalue()))


def items(dataset):
    """Value type, code and value of the items directly below one."""
    for item in dataset.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].get("CodeValue")
        if item.ValueType == "CODE":
            found = item.ConceptCodeSequence[0]
            value = (found.get("CodeValue") or found.LongCodeValue, found.CodingSchemeDesignator, found.CodeMeaning)
        elif item.ValueType == "NUM":
            value = float(item.MeasuredValueSequence[0].NumericValue)
        else:
            keyword = {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID"}.get(item.ValueType)
            value = str(item[keyword].value) if keyword else None
        yield item.RelationshipType, name, value, item


def groups(document):
    (measurements,) = (item for _, name, _, item in items(document) if name == "126010")
    return {next(v for _, n, v, _ in items(group) if n == "112039"): list(items(group))
            for group in measurements.ContentSequence}  # fmt: skip


def persons(listed):
    return [value for _, name, value, _ in listed if name == "121008"]


def test_the_document_has_the_software_and_the_readers_as_observers_and_is_unverified(corrected):
    (made,) = corrected.made("sr")
    document = read_back(made)
    observers = [value[2] for _, name, value, _ in items(document) if name == "121005"]
    assert observers == ["Device", "Person", "Person"]
    assert persons(items(document)) == [BERG, BRAUN]
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert "VerifyingObserverSequence" not in document
    comments = [value for _, name, value, _ in items(document) if name == "121106"]
    assert comments[1].startswith(
        f"Corrected by {BERG}, 2026-11-29 15:04:05 UTC: C3-superior 1 to 2; L1-inferior 2 to unr"
    )
    assert comments[1].endswith("Comment: No <b>bridge</b>. Seen before.")
    assert comments[2] == f"Corrected by {BRAUN}, 2026-11-29 16:00:00 UTC: C3-superior 2 to 3; T12-inferior 0 to 0"


def test_corrected_items_name_their_reader_and_no_algorithm(corrected):
    found = groups(read_back(corrected.made("sr")[0]))
    readers = {name: persons(listed) for name, listed in found.items()}
    assert {name: value for name, value in readers.items() if value} == {
        "C3-superior": [BRAUN], "L1-inferior": [BERG], "T12-inferior": [BRAUN],
    }  # fmt: skip
    for name, listed in found.items():
        values = {code: value for _, code, value, _ in listed}
        by_reader = name in ("C3-superior", "L1-inferior", "T12-inferior")
        assert ("111001" in values) is not by_reader
        assert (values.get("GRADE-ORIGIN") == codes.private("READER")) is by_reader
        assert not (by_reader and "P0" in values)
        assert (values.get("121005") == PERSON) is by_reader
    numbers = {code: value for _, code, value, _ in found["C3-superior"]}
    assert (numbers["GRADE"], numbers["GRADE-BEFORE"]) == (3, 1)
    unread = {code: value for _, code, value, _ in found["L1-inferior"]}
    assert (unread["GRADE"], unread["GRADE-BEFORE"]) == (codes.private("IMPUTED"), 2)
    (points,) = (item for _, code, _, item in found["C3/C4"] if code == "POINTS-ORIGIN")
    assert persons(items(points)) == [BERG]
    assert not [
        name for name, listed in found.items() if name != "C3/C4" and "POINTS-ORIGIN" in {n for _, n, _, _ in listed}
    ]


def test_highdicom_reads_the_corrected_groups(corrected):
    document = hd.sr.Comprehensive3DSR.from_dataset(read_back(corrected.made("sr")[0]))
    found = {group.tracking_identifier for group in document.content.get_planar_roi_measurement_groups()}
    assert {"C3-superior", "L1-inferior", "C3/C4"} <= found


def test_a_region_that_a_reader_could_not_read(taken_out):
    found = groups(read_back(taken_out.made("sr")[0]))
    (reject,) = (item for _, code, _, item in found["cervical"] if code == "REJECT")
    assert reject.ConceptCodeSequence[0].LongCodeValue == "reader-unreadable"
    assert persons(items(reject)) == [BRAUN]
    assert "C3-superior" not in found


def test_the_text_of_a_structured_report_marks_corrected_corners(corrected, whole, tmp_path):
    text = report_text(write_dicom(tmp_path / "sr.dcm", corrected.made("sr")[0]))
    starred = [line.split()[0] for line in text.splitlines() if line.endswith("*")]
    assert starred == ["C3-superior", "T12-inferior", "L1-inferior"]
    assert text.endswith("* set by a reader")
    assert "*" not in report_text(write_dicom(tmp_path / "sr.dcm", whole.made("sr")[0]))


@pytest.mark.parametrize(
    ("reader", "name"),
    [("AB", "AB"), ("Berg^Anna", "Berg^Anna"), ("A=B\\C", "A-B/C"), ("a^b^c^d^e^f", "a b c d e f"), (" AB ", "AB")],
)
def test_a_reader_is_a_valid_person_name(reader, name):
    assert person_name(reader) == name


# ---- the page, pictures, presentation states, the row, the text


def test_the_page_has_each_change_with_reader_time_and_comment(corrected):
    text = html(corrected.study, corrected.report)
    page = pages.Page.of(text)
    (section,) = page.named("section", id="corrections")
    for words in (
        "Berg^Änna, 2026-11-29 15:04:05 UTC: C3-superior 1 to 2; L1-inferior 2 to unreadable; points of C3/C4 (",
        "Dr Braun, 2026-11-29 16:00:00 UTC: C3-superior 2 to 3; T12-inferior 0 to 0",
        "No <b>bridge</b>.Seen before.",
    ):
        assert words in section.text
    assert "<b>bridge" not in text
    rows = {row.attributes["id"].removeprefix("row-"): row.text for row in page.named("tr") if "id" in row.attributes}
    starred = {site: text.partition("*")[2] for site, text in rows.items() if "*" in text.removeprefix("C3/C4*")}
    assert starred == {"C3-superior": " was 1", "T12-inferior": " was 0", "L1-inferior": " imputed 1"}
    assert rows["C3-inferior"].startswith("C3/C4*points given")
    assert len(page.named("text", class_="star")) == 3
    assert "set by a reader" in page.named("ul", class_="legend")[0].text
    assert "unreadable by a reader" in page.text
    assert "Corrected by a reader." in page.text


def test_a_page_without_corrections_says_nothing_of_them(whole):
    page = pages.Page.of(html(whole.study, whole.report))
    assert "reader" not in page.named("main")[0].text
    assert not page.named("section", id="corrections")


def test_a_region_that_cannot_be_read_shows_why(taken_out):
    page = pages.Page.of(html(taken_out.study, taken_out.report))
    assert "Rejected (reader-unreadable)." in page.text
    assert "Dr Braun, 2026-11-29 15:04:05 UTC: cervical spine cannot be read" in page.text


def test_a_region_that_can_be_read_again_is_in_every_list_of_corrections(whole, taken_out):
    said = [
        Correction(BRAUN, AT, grades={"C3-superior": 2}, unreadable=("lumbar",)),
        Correction(BERG, LATER, comment="Better screen.", readable=("lumbar",)),
    ]
    case = replace(whole, report=checked(correct(whole.report, said)))
    words = "Berg^Änna, 2026-11-29 16:00:00 UTC: lumbar spine can be read again"
    assert words in pages.Page.of(html(case.study, case.report)).text
    document = read_back(case.made("sr")[0])
    comments = [value for _, name, value, _ in items(document) if name == "121106"]
    assert comments[2] == f"Corrected by {words}. Comment: Better screen."
    assert {"L1-inferior", "L1/L2"} <= set(groups(document))
    assert "readable" in content_name(case.report)
    assert '"readable"' not in content_name(taken_out.report)  # its UIDs stay as they were


def test_pictures_and_captures_mark_corrected_corners(whole, corrected):
    for region in ("cervical", "lumbar"):
        plain, marked = (
            draw_overlay(case.study.radiographs[region == "lumbar"], case.report.regions[region], None, "t", "u")
            for case in (whole, corrected)
        )
        legend = marked.shape[0] - plain.shape[0]
        assert legend > 0
        assert np.abs(marked[-legend:].astype(int)).max() == 255
    assert [a.Rows < b.Rows for a, b in zip(whole.made("sc"), corrected.made("sc"), strict=True)] == [True, True]


def test_presentation_states_mark_corrected_corners(whole, corrected):
    def texts(case):
        return [
            text.UnformattedTextValue
            for state in case.made("gsps")
            for layer in state.GraphicAnnotationSequence
            for text in layer.get("TextObjectSequence", ())
        ]

    assert sorted(text for text in texts(corrected) if text.endswith("*")) == ["0*", "3*", "?*", "C3/C4*"]
    assert sum("* set by a reader" in text for text in texts(corrected)) == 2
    assert not [text for text in texts(whole) if "*" in text]


def test_the_row_names_corrected_sites_and_readers(whole, corrected):
    cells = row(corrected.report)
    assert tuple(cells) == COLUMNS
    assert COLUMNS[-2:] == ("corrected_sites", "readers")  # added at the end
    assert cells["corrected_sites"] == "C3-superior T12-inferior L1-inferior"
    assert cells["readers"] == f"{BERG}, {BRAUN}"
    assert (cells["C3-superior"], cells["L1-inferior"], cells["given_points"]) == (3, None, "C3/C4")
    assert (row(whole.report)["corrected_sites"], row(whole.report)["readers"]) == ("", "")


def test_the_summary_marks_corrected_corners(corrected):
    lines = study_summary(corrected.report).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("set by a reader")] == [
        "C3-superior", "T12-inferior", "L1-inferior",
    ]  # fmt: skip
